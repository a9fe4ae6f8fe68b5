// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What must outlive the engine half and the warden, but not the node's boot: a record per volume and the digest key.
//!
//! They lie in a directory of root's on a tmpfs, one file per volume, replaced by rename. The warden keeps each record's
//! JSON as it was given and reads none of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use evanesce_engine::crash_point;
use ring::rand::{SecureRandom, SystemRandom};
use rustix::fs::{Mode, OFlags, fstatfs, mkdirat, openat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::failure::{failed, internal, invalid};
use super::folder::{Folder, FolderError};
use crate::mount::{Kernel, Tmpfs};
use crate::protocol::{DigestKey, MAX_RECORD, VolumeId, WardenError};

/// What chooses the directory.
const FLAG: &str = "--state-dir";

/// The version of the files in the directory.
const VERSION: u32 = 1;

/// The mount source of the directory's tmpfs; not a volume's, so that it is never taken for one.
const STATE_SOURCE: &str = "evanesce-state";

const KEY: &str = "key";
const STAGING: &str = "staging";
/// The operator's socket; part of the interface.
const ADMIN_SOCKET: &str = "admin.sock";
const RECORD_SUFFIX: &str = ".json";

/// The state directory could not be used; says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The directory.
    #[error(transparent)]
    Folder(#[from] FolderError),
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
    #[error(
        "{path} is not a digest key: remove it; every volume's files are then written once more, and leases that pods had \
         run out at their end"
    )]
    Key {
        /// The file.
        path: PathBuf,
    },
}

/// The directory, its tmpfs already there.
#[derive(Debug)]
pub struct StateDir {
    folder: Folder,
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
        std::fs::create_dir_all(state_dir).map_err(|error| {
            let path = state_dir.to_owned();
            FolderError::Io { flag: FLAG, path, step: "making it", error }
        })?;
        Ok(Self { folder: Folder::open(FLAG, &path)? })
    }

    /// Where the operator's socket is.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.folder.path().join(ADMIN_SOCKET)
    }

    /// An empty directory on which something may be mounted for a moment. What a warden left there that was killed in that
    /// moment is unmounted.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn staging(&self) -> Result<OwnedFd, StateError> {
        match mkdirat(&self.folder, STAGING, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(self.io("making the staging directory")(errno.into())),
        }
        // An error says that nothing is mounted there.
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        while unmount(self.folder.path().join(STAGING), flags).is_ok() {}
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.folder, STAGING, flags, Mode::empty())
            .map_err(|errno| self.io("opening the staging directory")(errno.into()))
    }

    /// Mounts a tmpfs on the directory unless it lies on one: nothing in it shall reach a disk.
    ///
    /// # Errors
    /// When the tmpfs cannot be made or attached.
    pub fn ensure_tmpfs(self, kernel: &impl Kernel) -> Result<Self, StateError> {
        let statfs = fstatfs(&self.folder).map_err(|errno| self.io("looking at it")(errno.into()))?;
        if statfs.f_type == libc::TMPFS_MAGIC {
            return Ok(self);
        }
        let owner = rustix::process::geteuid().as_raw();
        let tmpfs = Tmpfs { source: STATE_SOURCE, size: 16 << 20, inodes: 16_384, mode: 0o700, owner, context: None };
        let mount = kernel.make_tmpfs(&tmpfs).map_err(self.io("making its tmpfs"))?;
        kernel.attach(mount.as_fd(), self.folder.as_fd()).map_err(self.io("mounting its tmpfs"))?;
        Ok(Self { folder: self.folder.reopened()? })
    }

    /// The node's digest key, made at the first start.
    ///
    /// # Errors
    /// When the file is not a key, or from a newer build.
    pub fn digest_key(&self) -> Result<DigestKey, StateError> {
        // One byte of version, 32 of key.
        let mut bytes = Zeroizing::new([0; 33]);
        match self.folder.read(KEY, 64).map(Zeroizing::new) {
            Ok(file) => match file.as_slice() {
                [version, ..] if u32::from(*version) > VERSION => {
                    Err(StateError::Newer { path: self.folder.path().join(KEY), version: (*version).into() })
                }
                [_, key @ ..] if let Ok(key) = key.try_into() => Ok(DigestKey::new(key)),
                _ => Err(StateError::Key { path: self.folder.path().join(KEY) }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let [version, key @ ..] = &mut *bytes;
                *version = 1;
                SystemRandom::new()
                    .fill(key)
                    .map_err(|_| self.io("making the digest key")(io::Error::other("no randomness")))?;
                let key = DigestKey::new(key);
                let written = self.folder.write(KEY, &*bytes).and_then(|()| self.folder.show(KEY));
                written.map_err(self.io("writing the digest key"))?;
                crash_point!("start:key-written");
                Ok(key)
            }
            Err(error) => Err(self.io("reading the digest key")(error)),
        }
    }

    fn io(&self, step: &'static str) -> impl FnOnce(io::Error) -> StateError + use<> {
        let error = self.folder.io(step);
        move |why| error(why).into()
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
        for name in state.folder.names()? {
            let Some(volume) = name.strip_suffix(RECORD_SUFFIX).and_then(|id| id.parse::<VolumeId>().ok()) else {
                continue;
            };
            let bytes = state.folder.read(&name, 2 * MAX_RECORD as u64).map_err(state.io("reading a record"))?;
            match serde_json::from_slice::<AnyRecordFile>(&bytes) {
                Ok(file) if file.version > VERSION => {
                    let left = StateError::Newer { path: state.folder.path().join(name), version: file.version };
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
        let name = file_name(&volume);
        self.state.folder.write(&name, &file).map_err(failed("writing a record"))?;
        crash_point!("record:written");
        self.state.folder.show(&name).map_err(failed("keeping a record"))?;
        crash_point!("record:renamed");
        self.volumes.insert(volume);
        Ok(())
    }

    /// Forgets a record. Done twice, it is done.
    ///
    /// # Errors
    /// `Internal` when the file cannot be removed.
    pub fn drop_record(&mut self, volume: &VolumeId) -> Result<(), WardenError> {
        self.state.folder.remove(&file_name(volume)).map_err(failed("removing a record"))?;
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
        let bytes = self.state.folder.read(&file_name(volume), 2 * MAX_RECORD as u64)?;
        let file: RecordFile<'_> = serde_json::from_slice(&bytes)?;
        Ok(file.record.get().as_bytes().to_vec())
    }
}

fn file_name(volume: &VolumeId) -> String {
    format!("{volume}{RECORD_SUFFIX}")
}
