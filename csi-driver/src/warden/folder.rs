// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A directory of root's, held by descriptor, whose files are replaced whole. Records and the journal lie in one each.
//!
//! What is written here survives the death of any process, whenever it comes. That it survives the node's is not promised:
//! nothing is synced (decision 0024).

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, fchmod, fstat, openat, renameat, unlinkat};
use rustix::io::Errno;

/// What a file is called until it is whole.
const NEW_SUFFIX: &str = ".new";

/// A directory could not be used; says which flag chose it, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A system call failed.
    #[error("{flag} {path}: {step}: {error}")]
    Io {
        /// The flag.
        flag: &'static str,
        /// The directory.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// The directory is somebody else's.
    #[error("{flag} {path} belongs to uid {uid}: choose a directory that only root may write to")]
    Owner {
        /// The flag.
        flag: &'static str,
        /// The directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
}

/// The directory.
#[derive(Debug)]
pub(super) struct Folder {
    flag: &'static str,
    path: PathBuf,
    directory: OwnedFd,
}

impl Folder {
    /// Opens the directory that `flag` names, for root alone; made if there is none. The path's end is no link.
    ///
    /// # Errors
    /// When it cannot be made, or is no directory, or somebody else's.
    pub(super) fn open(flag: &'static str, path: &Path) -> Result<Self, FolderError> {
        let io = |step| {
            let path = path.to_owned();
            move |errno: Errno| FolderError::Io { flag, path, step, error: errno.into() }
        };
        match rustix::fs::mkdir(path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(io("making it")(errno)),
        }
        let directory = open_directory(path).map_err(io("opening it"))?;
        let uid = fstat(&directory).map_err(io("looking at it"))?.st_uid;
        if uid != rustix::process::geteuid().as_raw() {
            return Err(FolderError::Owner { flag, path: path.to_owned(), uid });
        }
        fchmod(&directory, Mode::RWXU).map_err(io("protecting it"))?;
        Ok(Self { flag, path: path.to_owned(), directory })
    }

    /// The same path once more: something was mounted on it.
    pub(super) fn reopened(self) -> Result<Self, FolderError> {
        let directory = open_directory(&self.path).map_err(|errno| self.io("opening it")(errno.into()))?;
        Ok(Self { directory, ..self })
    }

    /// Where it is, for a message.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Every file's name; what is half-written is removed first. What is no UTF-8 is none of ours.
    ///
    /// # Errors
    /// When the directory cannot be read or cleaned.
    pub(super) fn names(&self) -> Result<Vec<String>, FolderError> {
        let reading = |errno: Errno| self.io("reading it")(errno.into());
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.directory).map_err(reading)? {
            let entry = entry.map_err(reading)?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name.ends_with(NEW_SUFFIX) {
                self.remove(name).map_err(self.io("removing a half-written file"))?;
            } else {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// The first `limit` bytes of a file.
    pub(super) fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(&self.directory, name, flags, Mode::empty())?);
        let mut bytes = Vec::with_capacity(usize::try_from(file.metadata()?.len().min(limit)).unwrap_or(0));
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes a file beside the old one; [`Folder::show`] puts it in its place.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = new_name(name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let written = openat(&self.directory, &new, flags, Mode::RUSR | Mode::WUSR)
            .map_err(io::Error::from)
            .and_then(|file| File::from(file).write_all(bytes));
        self.or_remove(&new, written)
    }

    /// Renames what was written over the old file: whoever reads sees one or the other.
    pub(super) fn show(&self, name: &str) -> io::Result<()> {
        let new = new_name(name);
        let renamed = renameat(&self.directory, &new, &self.directory, name);
        self.or_remove(&new, renamed.map_err(io::Error::from))
    }

    /// Removes a file. Done twice, it is done.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Says that a step failed here.
    pub(super) fn io(&self, step: &'static str) -> impl FnOnce(io::Error) -> FolderError + use<> {
        let (flag, path) = (self.flag, self.path.clone());
        move |error| FolderError::Io { flag, path, step, error }
    }

    /// A half-written file where there is no room: gives its pages back.
    fn or_remove(&self, new: &str, done: io::Result<()>) -> io::Result<()> {
        if done.is_err() {
            let _ = self.remove(new);
        }
        done
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

fn new_name(name: &str) -> String {
    format!("{name}{NEW_SUFFIX}")
}

fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}
