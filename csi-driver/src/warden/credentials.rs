// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Files that only root may read, opened on request and passed as descriptors. Their content is never read here.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;

use super::failure::{failed, internal, invalid, not_found};
use crate::protocol::{CredentialName, FileIdentity, WardenError};

/// The largest credentials file, in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// The directory of credentials files, if there is one.
#[derive(Debug)]
pub struct CredentialsDir {
    directory: Option<OwnedFd>,
    path: PathBuf,
}

impl CredentialsDir {
    /// Opens the directory. Without one, every file is absent.
    ///
    /// # Errors
    /// When it is not a directory.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = path.map(|path| rustix::fs::open(path, flags, Mode::empty())).transpose()?;
        Ok(Self { directory, path: path.unwrap_or(Path::new("")).to_owned() })
    }

    /// Opens a file for reading, unless it is still the known one.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for what is no regular file, larger than 1 MiB, or outside the directory.
    pub fn open_file(
        &self,
        name: &CredentialName,
        known: Option<FileIdentity>,
    ) -> Result<Option<(FileIdentity, OwnedFd)>, WardenError> {
        let path = self.path.display();
        let Some(directory) = &self.directory else {
            return Err(not_found(format!("credentials file {name}: there is no --credentials-dir")));
        };
        // Symbolic links are followed, but never out of the directory: a mounted Secret or ConfigMap consists of links to
        // `..data/<name>`, and `..data` is one itself. The name is one component, so nobody chooses a way through them.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        // Not blocking: opening a named pipe would wait for its other end.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat2(directory, name.as_str(), flags, Mode::empty(), resolve).map_err(|errno| match errno {
            Errno::NOENT => not_found(format!("credentials file {name}: not in --credentials-dir {path}")),
            Errno::XDEV | Errno::LOOP => {
                invalid(format!("credentials file {name}: a symbolic link leads out of --credentials-dir {path}"))
            }
            Errno::NXIO => invalid(format!("credentials file {name} is not a regular file")),
            other => failed(format_args!("credentials file {name}"))(other.into()),
        })?;
        let stat = fstat(&file).map_err(|errno| internal(format!("credentials file {name}: {errno}")))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(invalid(format!("credentials file {name} is not a regular file")));
        }
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if size > MAX_SIZE {
            return Err(invalid(format!("credentials file {name} is larger than {MAX_SIZE} bytes")));
        }
        let changed = stat.st_ctime.saturating_mul(1_000_000_000).saturating_add_unsigned(stat.st_ctime_nsec);
        let identity = FileIdentity { device: stat.st_dev, inode: stat.st_ino, size, changed };
        Ok((known != Some(identity)).then_some((identity, file)))
    }
}
