// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! One request, one answer: who does what is asked.

use std::os::fd::OwnedFd;

use super::credentials::CredentialsDir;
use super::failure::{busy, failed};
use super::journal::Journal;
use super::records::Records;
use super::sockets::Socket;
use super::takeover::TakeOver;
use super::volumes::Volumes;
use crate::mount::Kernel;
use crate::protocol::{Reply, Request, VolumeId, WardenError};

/// Everything that a request can be about.
#[derive(Debug)]
pub struct Requests<K> {
    /// The volumes.
    volumes: Volumes<K>,
    /// What is kept about them.
    records: Records,
    /// The lease groups that have not ended.
    journal: Journal,
    /// Which of the volumes the engine half is taking over.
    take_over: TakeOver,
    /// Files that only root may read.
    credentials: CredentialsDir,
    /// The socket that the liveness probe connects to.
    csi: Socket,
}

/// An answer and the descriptor that goes with it.
pub type Answer = Result<(Reply, Option<OwnedFd>), WardenError>;

impl<K: Kernel> Requests<K> {
    /// All that requests can be about.
    pub fn new(
        volumes: Volumes<K>,
        records: Records,
        journal: Journal,
        credentials: CredentialsDir,
        csi: Socket,
    ) -> Self {
        Self { volumes, records, journal, take_over: TakeOver::default(), credentials, csi }
    }

    /// The engine half is gone: what it had not attached, nobody will ever fill, and what it was taking over may be why.
    pub fn engine_ended(&mut self) {
        self.volumes.engine_ended();
        self.take_over.died();
    }

    /// Why a volume must not be touched, but for an unpublish.
    fn left_alone(&self, volume: &VolumeId) -> Option<String> {
        if let Some(version) = self.records.newer(volume) {
            return Some(format!(
                "a newer driver wrote its record (version {version}): run that one, or delete its pod"
            ));
        }
        let died = "the driver died of it again and again: delete its pod, or restart the driver to try again";
        self.take_over.is_left_alone(volume).then(|| died.to_owned())
    }

    /// Does what is asked.
    ///
    /// # Errors
    /// Says what failed; nothing is left half-done that doing it again would not finish.
    pub fn answer(&mut self, request: Request) -> Answer {
        let reply = match request {
            Request::MakeVolume { volume, size, inodes } => {
                return Ok((Reply::Volume, Some(self.volumes.make(volume, size, inodes)?)));
            }
            Request::Own { volume, files } => {
                self.volumes.own(&volume, &files)?;
                Reply::Done
            }
            Request::Attach { volume, target } => Reply::Attached { options: self.volumes.attach(&volume, target)? },
            Request::Show { volume, target, record, files } => {
                // The record first: whatever is attached has one, so an engine half that starts finds it.
                self.records.put(volume.clone(), &record)?;
                self.volumes.own(&volume, &files)?;
                Reply::Attached { options: self.volumes.attach(&volume, target)? }
            }
            Request::Resize { volume, size } => {
                self.volumes.resize(&volume, size)?;
                Reply::Done
            }
            Request::IsAttached { volume, target } => Reply::IsAttached(self.volumes.is_attached(&volume, &target)?),
            Request::Detach { volume, target } => {
                self.volumes.detach(&volume, target.as_ref())?;
                Reply::Done
            }
            Request::Adopt { volume, .. } if let Some(why) = self.left_alone(&volume) => {
                return Err(busy(format!("volume {volume} is left alone: {why}")));
            }
            Request::Adopt { volume, target } => match self.volumes.adopt(&volume, target)? {
                Some(root) => return Ok((Reply::Volume, Some(root))),
                None => Reply::NotThere,
            },
            Request::PutRecord { volume, record } => {
                self.records.put(volume, &record)?;
                Reply::Done
            }
            Request::DropRecord { volume } => {
                self.records.drop_record(&volume)?;
                self.take_over.forget(&volume);
                Reply::Done
            }
            Request::NextRecord { after } => {
                let next = self.records.next(after.as_ref(), |volume| !self.take_over.is_left_alone(volume));
                self.take_over.next(next.as_ref().map(|(volume, _)| volume));
                match next {
                    Some((volume, record)) => Reply::Record { volume, record },
                    None => Reply::NoMoreRecords,
                }
            }
            Request::PutLease { group, entry } => {
                self.journal.put(group, &entry)?;
                Reply::Done
            }
            Request::DropLease { group } => {
                self.journal.drop_entry(&group)?;
                Reply::Done
            }
            Request::NextLease { after } => match self.journal.next(after.as_ref()) {
                Some((group, entry)) => Reply::Lease { group, entry },
                None => Reply::NoMoreLeases,
            },
            Request::AnyUnknown => Reply::AnyUnknown(self.volumes.any_unknown()?),
            // The supervisor's, which has seen it.
            Request::Ready => Reply::Done,
            Request::OpenCredential { name, known } => match self.credentials.open_file(&name, known)? {
                Some((identity, file)) => return Ok((Reply::Credential { identity }, Some(file))),
                None => Reply::Unchanged,
            },
            Request::Probe => {
                let connection = self.csi.connect().map_err(|error| match error.kind() {
                    std::io::ErrorKind::WouldBlock => busy("the CSI socket's queue is full: nobody accepts"),
                    _ => failed("connecting to the CSI socket")(error),
                })?;
                return Ok((Reply::Connection, Some(connection)));
            }
        };
        Ok((reply, None))
    }
}
