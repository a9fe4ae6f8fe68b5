// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Target paths: from text that somebody else chose to a directory that is held by descriptor.
//!
//! Every step is the kernel's (`openat2(2)`) beneath one directory that was opened at start; no path is ever resolved
//! twice. Nothing here mounts.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, mkdirat, openat2, unlinkat};
use rustix::io::Errno;

use super::failure::{busy, internal, invalid, not_found};
use crate::protocol::{TargetPath, WardenError};

/// The directory that all targets lie beneath, opened once.
#[derive(Debug)]
pub struct PodsDir {
    directory: OwnedFd,
    path: PathBuf,
    /// The same without symbolic links, as the mount table has it.
    real: PathBuf,
}

/// A target's parent directory, held, and the name in it.
#[derive(Debug)]
pub struct Place<'a> {
    parent: OwnedFd,
    name: &'a str,
    target: &'a TargetPath,
}

impl PodsDir {
    /// Opens the directory; it may be a symbolic link, what lies beneath may have none.
    ///
    /// # Errors
    /// When it is not a directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { directory, path: path.to_owned(), real: path.canonicalize()? })
    }

    /// Where it is, without symbolic links.
    pub fn real_path(&self) -> &Path {
        &self.real
    }

    /// Finds the directory that the target is to be made in.
    ///
    /// # Errors
    /// `Invalid` when the target is elsewhere or the way to it has a symbolic link; `NotFound` when there is no such
    /// directory.
    pub fn place<'a>(&self, target: &'a TargetPath) -> Result<Place<'a>, WardenError> {
        let outside = || invalid(format!("target {target} does not lie beneath --pods-dir {}", self.path.display()));
        let relative = Path::new(target.as_str()).strip_prefix(&self.path).map_err(|_| outside())?;
        let name = relative.file_name().and_then(|name| name.to_str()).ok_or_else(outside)?;
        let parent = match relative.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        // No other mount on the way either: a network file system there could hold the warden for ever.
        let resolve = beneath() | ResolveFlags::NO_XDEV;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = openat2(&self.directory, parent, flags, Mode::empty(), resolve)
            .map_err(|errno| explain(errno, target, "its parent directory"))?;
        Ok(Place { parent, name, target })
    }
}

impl Place<'_> {
    /// Opens the target directory, with what is mounted on it; `None` when there is nothing of that name.
    ///
    /// # Errors
    /// `Invalid` when it is a symbolic link or no directory.
    pub fn open(&self) -> Result<Option<OwnedFd>, WardenError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat2(&self.parent, self.name, flags, Mode::empty(), beneath()) {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(explain(errno, self.target, "the target")),
        }
    }

    /// Opens the target directory, made with mode 0750 if there was none.
    ///
    /// # Errors
    /// Like [`Place::open`].
    pub fn open_or_make(&self) -> Result<OwnedFd, WardenError> {
        match mkdirat(&self.parent, self.name, Mode::from_raw_mode(0o750)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(explain(errno, self.target, "the target directory")),
        }
        self.open()?.ok_or_else(|| busy(format!("target {} was removed while it was being made", self.target)))
    }

    /// Removes the target directory. One that is gone is removed; one that is not empty is left as it is.
    ///
    /// # Errors
    /// `Busy` when it is not empty or something is mounted on it.
    pub fn remove(&self) -> Result<(), WardenError> {
        match unlinkat(&self.parent, self.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTEMPTY) => Err(busy(format!(
                "target {} is not empty and its content is not ours: left alone; remove it by hand",
                self.target
            ))),
            Err(errno) => Err(explain(errno, self.target, "the target directory")),
        }
    }
}

/// Whether a directory has no entries.
///
/// # Errors
/// The kernel's.
pub(super) fn is_empty(directory: BorrowedFd<'_>) -> io::Result<bool> {
    let readable = rustix::fs::openat(
        directory.as_fd(),
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    for entry in rustix::fs::Dir::read_from(&readable)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Nothing leads out, and no link anywhere.
pub(super) fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
}

fn explain(errno: Errno, target: &TargetPath, what: &str) -> WardenError {
    match errno {
        Errno::NOENT => not_found(format!("target {target}: {what} does not exist; kubelet makes it before it asks")),
        Errno::LOOP => invalid(format!("target {target}: {what} is or passes a symbolic link")),
        Errno::XDEV => invalid(format!("target {target}: {what} leaves the pods directory or crosses a mount")),
        Errno::NOTDIR => invalid(format!("target {target}: {what} is not a directory")),
        Errno::NAMETOOLONG => invalid(format!("target {target}: {what} has a name that is too long")),
        Errno::BUSY => busy(format!("target {target}: something else is mounted there")),
        other => internal(format!("target {target}: {what}: {other}")),
    }
}
