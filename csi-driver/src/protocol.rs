// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What the warden and the engine half say to each other: message types, limits, and how they travel.
//!
//! A message is one postcard value in one `SOCK_SEQPACKET` packet of at most [`MAX_PACKET`] bytes; file descriptors ride
//! along as `SCM_RIGHTS`, towards the engine half alone. Decoding is strict: a byte too many or too few, an id that is not one, or a truncated packet is
//! an error, and whoever sees an error closes the channel. Nothing here opens, mounts or connects.
//!
//! The order on a channel:
//!
//! 1. warden → engine: [`WardenFrame::Hello`] with the listeners,
//! 2. engine → warden: [`EngineFrame::HelloBack`],
//! 3. engine → warden: [`EngineFrame::Request`]s, each answered once by [`WardenFrame::Reply`] with the same id,
//! 4. warden → engine, at most once: [`WardenFrame::Drain`].

mod channel;
mod hello;
mod ids;
mod messages;

pub use channel::{Channel, ChannelError, MAX_FDS, MAX_PACKET};
pub use evanesce_engine::lease::GroupId as LeaseGroupId;
pub use hello::{
    AuditChoice, ClassesChoice, DigestKey, EngineConfig, Hello, HelloBack, Limits, LogFormat, ProxyChoice, Reduced,
};
pub use ids::{CredentialName, InvalidName, TargetPath, VolumeId, VolumePath};
pub use messages::{
    EngineFrame, ErrorKind, FileIdentity, FromLauncher, MAX_OWN, MAX_RECORD, Owner, Reply, Request, ToLauncher,
    WardenError, WardenFrame,
};

/// The most inodes that a volume has; each costs kernel memory that no size limit counts.
pub const MAX_INODES: u64 = 65_536;

/// How many inodes a volume of `size` bytes has when it is made, and at least when it has grown to that: one for each
/// kibibyte, because a file takes a page, and the rest are for folders and links.
#[must_use]
pub const fn inodes_for(size: u64) -> u64 {
    let inodes = size / 1024;
    if inodes > MAX_INODES { MAX_INODES } else { inodes }
}

/// The version of everything in this module; both halves must have the same one.
///
/// They come from the same file, so a difference means the file was exchanged under a running warden.
pub const PROTOCOL: u32 = 4;
