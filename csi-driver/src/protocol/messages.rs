// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Requests, replies, and the closed list of what can go wrong with them.

use serde::{Deserialize, Serialize};

use super::LeaseGroupId;
use super::hello::{Hello, HelloBack};
use super::ids::{CredentialName, TargetPath, VolumeId, VolumePath};

/// The longest record and the longest entry of the journal, in bytes; leaves room for its name in a packet.
pub const MAX_RECORD: usize = 7 * 1024;

/// The most files one [`Request::Own`] names; the warden holds them open together.
pub const MAX_OWN: usize = 64;

/// What the warden sends.
#[derive(Serialize, Deserialize)]
pub enum WardenFrame {
    /// The first message.
    Hello(Box<Hello>),
    /// The answer to a request; its descriptors come with it.
    Reply {
        /// The request's id.
        id: u64,
        /// What came of it.
        result: Result<Reply, WardenError>,
    },
    /// Finish what was begun, take nothing new, exit. Sent at most once.
    Drain,
}

/// What the engine half sends.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineFrame {
    /// The first message.
    HelloBack(HelloBack),
    /// Something to do. No descriptor comes with it: those that a uid has under way are counted together, and another
    /// process of the engine half's uid could spend what the kernel lets them be.
    Request {
        /// Chosen by the engine half, given back in the reply.
        id: u64,
        /// What to do.
        body: Request,
    },
}

/// What the engine half may ask for. Nothing else is ever done on its behalf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// A new detached tmpfs; answered by [`Reply::Volume`] and its root directory. A volume of that name that was made but
    /// never attached is replaced.
    MakeVolume {
        /// The volume.
        volume: VolumeId,
        /// Its size in bytes.
        size: u64,
        /// How many inodes it may have.
        inodes: u64,
    },
    /// Gives files of a volume to owners.
    Own {
        /// The volume.
        volume: VolumeId,
        /// At most [`MAX_OWN`].
        files: Vec<(VolumePath, Owner)>,
    },
    /// Shows a read-only clone of the volume at the target, in one step.
    Attach {
        /// The volume.
        volume: VolumeId,
        /// Where.
        target: TargetPath,
    },
    /// All that makes a filled volume a pod's, in this order: keeps the record as [`Request::PutRecord`] does, gives files to
    /// owners as [`Request::Own`] does, and attaches. What fails is the last that is tried.
    Show {
        /// The volume.
        volume: VolumeId,
        /// Where.
        target: TargetPath,
        /// The JSON text.
        record: Vec<u8>,
        /// At most [`MAX_OWN`].
        files: Vec<(VolumePath, Owner)>,
    },
    /// Changes a volume's size.
    Resize {
        /// The volume.
        volume: VolumeId,
        /// Its new size in bytes.
        size: u64,
    },
    /// Whether the volume's tmpfs is what sits at the target.
    IsAttached {
        /// The volume.
        volume: VolumeId,
        /// Where.
        target: TargetPath,
    },
    /// Unmounts the target if what sits there is ours, removes its directory, forgets the volume. Done twice, it is done.
    Detach {
        /// The volume.
        volume: VolumeId,
        /// Where it is attached; `None` forgets a volume that never was.
        target: Option<TargetPath>,
    },
    /// The writable root of a volume that an earlier engine half attached.
    Adopt {
        /// The volume.
        volume: VolumeId,
        /// Where it is attached.
        target: TargetPath,
    },
    /// Keeps what the next engine half must know about the volume: a JSON value of at most [`MAX_RECORD`] bytes, never a
    /// secret.
    PutRecord {
        /// The volume.
        volume: VolumeId,
        /// The JSON text.
        record: Vec<u8>,
    },
    /// Forgets the volume's record. Done twice, it is done.
    DropRecord {
        /// The volume.
        volume: VolumeId,
    },
    /// The first record whose volume sorts after the given one.
    NextRecord {
        /// `None` for the first of all.
        after: Option<VolumeId>,
    },
    /// Keeps what the next engine half must know to end the group's login: at most [`MAX_RECORD`] bytes, sealed. Whatever
    /// process dies after the answer, they are kept.
    PutLease {
        /// The group.
        group: LeaseGroupId,
        /// The sealed bytes.
        entry: Vec<u8>,
    },
    /// Forgets the group's entry. Done twice, it is done.
    DropLease {
        /// The group.
        group: LeaseGroupId,
    },
    /// The first entry whose group sorts after the given one.
    NextLease {
        /// `None` for the first of all.
        after: Option<LeaseGroupId>,
    },
    /// Whether a volume is mounted somewhere that this engine half has neither made nor taken over.
    AnyUnknown,
    /// A file of the credentials directory, unless it is still the known one.
    OpenCredential {
        /// Its name.
        name: CredentialName,
        /// What the caller has already read.
        known: Option<FileIdentity>,
    },
    /// A fresh connection to our own CSI socket, for the liveness probe.
    Probe,
    /// Nothing is asked: the engine half serves from now on.
    Ready,
}

/// What a request is answered with.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// The volume's root directory comes with this.
    Volume,
    /// The volume is visible, with these mount options as the kernel shows them.
    Attached {
        /// Of the mount first, then of the file system.
        options: Vec<String>,
    },
    /// Whether it is attached.
    IsAttached(bool),
    /// Whether there is one.
    AnyUnknown(bool),
    /// There is no such volume at that target.
    NotThere,
    /// One record.
    Record {
        /// Its volume.
        volume: VolumeId,
        /// The JSON text that was put.
        record: Vec<u8>,
    },
    /// There are no more records.
    NoMoreRecords,
    /// One entry of the journal.
    Lease {
        /// Its group.
        group: LeaseGroupId,
        /// The bytes that were put.
        entry: Vec<u8>,
    },
    /// There are no more entries.
    NoMoreLeases,
    /// The file comes with this, open for reading.
    Credential {
        /// What to pass as `known` next time.
        identity: FileIdentity,
    },
    /// The file is the known one.
    Unchanged,
    /// The connected socket comes with this.
    Connection,
}

/// An owner for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The user; `None` leaves it.
    pub uid: Option<u32>,
    /// The group; `None` leaves it.
    pub gid: Option<u32>,
}

/// Which file it was and when it last changed; equal identities mean equal content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// `st_size`, bytes.
    pub size: u64,
    /// `st_ctim`, nanoseconds since the epoch.
    pub changed: i64,
}

/// Why the warden did not do it. The message names what failed and the cure; it holds no secret, as the warden has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct WardenError {
    /// What kind of failure, for the caller's decision.
    pub kind: ErrorKind,
    /// For a person.
    pub message: String,
}

/// The closed list of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The request cannot be right, however often it is tried.
    Invalid,
    /// Something else is in the way; trying again later may help.
    Busy,
    /// There is no such thing.
    NotFound,
    /// A ceiling, or no memory.
    NoSpace,
    /// This kernel or container cannot.
    Unsupported,
    /// Anything else.
    Internal,
}

/// What the warden tells the launcher.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToLauncher {
    /// Start an engine half. Answered by [`FromLauncher::Started`] or [`FromLauncher::Failed`].
    Start,
    /// Kill the running engine half, if one is.
    Kill,
}

/// What the launcher tells the warden.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromLauncher {
    /// An engine half runs; the warden's end of its channel comes with this.
    Started {
        /// Its process id.
        pid: u32,
    },
    /// None could be started.
    Failed {
        /// Why.
        message: String,
    },
    /// The engine half is gone.
    Exited {
        /// How, for the log: `exit status: 1`, `signal: 9 (SIGKILL)`.
        how: String,
    },
}
