// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The engine half's root directory: an empty, read-only tmpfs in a mount namespace of its own, and in it, read-only, the
//! few directories and files that the engine half reads by their paths. There is no `/proc` and no `/dev` in it.
//!
//! It is made once, by the launcher, while it still may; an engine half only makes it its root. The namespace holds nothing
//! else, so a volume that is unmounted is not kept alive by a copy here. What is mounted here is seen nowhere else.
//!
//! `mount(2)` and not the newer calls: every kernel has it, and there is nobody to race with.

#![expect(unsafe_code, reason = "unshare(2), which is safe here")]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change, mount_remount, unmount,
};
use rustix::process::{chdir, chroot, fchdir, pivot_root, umask};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// What the system's resolver and TLS read, if it is there.
const SYSTEM: [&str; 14] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/usr/share/pki",
    "/var/lib/ca-certificates",
];

/// Where it is put together: a directory that every container has, and that nothing else in the new namespace needs.
const WORKSHOP: &str = "/proc";

/// The root directory could not be made.
#[derive(Debug, thiserror::Error)]
#[error(
    "the engine half's private root: {step}: {error}: the plugin needs CAP_SYS_ADMIN and a root file system that can be pivoted"
)]
pub struct NoPrivateRoot {
    step: &'static str,
    error: io::Error,
}

/// The root directory; it lives as long as this does.
#[derive(Debug)]
pub struct PrivateRoot {
    directory: OwnedFd,
    /// Holds the mounts.
    _namespace: OwnedFd,
}

impl PrivateRoot {
    /// Makes it, with `wanted` in it, each at its own path. What does not exist is left out. The process must have one
    /// thread; it comes back to where it was, except that its working directory is `/`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make(wanted: &[PathBuf]) -> Result<Self, NoPrivateRoot> {
        let fail = |step| move |errno: rustix::io::Errno| NoPrivateRoot { step, error: errno.into() };
        let before = open("/proc/self/ns/mnt").map_err(fail("opening the mount namespace"))?;
        let root_before = open("/").map_err(fail("opening the root directory"))?;
        // SAFETY: descriptors stay shared; the flag is not FILES.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.map_err(fail("unshare(CLONE_NEWNS)"))?;
        let namespace = open("/proc/self/ns/mnt").map_err(fail("opening the new mount namespace"))?;
        let made = furnish(wanted).and_then(|()| open("/").map_err(fail("opening it")));
        move_into_link_name_space(before.as_fd(), Some(LinkNameSpaceType::Mount))
            .map_err(fail("setns(CLONE_NEWNS)"))?;
        // That led to the namespace's root, which need not be ours.
        fchdir(&root_before).and_then(|()| chroot(".")).map_err(fail("going back"))?;
        Ok(Self { directory: made?, _namespace: namespace })
    }

    /// Makes it the working directory, from which a child finds it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn enter(&self) -> io::Result<()> {
        Ok(fchdir(&self.directory)?)
    }
}

/// Fills the new mount namespace, in which we are, and empties it of all else.
fn furnish(wanted: &[PathBuf]) -> Result<(), NoPrivateRoot> {
    let fail = |step| move |errno: rustix::io::Errno| NoPrivateRoot { step, error: errno.into() };
    // Everybody may look, whatever the mask was.
    let mask = umask(Mode::from_raw_mode(0o022));
    // Nothing from here goes to the node, nor the other way round.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(fail("making it private"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("evanesce-root", WORKSHOP, "tmpfs", flags, c"mode=0555,size=64k,nr_inodes=256").map_err(fail("tmpfs"))?;
    let system = SYSTEM.iter().map(Path::new);
    for path in system.chain(wanted.iter().map(PathBuf::as_path)) {
        match bind(path, flags) {
            // Whether it can be done without is for whoever reads it to say.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done.map_err(|error| NoPrivateRoot { step: "showing a directory in it", error })?,
        }
    }
    umask(mask);
    mount_remount(WORKSHOP, MountFlags::BIND | MountFlags::RDONLY | flags, c"").map_err(fail("making it read-only"))?;
    chdir(WORKSHOP).map_err(fail("chdir"))?;
    // The old root comes to lie upon the new one; the second call takes it, and all that is mounted in it, away.
    pivot_root(".", ".").map_err(fail("pivot_root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(fail("unmounting all else"))?;
    chdir("/").map_err(fail("chdir"))
}

/// Shows `path` in the new root, read-only, at its own path.
fn bind(path: &Path, flags: MountFlags) -> io::Result<()> {
    let is_directory = fs::metadata(path)?.is_dir();
    let within = Path::new(WORKSHOP).join(path.strip_prefix("/").unwrap_or(path));
    if is_directory {
        fs::create_dir_all(&within)?;
    } else {
        fs::create_dir_all(within.parent().unwrap_or(&within))?;
        File::create(&within)?;
    }
    mount_bind_recursive(path, &within)?;
    Ok(mount_remount(&within, MountFlags::BIND | MountFlags::RDONLY | flags, c"")?)
}

fn open(path: &str) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}
