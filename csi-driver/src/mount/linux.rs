// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! [`Kernel`] on Linux: `fsopen`, `open_tree`, `mount_setattr`, `move_mount` (5.12), or else `mount(2)` ([`by_path`]) where
//! any of them is missing. Below 5.8 there are no mount ids to ask for, and nothing is tried.
//!
//! [`by_path`]: super::by_path

#![expect(unsafe_code, reason = "neither rustix nor libc wraps mount_setattr(2)")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, move_mount, open_tree,
};

use super::by_path::{self, Staging, unmount_root};
use super::{Access, Kernel, Mount, Tmpfs, VOLUME_SOURCE, table};
use crate::protocol::Reduced;

/// The running kernel, and what it was found to be able to do.
#[derive(Debug)]
pub struct LinuxKernel {
    noswap: bool,
    /// A private directory to mount on for a moment, where a detached mount cannot be cloned.
    staging: Option<OwnedFd>,
    /// The other way of doing everything, where a call is missing.
    by_path: Option<Staging>,
}

/// This kernel or container cannot do what the warden is for.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {error}: {cure}")]
pub struct TooOld {
    step: &'static str,
    error: io::Error,
    cure: &'static str,
}

impl LinuxKernel {
    /// Tries everything once on a tmpfs that nobody sees, and notes what is missing but not vital. `staging` is a private
    /// directory that is used only where a detached mount cannot be cloned (Linux before 6.15).
    ///
    /// # Errors
    /// Says which call failed and what the node or the container lacks.
    pub fn probe(owner: u32, staging: OwnedFd) -> Result<(Self, Vec<Reduced>), TooOld> {
        let fail = |step| move |error: io::Error| TooOld { step, cure: cure(&error), error };
        old_enough(staging.as_fd()).map_err(fail("resolving paths safely"))?;
        match Self::try_all(owner, &staging, None) {
            Err(TooOld { error, .. }) if error.raw_os_error() == Some(libc::ENOSYS) => {
                let by_path = Staging::on(staging.as_fd()).map_err(fail("mounting on the staging directory"))?;
                let (kernel, mut reduced) = Self::try_all(owner, &staging, Some(by_path))?;
                reduced.push(Reduced::MountCalls);
                Ok((kernel, reduced))
            }
            tried => tried,
        }
    }

    fn try_all(owner: u32, staging: &OwnedFd, by_path: Option<Staging>) -> Result<(Self, Vec<Reduced>), TooOld> {
        let fail = |step| move |error: io::Error| TooOld { step, cure: cure(&error), error };
        let mut reduced = Vec::new();
        let mut kernel = Self { noswap: true, staging: None, by_path };
        let tmpfs = Tmpfs { source: VOLUME_SOURCE, size: 1 << 16, inodes: 8, mode: 0o755, owner, context: None };

        let mount = match kernel.make_tmpfs(&tmpfs) {
            Ok(mount) => mount,
            Err(_) => {
                kernel.noswap = false;
                reduced.push(Reduced::Swap);
                kernel.make_tmpfs(&tmpfs).map_err(fail("making a tmpfs"))?
            }
        };
        let clone = match kernel.clone_mount(mount.as_fd(), Access::ReadOnly) {
            Ok(clone) => clone,
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                kernel.staging = Some(staging.try_clone().map_err(fail("keeping the staging directory"))?);
                reduced.push(Reduced::StagedAttach);
                kernel.clone_mount(mount.as_fd(), Access::ReadOnly).map_err(fail("cloning a mount"))?
            }
            Err(error) => return Err(fail("cloning a mount")(error)),
        };
        drop(clone);
        kernel.resize(mount.as_fd(), 1 << 17, 16).map_err(fail("resizing a tmpfs"))?;
        Ok((kernel, reduced))
    }

    /// The same kernel with another staging directory: the state directory has got a tmpfs of its own, which hides the old one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn with_staging(mut self, staging: OwnedFd) -> io::Result<Self> {
        if self.by_path.is_some() {
            self.by_path = Some(Staging::on(staging.as_fd())?);
        }
        self.staging = self.staging.and(Some(staging));
        Ok(self)
    }

    /// The same kernel, made to clone by way of the staging directory.
    #[must_use]
    pub fn staged(mut self, staging: OwnedFd) -> Self {
        self.staging = Some(staging);
        self
    }

    /// Before Linux 6.15 only a mount that is somewhere can be cloned, so it is somewhere for a moment: in a directory
    /// that nobody else sees.
    fn clone_staged(mount: BorrowedFd<'_>, staging: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        move_onto(mount, staging)?;
        let clone = open_clone(mount);
        let unstaged = unmount_root(mount);
        let clone = clone?;
        unstaged?;
        Ok(clone)
    }
}

impl Kernel for LinuxKernel {
    fn make_tmpfs(&self, tmpfs: &Tmpfs<'_>) -> io::Result<OwnedFd> {
        if let Some(staging) = &self.by_path {
            return staging.make_tmpfs(tmpfs, self.noswap);
        }
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "source", tmpfs.source)?;
        for (name, value) in tmpfs.options(self.noswap) {
            if value.is_empty() {
                fsconfig_set_flag(&context, name)?;
            } else {
                fsconfig_set_string(&context, name, value)?;
            }
        }
        fsconfig_create(&context)?;
        let attributes =
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
    }

    fn clone_mount(&self, mount: BorrowedFd<'_>, access: Access) -> io::Result<OwnedFd> {
        if let Some(staging) = &self.by_path {
            return staging.clone_mount(mount, access);
        }
        let clone = match &self.staging {
            Some(staging) if self.mount_at(mount)?.is_none() => Self::clone_staged(mount, staging.as_fd())?,
            _ => open_clone(mount)?,
        };
        set_attributes(clone.as_fd(), access)?;
        Ok(clone)
    }

    fn release(&self, mount: BorrowedFd<'_>) {
        if let Some(staging) = &self.by_path {
            staging.release(mount);
        }
    }

    fn attach(&self, mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
        if self.by_path.is_some() { by_path::attach(mount, target) } else { move_onto(mount, target) }
    }

    fn detach(&self, root: BorrowedFd<'_>) -> io::Result<()> {
        unmount_root(root)
    }

    fn resize(&self, mount: BorrowedFd<'_>, size: u64, inodes: u64) -> io::Result<()> {
        if self.by_path.is_some() {
            return by_path::resize(mount, size, inodes, self.noswap);
        }
        let context = fspick(mount, "", FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH)?;
        fsconfig_set_string(&context, "size", size.to_string())?;
        fsconfig_set_string(&context, "nr_inodes", inodes.to_string())?;
        if self.noswap {
            // "Remounts must respect the original settings" (the kernel's tmpfs documentation).
            fsconfig_set_flag(&context, "noswap")?;
        }
        Ok(fsconfig_reconfigure(&context)?)
    }

    fn mount_at(&self, directory: BorrowedFd<'_>) -> io::Result<Option<Mount>> {
        table::mount_at(directory)
    }

    fn volumes(&self, beneath: &Path) -> io::Result<Vec<u64>> {
        table::volumes(beneath)
    }
}

/// What there is no other way for: resolving beneath a directory (Linux 5.6), and asking which mount it is (5.8).
fn old_enough(directory: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(directory, ".", flags, Mode::empty(), ResolveFlags::BENEATH)?;
    let stat = statx(directory, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    if stat.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    Ok(())
}

fn open_clone(mount: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(open_tree(mount, "", flags)?)
}

fn move_onto(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", target, "", flags)?)
}

/// Makes a detached clone read-only or writable, and private: what is mounted beneath it goes nowhere else.
fn set_attributes(clone: BorrowedFd<'_>, access: Access) -> io::Result<()> {
    let read_only = libc::MOUNT_ATTR_RDONLY;
    let (attr_set, attr_clr) = match access {
        Access::ReadOnly => (read_only, 0),
        Access::Writable => (0, read_only),
    };
    let attributes = libc::mount_attr { attr_set, attr_clr, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    // SAFETY: the path is a NUL-terminated string and `attributes` is a `mount_attr` of the size that is passed; both
    // outlive the call, which only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            clone.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn cure(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::PERM | Errno::ACCESS) => {
            "the warden needs CAP_SYS_ADMIN: run it as root, in Kubernetes with `privileged: true`"
        }
        Some(Errno::NOSYS) => "this needs Linux 5.8 or later, and a container runtime whose seccomp profile allows it",
        _ => "see the kernel's log",
    }
}
