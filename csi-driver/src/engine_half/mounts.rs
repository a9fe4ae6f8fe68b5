// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What the engine half asks of the warden, as a trait: the state machine of volumes is tested without root.

use std::os::fd::OwnedFd;

use async_trait::async_trait;
use evanesce_engine::error::{Error, Kind};

use crate::engine_half::warden_client::{CallError, WardenClient};
use crate::protocol::{ErrorKind, Owner, TargetPath, VolumeId, VolumePath};

/// Volumes as the warden makes them; see the requests of the same names in [`crate::protocol`].
#[async_trait]
pub trait Mounts: Send + Sync {
    /// A new detached tmpfs; its root.
    async fn make(&self, volume: &VolumeId, size: u64, inodes: u64) -> Result<OwnedFd, Error>;

    /// Gives files of a volume to owners.
    async fn own(&self, volume: &VolumeId, files: Vec<(VolumePath, Owner)>) -> Result<(), Error>;

    /// Makes a filled volume its pod's: keeps its record, gives its files to owners, attaches it; the mount's options.
    /// The record first: whatever is attached has one, so an engine half that starts finds it.
    async fn show(
        &self,
        volume: &VolumeId,
        target: &TargetPath,
        record: Vec<u8>,
        files: Vec<(VolumePath, Owner)>,
    ) -> Result<Vec<String>, Error> {
        self.put_record(volume, record).await?;
        self.own(volume, files).await?;
        self.attach(volume, target).await
    }

    /// Shows a read-only clone at the target, in one step; the mount's options.
    async fn attach(&self, volume: &VolumeId, target: &TargetPath) -> Result<Vec<String>, Error>;

    /// Changes a volume's size.
    async fn resize(&self, volume: &VolumeId, size: u64) -> Result<(), Error>;

    /// Whether the volume is what sits at the target.
    async fn is_attached(&self, volume: &VolumeId, target: &TargetPath) -> Result<bool, Error>;

    /// Unmounts the target, removes its directory, forgets the volume. Done twice, it is done.
    async fn detach(&self, volume: &VolumeId, target: &TargetPath) -> Result<(), Error>;

    /// The writable root of a volume that an earlier engine half attached; `None` where it is not there.
    async fn adopt(&self, volume: &VolumeId, target: &TargetPath) -> Result<Option<OwnedFd>, Error>;

    /// Keeps a record for the next engine half; never a secret.
    async fn put_record(&self, volume: &VolumeId, record: Vec<u8>) -> Result<(), Error>;

    /// Forgets the record. Done twice, it is done.
    async fn drop_record(&self, volume: &VolumeId) -> Result<(), Error>;

    /// The first record whose volume sorts after the given one; asked for when done with that one.
    async fn next_record(&self, after: Option<&VolumeId>) -> Result<Option<(VolumeId, Vec<u8>)>, Error>;

    /// Whether a volume is mounted that was neither made nor adopted here; asked for after the last record.
    async fn any_unknown(&self) -> Result<bool, Error>;
}

#[async_trait]
impl Mounts for WardenClient {
    async fn make(&self, volume: &VolumeId, size: u64, inodes: u64) -> Result<OwnedFd, Error> {
        Ok(self.make_volume(volume, size, inodes).await?)
    }

    async fn own(&self, volume: &VolumeId, files: Vec<(VolumePath, Owner)>) -> Result<(), Error> {
        Ok(Self::own(self, volume, files).await?)
    }

    async fn show(
        &self,
        volume: &VolumeId,
        target: &TargetPath,
        record: Vec<u8>,
        files: Vec<(VolumePath, Owner)>,
    ) -> Result<Vec<String>, Error> {
        Ok(Self::show(self, volume, target, record, files).await?)
    }

    async fn attach(&self, volume: &VolumeId, target: &TargetPath) -> Result<Vec<String>, Error> {
        Ok(Self::attach(self, volume, target).await?)
    }

    async fn resize(&self, volume: &VolumeId, size: u64) -> Result<(), Error> {
        Ok(Self::resize(self, volume, size).await?)
    }

    async fn is_attached(&self, volume: &VolumeId, target: &TargetPath) -> Result<bool, Error> {
        Ok(Self::is_attached(self, volume, target).await?)
    }

    async fn detach(&self, volume: &VolumeId, target: &TargetPath) -> Result<(), Error> {
        Ok(Self::detach(self, volume, Some(target)).await?)
    }

    async fn adopt(&self, volume: &VolumeId, target: &TargetPath) -> Result<Option<OwnedFd>, Error> {
        Ok(Self::adopt(self, volume, target).await?)
    }

    async fn put_record(&self, volume: &VolumeId, record: Vec<u8>) -> Result<(), Error> {
        Ok(Self::put_record(self, volume, record).await?)
    }

    async fn drop_record(&self, volume: &VolumeId) -> Result<(), Error> {
        Ok(Self::drop_record(self, volume).await?)
    }

    async fn next_record(&self, after: Option<&VolumeId>) -> Result<Option<(VolumeId, Vec<u8>)>, Error> {
        Ok(Self::next_record(self, after).await?)
    }

    async fn any_unknown(&self) -> Result<bool, Error> {
        Ok(Self::any_unknown(self).await?)
    }
}

/// The warden knows no tenant and no secret, so its words are for everybody.
impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(refused) => {
                let kind = match refused.kind {
                    ErrorKind::Busy => Kind::Busy,
                    ErrorKind::Internal | ErrorKind::Unsupported => Kind::Internal,
                    ErrorKind::Invalid => Kind::Invalid,
                    ErrorKind::NoSpace => Kind::Exhausted,
                    ErrorKind::NotFound => Kind::Missing,
                };
                Self::new(kind, refused.message)
            }
            CallError::Gone => Self::new(Kind::Cancelled, "the driver is restarting; try again"),
            CallError::Answer | CallError::Channel(_) => {
                Self::internal("the two halves of the driver misunderstood each other").with_detail(error.to_string())
            }
        }
    }
}
