// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The Unix sockets that kubelet and the operator connect to: bound before anything is given up, kept over engine restarts, removed at the
//! end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// How long the processes of a predecessor that was killed may take to be gone, in seconds.
const PREDECESSOR: i64 = 3;

/// A listening socket at a path of ours.
#[derive(Debug, Clone)]
pub struct Socket {
    listener: Arc<UnixListener>,
    path: PathBuf,
    inode: (u64, u64),
}

impl Socket {
    /// Listens at the path, with mode 0600, not blocking. A socket that a dead process left there is replaced.
    ///
    /// # Errors
    /// When the path is taken by a living process or by something that is no socket, or cannot be bound.
    pub fn bind(path: &Path) -> io::Result<Self> {
        clear_stale(path)?;
        // With the mask rather than with chmod: there is no moment in which others could connect.
        let mask = rustix::process::umask(Mode::from_raw_mode(0o177));
        let listener = UnixListener::bind(path);
        rustix::process::umask(mask);
        let listener = listener?;
        listener.set_nonblocking(true)?;
        let metadata = std::fs::symlink_metadata(path)?;
        Ok(Self { listener: Arc::new(listener), path: path.to_owned(), inode: (metadata.dev(), metadata.ino()) })
    }

    /// A fresh connection to the socket, as a client would make it.
    ///
    /// # Errors
    /// `WouldBlock` when nobody has accepted for a while.
    pub fn connect(&self) -> io::Result<OwnedFd> {
        connect_to(&self.path)
    }

    /// Removes the path, if it is still ours.
    pub fn remove(&self) {
        let is_ours =
            std::fs::symlink_metadata(&self.path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.inode);
        if is_ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "socket not removed; the next start replaces it");
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

fn clear_stale(path: &Path) -> io::Result<()> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::other("something that is not a socket has this name: remove it"));
    }
    // A warden that was killed is gone a moment before its engine half is, which still holds the socket.
    let found = match connect_to(path) {
        Ok(connection) if ends(connection.as_fd())? => connect_to(path),
        found => found,
    };
    match found {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::other("another process serves this socket: stop it, or choose another path")),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(io::Error::other("another process holds this socket: stop it, or choose another path"))
        }
        Err(error) => Err(error),
    }
}

/// Whether the other side of a connection goes away within [`PREDECESSOR`].
fn ends(connection: BorrowedFd<'_>) -> io::Result<bool> {
    // No event is asked for: a hang-up is always told, and what a living server says does not wake us.
    let mut fds = [PollFd::new(&connection, PollFlags::empty())];
    let timeout = Timespec { tv_sec: PREDECESSOR, tv_nsec: 0 };
    Ok(rustix::io::retry_on_intr(|| poll(&mut fds, Some(&timeout)))? > 0)
}

/// Not blocking, for a socket whose queue is full would otherwise hold the caller.
fn connect_to(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => Ok(socket),
        Err(Errno::AGAIN) => Err(io::ErrorKind::WouldBlock.into()),
        Err(errno) => Err(errno.into()),
    }
}
