// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The SELinux label of volumes. Without one a tmpfs of ours has the type `tmpfs_t`, which no container may read.
//!
//! The label is a mount option (`context=`, mount(8)): it counts for every file, nobody can change it, and kubelet leaves
//! such a volume alone instead of having it relabelled.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::str::FromStr;

use crate::mount::{Kernel, Tmpfs, VOLUME_SOURCE};

/// A label: `user:role:type:level`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelinuxContext(String);

impl SelinuxContext {
    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What `--selinux-context` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selinux {
    /// Leave it to the policy.
    None,
    /// This one, where SELinux is on.
    Context(SelinuxContext),
}

impl FromStr for Selinux {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::None);
        }
        // Only a level has commas, between its categories; nothing else could end the label and begin another mount option.
        let mut parts = text.splitn(4, ':');
        let is_name = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        };
        let is_level = |level: &str| level.starts_with('s') && level.split(['-', ':', ',']).all(is_range);
        let names = parts.by_ref().take(3).filter(|part| is_name(part)).count() == 3;
        if text.len() <= 255 && names && parts.next().is_some_and(is_level) {
            Ok(Self::Context(SelinuxContext(text.to_owned())))
        } else {
            Err("write user:role:type:level, such as system_u:object_r:container_file_t:s0, or `none`".to_owned())
        }
    }
}

/// `s0`, `c12` or `c0.c1023`.
fn is_range(text: &str) -> bool {
    text.split('.').all(|one| {
        one.strip_prefix(['s', 'c'])
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|it| it.is_ascii_digit()))
    })
}

impl Selinux {
    /// The label to give to volumes on this machine, which is tried once; `None` where SELinux is off.
    ///
    /// # Errors
    /// When SELinux is on and its policy does not take the label, with the cure.
    pub fn label(&self, proc: &Path, kernel: &impl Kernel) -> Result<Option<SelinuxContext>, String> {
        let Self::Context(label) = self else { return Ok(None) };
        if !is_on(proc).map_err(|error| format!("{}: {error}: mount /proc", proc.display()))? {
            return Ok(None);
        }
        let context = Some(label.as_str());
        let tmpfs = Tmpfs { source: VOLUME_SOURCE, size: 1 << 16, inodes: 8, mode: 0o755, owner: 0, context };
        let mount = kernel.make_tmpfs(&tmpfs).map_err(|error| {
            format!("--selinux-context {}: {error}: give one that this node's SELinux policy has, or `none`", label.0)
        })?;
        kernel.release(mount.as_fd());
        Ok(Some(label.clone()))
    }
}

/// Whether SELinux is on and has a policy. `/sys/fs/selinux` would say so too, but a container's `/sys` is a new one, without
/// it. A process has a label with a policy only, and another module's label is none of this form.
fn is_on(proc: &Path) -> io::Result<bool> {
    let has = fs::read_to_string(proc.join("filesystems"))?.lines().any(|line| line.ends_with("\tselinuxfs"));
    // Not there, or not readable, without any such module.
    let label = fs::read(proc.join("self/attr/current")).unwrap_or_default();
    Ok(has && label.iter().filter(|byte| **byte == b':').count() >= 2)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::cell::RefCell;
    use std::os::fd::{BorrowedFd, OwnedFd};

    use super::*;
    use crate::mount::{Access, Mount};
    use crate::warden::{PodsDir, Volumes};

    /// A kernel that notes labels and knows one of them.
    #[derive(Default)]
    struct Labels(RefCell<Vec<Option<String>>>);

    const KNOWN: &str = "system_u:object_r:container_file_t:s0";

    impl Kernel for &Labels {
        fn make_tmpfs(&self, tmpfs: &Tmpfs<'_>) -> io::Result<OwnedFd> {
            if tmpfs.context.is_some_and(|label| label != KNOWN) {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            self.0.borrow_mut().push(tmpfs.context.map(str::to_owned));
            Ok(tempfile::tempdir().map(|it| fs::File::open(it.path()))??.into())
        }

        fn release(&self, _: BorrowedFd<'_>) {}

        fn clone_mount(&self, _: BorrowedFd<'_>, _: Access) -> io::Result<OwnedFd> {
            unreachable!()
        }

        fn attach(&self, _: BorrowedFd<'_>, _: BorrowedFd<'_>) -> io::Result<()> {
            unreachable!()
        }

        fn detach(&self, _: BorrowedFd<'_>) -> io::Result<()> {
            unreachable!()
        }

        fn resize(&self, _: BorrowedFd<'_>, _: u64, _: u64) -> io::Result<()> {
            unreachable!()
        }

        fn mount_at(&self, _: BorrowedFd<'_>) -> io::Result<Option<Mount>> {
            unreachable!()
        }

        fn volumes(&self, _: &Path) -> io::Result<Vec<u64>> {
            unreachable!()
        }
    }

    /// A `/proc` as a machine has it.
    fn proc(filesystems: &str, label: &str) -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        fs::create_dir_all(proc.path().join("self/attr")).unwrap();
        fs::write(proc.path().join("filesystems"), filesystems).unwrap();
        fs::write(proc.path().join("self/attr/current"), label).unwrap();
        proc
    }

    const WITH: &str = "nodev\tsysfs\nnodev\tselinuxfs\n\text4\n";

    #[test]
    fn a_label_is_given_only_where_selinux_is_on_and_has_a_policy() {
        let flag: Selinux = KNOWN.parse().unwrap();
        for (filesystems, label, given) in [
            (WITH, "system_u:system_r:spc_t:s0\0", true),
            (WITH, "kernel\0", false),
            (WITH, "", false),
            ("nodev\tsysfs\n\text4\n", "cri-containerd.apparmor.d (enforce)\n", false),
            ("nodev\tsysfs\n", "a:b:c", false),
        ] {
            let proc = proc(filesystems, label);
            let labels = Labels::default();
            let found = flag.label(proc.path(), &&labels).unwrap();
            assert_eq!(found.as_ref().map(SelinuxContext::as_str), given.then_some(KNOWN), "{filesystems:?} {label:?}");
            assert_eq!(Selinux::None.label(proc.path(), &&labels).unwrap(), None);
        }
        assert!(flag.label(Path::new("/nowhere"), &&Labels::default()).unwrap_err().contains("mount /proc"));
    }

    #[test]
    fn a_label_that_the_policy_does_not_have_is_refused_with_the_flag_and_the_cure() {
        let flag: Selinux = "system_u:object_r:nobodys_t:s0".parse().unwrap();
        let proc = proc(WITH, "system_u:system_r:spc_t:s0");
        let error = flag.label(proc.path(), &&Labels::default()).unwrap_err();
        assert!(
            error.starts_with("--selinux-context system_u:object_r:nobodys_t:s0: ") && error.ends_with("or `none`"),
            "{error}"
        );
    }

    #[test]
    fn every_volume_has_the_label_and_none_where_there_is_none() {
        let labels = Labels::default();
        let pods = tempfile::tempdir().unwrap();
        for label in [Some(SelinuxContext(KNOWN.to_owned())), None] {
            let pods = PodsDir::open(pods.path()).unwrap();
            let mut volumes = Volumes::new(&labels, pods, 0, 1 << 20).labelled(label);
            volumes.make("csi-1".parse().unwrap(), 4096, 8).unwrap();
        }
        assert_eq!(*labels.0.borrow(), [Some(KNOWN.to_owned()), None]);
    }

    #[test]
    fn a_label_cannot_hold_another_mount_option() {
        for right in [KNOWN, "a:b:c:s0:c1,c2", "system_u:object_r:container_file_t:s0-s15:c0.c1023", "a_u:b-c:d.e:s0"] {
            assert!(matches!(right.parse(), Ok(Selinux::Context(it)) if it.as_str() == right), "{right}");
        }
        for wrong in [
            "a:b:c:s0,size=1",
            "a:b:c:s0,noexec",
            "a:b:c:s0\"",
            "a:b:c:",
            "a:b,c:d:s0",
            ":b:c:s0",
            "a:b:c:s0 ",
            "a:b:c:x",
        ] {
            assert!(wrong.parse::<Selinux>().is_err(), "{wrong}");
        }
    }
}
