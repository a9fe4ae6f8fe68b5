// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What must outlive the engine half and the warden, but not the node's boot: a record per volume and the digest key.
//!
//! They lie in a directory of root's on a tmpfs, one file per volume, replaced by rename. The warden keeps each record's
//! JSON as it was given and reads none of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Bound;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use evanesce_engine::crash_point;
use ring::rand::{SecureRandom, SystemRandom};
use rustix::fs::{AtFlags, Mode, OFlags, fchmod, fstat, fstatfs, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::failure::{failed, internal, invalid};
use crate::mount::{Kernel, Tmpfs};
use crate::protocol::{DigestKey, MAX_RECORD, VolumeId, WardenError};

/// The version of the files in the directory.
const VERSION: u32 = 1;

/// The mount source of the directory's tmpfs; not a volume's, so that it is never taken for one.
const STATE_SOURCE: &str = "evanesce-state";

const KEY: &str = "key";
const STAGING: &str = "staging";
/// The operator's socket; part of the interface.
const ADMIN_SOCKET: &str = "admin.sock";
const RECORD_SUFFIX: &str = ".json";
const NEW_SUFFIX: &str = ".new";

/// The state directory could not be used; says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A system call failed.
    #[error("--state-dir {path}: {step}: {error}")]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// The directory is somebody else's.
    #[error("--state-dir {path} belongs to uid {uid}: choose a directory that only root may write to")]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// A newer build wrote this.
    #[error(
        "{path} has version {version} and this build knows {VERSION}: go back to the newer version, or reboot the node"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The key file is not one.
    #[error("{path} is not a digest key: remove it; every volume's files are then written once more")]
    Key {
        /// The file.
        path: PathBuf,
    },
}

/// The directory, its tmpfs already there.
#[derive(Debug)]
pub struct StateDir {
    directory: OwnedFd,
    path: PathBuf,
}

/// All records.
#[derive(Debug)]
pub struct Records {
    state: StateDir,
    volumes: BTreeSet<VolumeId>,
    /// Records of a newer build, with their versions.
    newer: BTreeMap<VolumeId, u32>,
}

/// One file. The version comes first, so that it can be read whatever follows.
#[derive(Serialize, Deserialize)]
struct RecordFile<'a> {
    version: u32,
    #[serde(borrow)]
    record: &'a RawValue,
}

#[derive(Deserialize)]
struct AnyRecordFile {
    version: u32,
}

impl StateDir {
    /// Opens `<state dir>/<driver name>`, made with mode 0700 if there was none.
    ///
    /// The directory itself is left as it is: `/run` is a fine choice for it.
    ///
    /// # Errors
    /// When it cannot be made or belongs to somebody else.
    pub fn open(state_dir: &Path, driver: &str) -> Result<Self, StateError> {
        let path = state_dir.join(driver);
        let io = |step| {
            let path = path.clone();
            move |error: io::Error| StateError::Io { path, step, error }
        };
        std::fs::create_dir_all(state_dir).map_err(io("making it"))?;
        match rustix::fs::mkdir(&path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(io("making it")(errno.into())),
        }
        let directory = open_directory(&path).map_err(io("opening it"))?;
        let stat = fstat(&directory).map_err(|errno| io("looking at it")(errno.into()))?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(StateError::Owner { path, uid: stat.st_uid });
        }
        fchmod(&directory, Mode::RWXU).map_err(|errno| io("protecting it")(errno.into()))?;
        Ok(Self { directory, path })
    }

    /// Where the operator's socket is.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.path.join(ADMIN_SOCKET)
    }

    /// An empty directory on which something may be mounted for a moment. What a warden left there that was killed in that
    /// moment is unmounted.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn staging(&self) -> Result<OwnedFd, StateError> {
        match mkdirat(&self.directory, STAGING, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(self.io("making the staging directory")(errno.into())),
        }
        // An error says that nothing is mounted there.
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        while unmount(self.path.join(STAGING), flags).is_ok() {}
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.directory, STAGING, flags, Mode::empty())
            .map_err(|errno| self.io("opening the staging directory")(errno.into()))
    }

    /// Mounts a tmpfs on the directory unless it lies on one: nothing in it shall reach a disk.
    ///
    /// # Errors
    /// When the tmpfs cannot be made or attached.
    pub fn ensure_tmpfs(self, kernel: &impl Kernel) -> Result<Self, StateError> {
        let statfs = fstatfs(&self.directory).map_err(|errno| self.io("looking at it")(errno.into()))?;
        if statfs.f_type == libc::TMPFS_MAGIC {
            return Ok(self);
        }
        let owner = rustix::process::geteuid().as_raw();
        let tmpfs = Tmpfs { source: STATE_SOURCE, size: 16 << 20, inodes: 16_384, mode: 0o700, owner, context: None };
        let mount = kernel.make_tmpfs(&tmpfs).map_err(self.io("making its tmpfs"))?;
        kernel.attach(mount.as_fd(), self.directory.as_fd()).map_err(self.io("mounting its tmpfs"))?;
        let directory = open_directory(&self.path).map_err(self.io("opening it"))?;
        Ok(Self { directory, path: self.path })
    }

    /// The node's digest key, made at the first start.
    ///
    /// # Errors
    /// When the file is not a key, or from a newer build.
    pub fn digest_key(&self) -> Result<DigestKey, StateError> {
        // One byte of version, 32 of key.
        let mut bytes = Zeroizing::new([0; 33]);
        match self.read(KEY, 64).map(Zeroizing::new) {
            Ok(file) => match file.as_slice() {
                [version, ..] if u32::from(*version) > VERSION => {
                    Err(StateError::Newer { path: self.path.join(KEY), version: (*version).into() })
                }
                [_, key @ ..] if let Ok(key) = key.try_into() => Ok(DigestKey::new(key)),
                _ => Err(StateError::Key { path: self.path.join(KEY) }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let [version, key @ ..] = &mut *bytes;
                *version = 1;
                SystemRandom::new()
                    .fill(key)
                    .map_err(|_| self.io("making the digest key")(io::Error::other("no randomness")))?;
                let key = DigestKey::new(key);
                self.replace(KEY, &*bytes).map_err(self.io("writing the digest key"))?;
                crash_point!("start:key-written");
                Ok(key)
            }
            Err(error) => Err(self.io("reading the digest key")(error)),
        }
    }

    fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(&self.directory, name, flags, Mode::empty())?);
        let mut bytes = Vec::with_capacity(usize::try_from(file.metadata()?.len().min(limit)).unwrap_or(0));
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes a file beside the old one and renames it over: whoever reads sees one or the other.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = format!("{name}{NEW_SUFFIX}");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let written = openat(&self.directory, &new, flags, Mode::RUSR | Mode::WUSR)
            .map_err(io::Error::from)
            .and_then(|file| File::from(file).write_all(bytes));
        crash_point!("record:written");
        let renamed = written.and_then(|()| Ok(renameat(&self.directory, &new, &self.directory, name)?));
        crash_point!("record:renamed");
        if renamed.is_err() {
            // A half-written file on a full tmpfs: give its pages back.
            let _ = unlinkat(&self.directory, &new, AtFlags::empty());
        }
        renamed
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn io(&self, step: &'static str) -> impl FnOnce(io::Error) -> StateError + use<> {
        let path = self.path.clone();
        move |error| StateError::Io { path, step, error }
    }
}

impl Records {
    /// Reads which records there are. What is not a record, or is a newer build's, is left alone; what is half-written is
    /// removed.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn load(state: StateDir) -> Result<Self, StateError> {
        let (mut volumes, mut newer) = (BTreeSet::new(), BTreeMap::new());
        let entries =
            rustix::fs::Dir::read_from(&state.directory).map_err(|errno| state.io("reading it")(errno.into()))?;
        for entry in entries {
            let entry = entry.map_err(|errno| state.io("reading it")(errno.into()))?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name.ends_with(NEW_SUFFIX) {
                state.remove(name).map_err(state.io("removing a half-written file"))?;
            }
            let Some(volume) = name.strip_suffix(RECORD_SUFFIX).and_then(|id| id.parse::<VolumeId>().ok()) else {
                continue;
            };
            let bytes = state.read(name, 2 * MAX_RECORD as u64).map_err(state.io("reading a record"))?;
            match serde_json::from_slice::<AnyRecordFile>(&bytes) {
                Ok(file) if file.version > VERSION => {
                    let left = StateError::Newer { path: state.path.join(name), version: file.version };
                    tracing::warn!(%volume, "{left}; the volume is left alone and its pod keeps its files");
                    newer.insert(volume, file.version);
                }
                Ok(_) => {
                    volumes.insert(volume);
                }
                Err(_) => tracing::warn!(%volume, "its record is unreadable: the next publish writes it anew"),
            }
        }
        Ok(Self { state, volumes, newer })
    }

    /// The version of the volume's record, where a newer build wrote it.
    #[must_use]
    pub fn newer(&self, volume: &VolumeId) -> Option<u32> {
        self.newer.get(volume).copied()
    }

    /// Keeps a record, in place of the volume's earlier one.
    ///
    /// # Errors
    /// `Invalid` when it is too long or no JSON; `NoSpace`.
    pub fn put(&mut self, volume: VolumeId, record: &[u8]) -> Result<(), WardenError> {
        if record.len() > MAX_RECORD {
            return Err(invalid(format!("volume {volume}: its record is longer than {MAX_RECORD} bytes")));
        }
        let record = serde_json::from_slice::<&RawValue>(record)
            .map_err(|_| invalid(format!("volume {volume}: its record is no JSON value")))?;
        let file = serde_json::to_vec(&RecordFile { version: VERSION, record })
            .map_err(|_| internal(format!("volume {volume}: its record cannot be written as JSON")))?;
        self.state.replace(&file_name(&volume), &file).map_err(failed("writing a record"))?;
        self.volumes.insert(volume);
        Ok(())
    }

    /// Forgets a record. Done twice, it is done.
    ///
    /// # Errors
    /// `Internal` when the file cannot be removed.
    pub fn drop_record(&mut self, volume: &VolumeId) -> Result<(), WardenError> {
        self.state.remove(&file_name(volume)).map_err(failed("removing a record"))?;
        crash_point!("drop:removed");
        self.volumes.remove(volume);
        self.newer.remove(volume);
        Ok(())
    }

    /// The first record whose volume sorts after the given one and is wanted. One that cannot be read any more is passed over and left
    /// alone: it must not cost the node's other volumes theirs.
    #[must_use]
    pub fn next(&self, after: Option<&VolumeId>, wanted: impl Fn(&VolumeId) -> bool) -> Option<(VolumeId, Vec<u8>)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut volumes = self.volumes.range::<VolumeId, _>((from, Bound::Unbounded)).filter(|volume| wanted(volume));
        volumes.find_map(|volume| match self.read(volume) {
            Ok(record) => Some((volume.clone(), record)),
            Err(error) => {
                tracing::warn!(%volume, %error, "its record was changed by somebody else and is left alone");
                None
            }
        })
    }

    fn read(&self, volume: &VolumeId) -> io::Result<Vec<u8>> {
        let bytes = self.state.read(&file_name(volume), 2 * MAX_RECORD as u64)?;
        let file: RecordFile<'_> = serde_json::from_slice(&bytes)?;
        Ok(file.record.get().as_bytes().to_vec())
    }
}

fn file_name(volume: &VolumeId) -> String {
    format!("{volume}{RECORD_SUFFIX}")
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}
