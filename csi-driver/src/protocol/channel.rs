// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! One end of a `SOCK_SEQPACKET` pair: whole messages and descriptors, or an error.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::PROTOCOL;

/// The longest packet, in bytes.
pub const MAX_PACKET: usize = 8 * 1024;

/// The most descriptors in one packet: a hello's.
pub const MAX_FDS: usize = 4;

/// Why a message could not be sent or received. After any of these but [`ChannelError::TooLarge`] close the channel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The socket failed; `WouldBlock` is the one that is worth another try.
    #[error("channel: {0}")]
    Io(#[from] std::io::Error),
    /// A message of ours does not fit into a packet, or has too many descriptors.
    #[error("message is longer than {MAX_PACKET} bytes or has more than {MAX_FDS} descriptors")]
    TooLarge,
    /// The other side sent a packet that is too long, or more descriptors than this side accepts.
    #[error("packet or its descriptors were cut off")]
    Truncated,
    /// The other side sent something that is no message.
    #[error("packet is not a message of this protocol")]
    Garbage,
    /// The greeting is from another version of the file.
    #[error(
        "the other half speaks protocol {theirs} (version {version}), this one {PROTOCOL} (version {}): \
         the program file was exchanged while it ran; restart all of it",
        env!("CARGO_PKG_VERSION")
    )]
    OtherProtocol {
        /// Its protocol.
        theirs: u32,
        /// Its product version.
        version: String,
    },
}

impl From<Errno> for ChannelError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// One end of the pair. Blocking unless [`Channel::set_nonblocking`] was called.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// Two connected ends; neither survives an exec.
    ///
    /// # Errors
    /// When the kernel has no descriptors left.
    pub fn pair() -> Result<(Self, Self), ChannelError> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self { socket: a }, Self { socket: b }))
    }

    /// Takes an end that came from elsewhere: standard input, or another channel.
    ///
    /// # Errors
    /// When it is not a `SOCK_SEQPACKET` Unix socket.
    pub fn from_fd(socket: OwnedFd) -> Result<Self, ChannelError> {
        let is_ours = rustix::net::sockopt::socket_type(&socket)? == SocketType::SEQPACKET
            && rustix::net::sockopt::socket_domain(&socket)? == AddressFamily::UNIX;
        if is_ours { Ok(Self { socket }) } else { Err(Errno::NOTSOCK.into()) }
    }

    /// Makes every call return `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// Does not fail on a socket.
    pub fn set_nonblocking(&self) -> Result<(), ChannelError> {
        Ok(rustix::io::ioctl_fionbio(&self.socket, true)?)
    }

    /// Bounds how long [`Channel::send`] waits for a reader that does not read; after it, `WouldBlock`.
    ///
    /// # Errors
    /// Does not fail on a socket.
    pub fn set_send_timeout(&self, timeout: Duration) -> Result<(), ChannelError> {
        Ok(set_socket_timeout(&self.socket, Timeout::Send, Some(timeout))?)
    }

    /// Bounds how long [`Channel::receive`] waits; after it, `WouldBlock`.
    ///
    /// # Errors
    /// Does not fail on a socket.
    pub fn set_receive_timeout(&self, timeout: Option<Duration>) -> Result<(), ChannelError> {
        Ok(set_socket_timeout(&self.socket, Timeout::Recv, timeout)?)
    }

    /// Sends one message with its descriptors; all of it or nothing.
    ///
    /// # Errors
    /// [`ChannelError::TooLarge`] for a message that no packet holds; otherwise the socket's error, `EPIPE` when the other
    /// end is closed.
    pub fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        if fds.len() > MAX_FDS {
            return Err(ChannelError::TooLarge);
        }
        let mut buffer = Zeroizing::new([0; MAX_PACKET]);
        let packet = postcard::to_slice(message, buffer.as_mut_slice()).map_err(|_| ChannelError::TooLarge)?;

        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(ChannelError::TooLarge);
        }
        let parts = [IoSlice::new(packet)];
        rustix::io::retry_on_intr(|| sendmsg(&self.socket, &parts, &mut ancillary, SendFlags::NOSIGNAL))?;
        Ok(())
    }

    /// Receives one message with its descriptors, or `None` when the other end is closed. Descriptors of a packet that is
    /// refused are closed.
    ///
    /// # Errors
    /// The socket's error, or the packet was cut off or is no message.
    pub fn receive<T: DeserializeOwned>(&self) -> Result<Option<(T, Vec<OwnedFd>)>, ChannelError> {
        self.receive_with(decode)
    }

    /// Receives the first message of a channel, which may be from another version: reports that rather than garbage.
    ///
    /// # Errors
    /// Like [`Channel::receive`], and [`ChannelError::OtherProtocol`].
    pub fn receive_greeting<T: DeserializeOwned>(&self) -> Result<Option<(T, Vec<OwnedFd>)>, ChannelError> {
        self.receive_with(|packet| {
            // Both greetings begin alike, for ever: the variant (0), the protocol, the version.
            match postcard::take_from_bytes::<(u32, u32, String)>(packet) {
                Ok(((0, theirs, version), _)) if theirs != PROTOCOL => {
                    // Somebody else's text, in a line of our log.
                    let version = version.chars().take(64).flat_map(char::escape_debug).collect();
                    Err(ChannelError::OtherProtocol { theirs, version })
                }
                _ => decode(packet),
            }
        })
    }

    fn receive_with<T>(
        &self,
        decode: impl FnOnce(&[u8]) -> Result<T, ChannelError>,
    ) -> Result<Option<(T, Vec<OwnedFd>)>, ChannelError> {
        let mut buffer = Zeroizing::new([0; MAX_PACKET]);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(buffer.as_mut_slice())],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            )
        })?;
        // Collected before anything else is looked at, so that they are closed whatever follows.
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        // The control buffer is rounded up, so the kernel alone does not hold a sender to the exact number.
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) || fds.len() > MAX_FDS {
            return Err(ChannelError::Truncated);
        }
        // No message is empty, and an empty packet looks like the end: both mean that this channel is over.
        if received.bytes == 0 {
            return Ok(None);
        }
        let packet = buffer.get(..received.bytes).ok_or(ChannelError::Truncated)?;
        Ok(Some((decode(packet)?, fds)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.socket
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Decodes a whole packet: what is left over makes it garbage.
fn decode<T: DeserializeOwned>(packet: &[u8]) -> Result<T, ChannelError> {
    match postcard::take_from_bytes(packet) {
        Ok((message, [])) => Ok(message),
        _ => Err(ChannelError::Garbage),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::fs::File;
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;

    use super::super::{
        EngineFrame, ErrorKind, FileIdentity, HelloBack, LeaseGroupId, MAX_OWN, Owner, Reply, Request, WardenError,
        WardenFrame,
    };
    use super::*;

    fn raw_send(channel: &Channel, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(fds.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        sendmsg(&channel.socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
    }

    fn round_trip(frame: &EngineFrame) -> EngineFrame {
        let (a, b) = Channel::pair().unwrap();
        a.send(frame, &[]).unwrap();
        b.receive().unwrap().unwrap().0
    }

    #[test]
    fn a_descriptor_arrives_as_the_same_open_file_and_closes_on_exec() {
        let (a, b) = Channel::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        a.send(&Request::Probe, &[file.as_fd()]).unwrap();
        let (message, mut fds): (Request, _) = b.receive().unwrap().unwrap();
        assert_eq!(message, Request::Probe);
        let passed = fds.pop().unwrap();
        assert!(fds.is_empty());
        assert!(rustix::io::fcntl_getfd(&passed).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        assert_eq!(File::from(passed).metadata().unwrap().ino(), file.metadata().unwrap().ino());
    }

    #[test]
    fn the_end_of_the_other_side_is_not_an_error() {
        let (a, b) = Channel::pair().unwrap();
        drop(a);
        assert!(b.receive::<Request>().unwrap().is_none());
    }

    #[test]
    fn a_packet_that_is_too_long_is_refused_on_both_sides() {
        let (a, b) = Channel::pair().unwrap();
        let record = Request::PutRecord { volume: "v".parse().unwrap(), record: vec![b'x'; MAX_PACKET] };
        assert!(matches!(a.send(&record, &[]), Err(ChannelError::TooLarge)));
        raw_send(&a, &postcard::to_allocvec(&record).unwrap(), &[]);
        assert!(matches!(b.receive::<Request>(), Err(ChannelError::Truncated)));
    }

    #[test]
    fn the_longest_record_fits_and_so_does_the_longest_target() {
        let volume: super::super::VolumeId = "v".repeat(128).parse().unwrap();
        let put = EngineFrame::Request {
            id: u64::MAX,
            body: Request::PutRecord { volume: volume.clone(), record: vec![b'x'; super::super::MAX_RECORD] },
        };
        assert_eq!(round_trip(&put), put);
        let target = format!("/{}", "t".repeat(4095)).parse().unwrap();
        let attach = EngineFrame::Request { id: u64::MAX, body: Request::Attach { volume, target } };
        assert_eq!(round_trip(&attach), attach);
    }

    #[test]
    fn surplus_descriptors_are_refused_and_none_stays_open() {
        let (a, b) = Channel::pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let copies: Vec<_> = (0..=MAX_FDS).map(|_| writer.try_clone().unwrap()).collect();
        let fds: Vec<_> = copies.iter().map(AsFd::as_fd).collect();
        assert!(matches!(a.send(&Request::Probe, &fds), Err(ChannelError::TooLarge)));
        let twice: Vec<_> = fds.iter().chain(&fds).copied().collect();
        for surplus in [&fds, &twice] {
            raw_send(&a, &postcard::to_allocvec(&Request::Probe).unwrap(), surplus);
            assert!(matches!(b.receive::<Request>(), Err(ChannelError::Truncated)));
        }
        drop(copies);
        drop(writer);
        // End of file only if every received writer was closed.
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn another_protocol_is_named_and_not_called_garbage() {
        let (a, b) = Channel::pair().unwrap();
        raw_send(&a, &postcard::to_allocvec(&(0u32, PROTOCOL + 1, "9.9.9", [7u8; 3])).unwrap(), &[]);
        match b.receive_greeting::<EngineFrame>() {
            Err(ChannelError::OtherProtocol { theirs, version }) => {
                assert_eq!((theirs, version.as_str()), (PROTOCOL + 1, "9.9.9"));
            }
            other => panic!("{other:?}"),
        }
        a.send(&EngineFrame::HelloBack(HelloBack::ours()), &[]).unwrap();
        assert!(b.receive_greeting::<EngineFrame>().unwrap().is_some());
    }

    #[test]
    fn a_name_that_breaks_a_rule_makes_the_packet_garbage() {
        for body in [
            postcard::to_allocvec(&(1u32, 7u64, 8u32, "../etc")).unwrap(), // PutRecord for a volume that is a path
            postcard::to_allocvec(&(1u32, 7u64, 2u32, "v", "/pods/../etc")).unwrap(), // Attach outside
            postcard::to_allocvec(&(1u32, 7u64, 15u32, "a/b", None::<u8>)).unwrap(), // OpenCredential elsewhere
            postcard::to_allocvec(&(1u32, 7u64, 12u32, "../csi.sock")).unwrap(), // DropLease of another file
            postcard::to_allocvec(&(1u32, 7u64, 1u32, "v", [("/etc/passwd", (None::<u32>, None::<u32>))].as_slice()))
                .unwrap(), // Own outside
        ] {
            let (a, b) = Channel::pair().unwrap();
            raw_send(&a, &body, &[]);
            assert!(matches!(b.receive::<EngineFrame>(), Err(ChannelError::Garbage)));
        }
    }

    fn request() -> impl Strategy<Value = Request> {
        let volume = || "[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}".prop_map(|id| id.parse().unwrap());
        let group = || any::<[u8; 16]>().prop_map(LeaseGroupId::from);
        let target = || "(/[a-z~]{1,20}){1,8}".prop_map(|path| path.parse().unwrap());
        let identity = (any::<u64>(), any::<u64>(), any::<u64>(), any::<i64>())
            .prop_map(|(device, inode, size, changed)| FileIdentity { device, inode, size, changed });
        let path = || "[a-z.]{3,20}(/[a-z~]{1,20}){0,2}".prop_map(|path| path.parse().unwrap());
        let owner = || (any::<Option<u32>>(), any::<Option<u32>>()).prop_map(|(uid, gid)| Owner { uid, gid });
        let files = |most| proptest::collection::vec((path(), owner()), 0..=most);
        prop_oneof![
            (volume(), any::<u64>(), any::<u64>()).prop_map(|(volume, size, inodes)| Request::MakeVolume {
                volume,
                size,
                inodes
            }),
            (volume(), files(MAX_OWN)).prop_map(|(volume, files)| Request::Own { volume, files }),
            (volume(), target(), proptest::collection::vec(any::<u8>(), 0..600), files(20))
                .prop_map(|(volume, target, record, files)| Request::Show { volume, target, record, files }),
            (volume(), target()).prop_map(|(volume, target)| Request::Attach { volume, target }),
            (volume(), any::<u64>()).prop_map(|(volume, size)| Request::Resize { volume, size }),
            (volume(), target()).prop_map(|(volume, target)| Request::IsAttached { volume, target }),
            (volume(), proptest::option::of(target())).prop_map(|(volume, target)| Request::Detach { volume, target }),
            (volume(), target()).prop_map(|(volume, target)| Request::Adopt { volume, target }),
            (volume(), proptest::collection::vec(any::<u8>(), 0..600))
                .prop_map(|(volume, record)| Request::PutRecord { volume, record }),
            volume().prop_map(|volume| Request::DropRecord { volume }),
            proptest::option::of(volume()).prop_map(|after| Request::NextRecord { after }),
            (group(), proptest::collection::vec(any::<u8>(), 0..600))
                .prop_map(|(group, entry)| Request::PutLease { group, entry }),
            group().prop_map(|group| Request::DropLease { group }),
            proptest::option::of(group()).prop_map(|after| Request::NextLease { after }),
            ("[a-z.]{3,255}", proptest::option::of(identity))
                .prop_map(|(name, known)| Request::OpenCredential { name: name.parse().unwrap(), known }),
            Just(Request::Probe),
        ]
    }

    proptest! {
        #[test]
        fn every_request_comes_back_as_it_was(id in any::<u64>(), body in request()) {
            let frame = EngineFrame::Request { id, body };
            prop_assert_eq!(round_trip(&frame), frame);
        }

        #[test]
        fn a_packet_cut_anywhere_or_with_a_byte_more_is_refused(body in request(), cut in any::<prop::sample::Index>()) {
            let whole = postcard::to_allocvec(&EngineFrame::Request { id: 7, body }).unwrap();
            prop_assert!(decode::<EngineFrame>(&whole[..cut.index(whole.len())]).is_err());
            let longer = [whole.as_slice(), &[0]].concat();
            prop_assert!(decode::<EngineFrame>(&longer).is_err());
        }

        #[test]
        fn no_packet_makes_either_side_panic(packet in proptest::collection::vec(any::<u8>(), 1..512)) {
            let (a, b) = Channel::pair().unwrap();
            raw_send(&a, &packet, &[]);
            let _ = b.receive::<EngineFrame>();
            raw_send(&a, &packet, &[]);
            let _ = b.receive_greeting::<WardenFrame>();
        }
    }

    #[test]
    fn an_error_travels_with_its_kind_and_message() {
        let (a, b) = Channel::pair().unwrap();
        let error = WardenError { kind: ErrorKind::Busy, message: "in the way".into() };
        a.send(&WardenFrame::Reply { id: 3, result: Err(error.clone()) }, &[]).unwrap();
        a.send(&WardenFrame::Reply { id: 4, result: Ok(Reply::Done) }, &[]).unwrap();
        let Some((WardenFrame::Reply { id: 3, result: Err(first) }, _)) = b.receive().unwrap() else { panic!() };
        assert_eq!(first, error);
        assert!(matches!(b.receive().unwrap(), Some((WardenFrame::Reply { id: 4, result: Ok(Reply::Done) }, _))));
    }
}
