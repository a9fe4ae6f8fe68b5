// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The same mounts with `mount(2)`, for kernels and container runtimes without the calls that work on descriptors alone.
//!
//! What the newer calls hold detached lies here in a private tmpfs on the staging directory, which nobody else sees, until
//! it is moved to its target in one step. So a pod finds a volume full, read-only and with all of its options, or nothing.
//! Paths are `/proc/thread-self/fd/N`: a descriptor, spelt for a call that takes paths.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, mount_move, mount_remount,
    unmount,
};

use super::{Access, Tmpfs};

/// What every mount of ours is.
const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// The private tmpfs, with a directory for each mount that is not at its target.
#[derive(Debug)]
pub(super) struct Staging {
    root: OwnedFd,
    next: AtomicU64,
}

impl Staging {
    /// Makes it on an empty private directory on which nothing is mounted.
    pub(super) fn on(directory: BorrowedFd<'_>) -> io::Result<Self> {
        // The descriptor shows what will lie beneath the tmpfs, and its name what lies on top.
        let name = std::fs::read_link(path(directory))?;
        mount("evanesce-staging", &name, "tmpfs", FLAGS, c"mode=0700,size=64k")?;
        mount_change(&name, MountPropagationFlags::PRIVATE)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self { root: rustix::fs::open(&name, flags, Mode::empty())?, next: AtomicU64::new(0) })
    }

    /// A new tmpfs, mounted here.
    pub(super) fn make_tmpfs(&self, tmpfs: &Tmpfs<'_>, noswap: bool) -> io::Result<OwnedFd> {
        let options = CString::new(text(&tmpfs.options(noswap)))?;
        self.stage(|place| mount(tmpfs.source, place, "tmpfs", FLAGS, options.as_c_str()))
    }

    /// A mount that is here does not end with its last descriptor, as a detached one does.
    pub(super) fn release(&self, mount: BorrowedFd<'_>) {
        // Gone already is as good.
        let _ = unmount_root(mount);
    }

    /// A second mount of the same file system, mounted here.
    pub(super) fn clone_mount(&self, of: BorrowedFd<'_>, access: Access) -> io::Result<OwnedFd> {
        let read_only = match access {
            Access::ReadOnly => MountFlags::RDONLY,
            Access::Writable => MountFlags::empty(),
        };
        self.stage(|place| {
            mount_bind(path(of), place)?;
            mount_change(place, MountPropagationFlags::PRIVATE)?;
            mount_remount(place, MountFlags::BIND | FLAGS | read_only, c"")
        })
    }

    /// Mounts at a new place and opens what is there.
    fn stage(&self, mount_at: impl FnOnce(&str) -> rustix::io::Result<()>) -> io::Result<OwnedFd> {
        self.sweep()?;
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        mkdirat(&self.root, &name, Mode::RWXU)?;
        let place = format!("{}/{name}", path(&self.root));
        mount_at(&place)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.root, &name, flags, Mode::empty())?)
    }

    /// Removes what was moved to its target or released, and clones that came to nothing.
    fn sweep(&self) -> io::Result<()> {
        for entry in rustix::fs::Dir::read_from(&self.root)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_bytes().starts_with(b".") {
                continue;
            }
            let place = format!("{}/{}", path(&self.root), name.to_string_lossy());
            // Busy while somebody holds it, and no mount if it was moved to its target.
            let _ = unmount(place, UnmountFlags::NOFOLLOW);
            let _ = unlinkat(&self.root, name, AtFlags::REMOVEDIR);
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        self.release(self.root.as_fd());
    }
}

/// Options as `mount(2)` takes them. A label may hold commas, which are its own in quotes (SELinux takes those off).
fn text(options: &[(&'static str, String)]) -> String {
    let option = |(name, value): &(&str, String)| match (*name, value.as_str()) {
        (flag, "") => flag.to_owned(),
        ("context", label) => format!("context=\"{label}\""),
        (name, value) => format!("{name}={value}"),
    };
    options.iter().map(option).collect::<Vec<_>>().join(",")
}

/// Moves a mount from here to its target.
pub(super) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    Ok(mount_move(path(mount), path(target))?)
}

/// Changes the size; the mount would lose its flags if they were not named anew.
pub(super) fn resize(mount: BorrowedFd<'_>, size: u64, inodes: u64, noswap: bool) -> io::Result<()> {
    let noswap = if noswap { ",noswap" } else { "" };
    Ok(mount_remount(path(mount), FLAGS, format!("size={size},nr_inodes={inodes}{noswap}"))?)
}

/// Unmounts by descriptor: `/proc/thread-self/fd/N/.` is the root directory of exactly that mount, wherever it is now. The final
/// `.` is what `UMOUNT_NOFOLLOW` looks at, so the link before it is followed and nothing after it can be.
pub(super) fn unmount_root(root: BorrowedFd<'_>) -> io::Result<()> {
    Ok(unmount(format!("{}/.", path(root)), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
}

fn path(file: impl AsFd) -> String {
    format!("/proc/thread-self/fd/{}", file.as_fd().as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_labels_commas_end_no_option_and_without_a_label_there_is_none() {
        let label = Some("system_u:object_r:container_file_t:s0:c1,c2");
        let mut tmpfs = Tmpfs { source: "evanesce", size: 4096, inodes: 8, mode: 0o755, owner: 7, context: label };
        assert_eq!(
            text(&tmpfs.options(true)),
            "size=4096,nr_inodes=8,mode=0755,uid=7,gid=7,context=\"system_u:object_r:container_file_t:s0:c1,c2\",noswap"
        );
        tmpfs.context = None;
        assert_eq!(text(&tmpfs.options(false)), "size=4096,nr_inodes=8,mode=0755,uid=7,gid=7");
    }
}
