// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What the processes of the plugin say to each other, on a socket as it is: packets, descriptors, records.

use std::cell::OnceCell;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use evanesce_csi::engine_half::record::Record;
use evanesce_csi::protocol::{
    Channel, ChannelError, EngineFrame, FromLauncher, MAX_FDS, MAX_RECORD, Request, ToLauncher, VolumeId, WardenFrame,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::sober;

/// The first byte says who listens, the second how many descriptors come along; the rest is the packet.
pub fn check(data: &[u8]) {
    let [who, fds, packet @ ..] = data else { return };
    if packet.is_empty() {
        return;
    }
    let fds = usize::from(*fds) % (2 * MAX_FDS);
    match who % 7 {
        0 => receive::<EngineFrame>(packet, fds, request),
        1 => receive::<WardenFrame>(packet, fds, |_| ()),
        2 => receive::<FromLauncher>(packet, fds, |_| ()),
        3 => receive::<ToLauncher>(packet, fds, |_| ()),
        4 => greeting::<EngineFrame>(packet),
        5 => greeting::<WardenFrame>(packet),
        _ => record(packet),
    }
}

thread_local! {
    /// A channel whose sending end is a bare socket.
    static ENDS: OnceCell<(OwnedFd, Channel)> = const { OnceCell::new() };
}

fn with_ends(run: impl FnOnce(&OwnedFd, &Channel)) {
    ENDS.with(|ends| {
        let (sender, receiver) = ends.get_or_init(|| {
            let (sender, receiver) = Channel::pair().expect("a socket pair");
            (sender.into(), receiver)
        });
        run(sender, receiver);
    });
}

fn send(sender: &OwnedFd, packet: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2 * MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(fds.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(fds)));
    sendmsg(sender, &[IoSlice::new(packet)], &mut ancillary, SendFlags::NOSIGNAL).is_ok()
}

fn receive<T: Serialize + DeserializeOwned>(packet: &[u8], count: usize, judge: impl FnOnce(&T)) {
    with_ends(|sender, receiver| {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        if !send(sender, packet, &vec![writer.as_fd(); count]) {
            return;
        }
        drop(writer);
        match receiver.receive::<T>() {
            Ok(Some((frame, fds))) => {
                assert_eq!(fds.len(), count, "descriptors were lost or made up");
                assert!(count <= MAX_FDS, "more descriptors are taken than are allowed");
                drop(fds);
                judge(&frame);
                // What was understood can be said, and is understood as the same.
                let said = postcard::to_allocvec(&frame).expect("what was read can be written");
                assert!(said.len() <= packet.len(), "grows on its way");
                assert!(send(sender, &said, &[]));
                let (again, _) = receiver.receive::<T>().expect("our own words").expect("our own words");
                assert!(postcard::to_allocvec(&again).expect("what was read can be written") == said);
            }
            Ok(None) => panic!("a packet that is not empty is not the end"),
            Err(ChannelError::Garbage | ChannelError::Truncated) => {}
            Err(other) => panic!("{other}"),
        }
        // The pipe has ended if no descriptor of its other end is left.
        let mut ended = [PollFd::new(&reader, PollFlags::empty())];
        let polled = poll(&mut ended, Some(&Timespec::default()));
        assert!(polled.is_ok() && ended[0].revents().contains(PollFlags::HUP), "a descriptor stays open");
    });
}

fn greeting<T: Serialize + DeserializeOwned>(packet: &[u8]) {
    with_ends(|sender, receiver| {
        if send(sender, packet, &[])
            && let Err(error @ ChannelError::OtherProtocol { .. }) = receiver.receive_greeting::<T>()
        {
            let text = error.to_string();
            assert!(text.len() <= 512 && !text.chars().any(char::is_control), "no line: {} bytes", text.len());
        }
    });
}

/// What the warden would act on names nothing outside its own directories.
fn request(frame: &EngineFrame) {
    let EngineFrame::Request { body, .. } = frame else { return };
    let beneath = |path: &str| path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
    let component = |name: &str| !name.contains('/') && !matches!(name, "" | "." | "..");
    match body {
        Request::MakeVolume { volume, .. }
        | Request::Resize { volume, .. }
        | Request::Detach { volume, target: None }
        | Request::PutRecord { volume, .. }
        | Request::DropRecord { volume } => assert!(component(volume.as_str())),
        Request::Attach { volume, target }
        | Request::IsAttached { volume, target }
        | Request::Detach { volume, target: Some(target) }
        | Request::Adopt { volume, target } => assert!(component(volume.as_str()) && beneath(target.as_str())),
        Request::NextRecord { after } => assert!(after.as_ref().is_none_or(|volume| component(volume.as_str()))),
        Request::PutLease { group, .. } | Request::DropLease { group } | Request::NextLease { after: Some(group) } => {
            assert!(component(group.as_str()));
        }
        Request::OpenCredential { name, .. } => assert!(component(name.as_str())),
        Request::Own { volume, files } => {
            assert!(component(volume.as_str()));
            assert!(files.iter().all(|(path, _)| beneath(&format!("/{}", path.as_str()))));
        }
        Request::Show { volume, target, files, .. } => {
            assert!(component(volume.as_str()) && beneath(target.as_str()));
            assert!(files.iter().all(|(path, _)| beneath(&format!("/{}", path.as_str()))));
        }
        Request::NextLease { after: None } | Request::AnyUnknown | Request::Probe | Request::Ready => {}
    }
}

/// A record that was read is written as it was. (One that is too long to keep loses its list of versions.)
fn record(json: &[u8]) {
    let json = &json[..json.len().min(MAX_RECORD / 2)];
    let volume: VolumeId = "csi-1".parse().expect("an id");
    match Record::from_json(&volume, json) {
        Ok(record) => {
            let written = record.to_json().expect("a record that fitted fits");
            assert_eq!(Record::from_json(&volume, &written).expect("our own record"), record);
        }
        Err(error) => sober(&error),
    }
}
