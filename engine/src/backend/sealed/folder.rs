// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The folder of sealed files: opened beneath itself, so that no link leads out of it.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;

use crate::backend::{BackendError, BackendErrorKind};
use crate::secret_ref::WirePath;

/// What a secret's path lacks to be a file's.
pub const SUFFIX: &str = ".yaml.age";

/// Longest file that is read, in bytes: twice the longest text, for armor.
const LONGEST: u64 = 2 * crate::yaml::LONGEST as u64;

/// A folder of sealed files.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(path: &str) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// How to call the file in an operator's message.
    pub(super) fn place(&self, path: &WirePath) -> String {
        format!("{}/{}{SUFFIX}", self.0.display(), path.as_str())
    }

    /// Whether the folder is there.
    pub(super) fn probe(&self) -> Result<(), BackendError> {
        self.open().map(drop)
    }

    fn open(&self) -> Result<OwnedFd, BackendError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, &self.0, flags, Mode::empty()).map_err(|errno| {
            let message = format!("cannot open the folder {}: {errno}", self.0.display());
            BackendError::new(BackendErrorKind::Unavailable, message)
        })
    }

    /// The file of `path`, still sealed.
    pub(super) fn read(&self, path: &WirePath) -> Result<Vec<u8>, BackendError> {
        use BackendErrorKind::{Malformed, NotFound, Unavailable};
        let fail = |kind, why: &str| BackendError::new(kind, format!("{}: {why}", self.place(path)));
        let name = format!("{}{SUFFIX}", path.as_str());
        let folder = self.open()?;
        // Links within the folder are followed: a mounted ConfigMap consists of them. NONBLOCK, or a FIFO holds us up.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        // EAGAIN: something moved while the kernel made sure that the path stays beneath.
        let opened = (0..16)
            .map(|_| openat2(&folder, &name, flags, Mode::empty(), beneath))
            .find(|opened| !matches!(opened, Err(Errno::AGAIN)))
            .unwrap_or(Err(Errno::AGAIN));
        let file = opened.map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => fail(NotFound, "there is no such file"),
            Errno::XDEV | Errno::LOOP => fail(NotFound, "a link leads out of the folder, or in a circle"),
            Errno::ACCESS | Errno::PERM => fail(Unavailable, "may not be read by the user this program runs as"),
            other => fail(Unavailable, &format!("cannot be opened: {other}")),
        })?;
        let stat = fstat(&file).map_err(|errno| fail(Unavailable, &errno.to_string()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(fail(NotFound, "is not a file"));
        }
        let mut sealed = Vec::new();
        File::from(file)
            .take(LONGEST + 1)
            .read_to_end(&mut sealed)
            .map_err(|error| fail(Unavailable, &format!("cannot be read: {error}")))?;
        if sealed.len() as u64 > LONGEST {
            return Err(fail(Malformed, "is too large to be a sealed secret"));
        }
        Ok(sealed)
    }
}
