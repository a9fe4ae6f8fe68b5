// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! To which ports a process may open a TCP connection, and on which it may listen (landlock(7), Linux 6.7).
//!
//! Ports and not addresses: the kernel knows no more. TCP and not UDP. Files are not handled: a rule set that handles them
//! forbids writing into a mount that is attached nowhere, which is where volumes are filled.
//!
//! Two ways round it are [`seccomp`](crate::seccomp)'s to close: other protocols that end up as TCP (MPTCP, SMC), and a
//! connection that is made by sending (`MSG_FASTOPEN`).

#![expect(unsafe_code, reason = "the three system calls have no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Since Linux 6.7: rules for ports.
const PORTS: u32 = 4;
/// Since Linux 6.12: no signals and no abstract sockets beyond the domain.
const SCOPES: u32 = 6;

const BIND_TCP: u64 = 1 << 0;
const CONNECT_TCP: u64 = 1 << 1;
const ABSTRACT_UNIX_SOCKET: u64 = 1 << 0;
const SIGNAL: u64 = 1 << 1;

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct Ruleset {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `struct landlock_net_port_attr`.
#[repr(C)]
struct PortRule {
    allowed_access: u64,
    port: u64,
}

/// Whether this kernel can limit ports.
#[must_use]
pub fn limits_ports() -> bool {
    version() >= PORTS
}

/// From now on, and for every thread started later, TCP goes out to `connect` and comes in at `listen` alone; where the
/// kernel can, abstract Unix sockets and processes outside are out of reach too. Does nothing where it cannot
/// [limit ports](limits_ports). Needs `no_new_privs`.
///
/// # Errors
/// The kernel's.
pub fn limit_ports(connect: &[u16], listen: Option<u16>) -> io::Result<()> {
    let version = version();
    if version < PORTS {
        return Ok(());
    }
    let scoped = if version >= SCOPES { ABSTRACT_UNIX_SOCKET | SIGNAL } else { 0 };
    let attributes = Ruleset { handled_access_fs: 0, handled_access_net: BIND_TCP | CONNECT_TCP, scoped };
    // A kernel refuses a structure that is longer than its own, unless the rest is zero.
    // SAFETY: `attributes` is as long as is said, and only read.
    let ruleset =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attributes, size_of::<Ruleset>(), 0) };
    let ruleset = i32::try_from(ruleset).map_err(io::Error::other)?;
    if ruleset < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let ruleset = unsafe { OwnedFd::from_raw_fd(ruleset) };
    let rules = connect.iter().map(|port| (CONNECT_TCP, *port)).chain(listen.map(|port| (BIND_TCP, port)));
    for (allowed_access, port) in rules {
        const NET_PORT: libc::c_int = 2;
        let rule = PortRule { allowed_access, port: port.into() };
        // SAFETY: `rule` is what the type NET_PORT wants, and only read.
        answer(unsafe {
            libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), NET_PORT, &raw const rule, 0)
        })?;
    }
    // SAFETY: takes two numbers.
    answer(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })
}

/// Landlock's version here; 0 where there is none.
fn version() -> u32 {
    const VERSION: libc::c_int = 1;
    // SAFETY: with this flag the kernel looks at no pointer.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<Ruleset>(), 0, VERSION) };
    u32::try_from(version).unwrap_or(0)
}

fn answer(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_thread_reaches_the_ports_it_was_left_and_no_other() {
        let (allowed, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let (allowed, other) = (allowed.local_addr().unwrap(), other.local_addr().unwrap());
        let denied =
            |result: io::Result<()>| result.err().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        let thread = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            limit_ports(&[allowed.port()], None).unwrap();
            assert!(!denied(TcpStream::connect(allowed).map(drop)));
            assert!(denied(TcpStream::connect(other).map(drop)));
            assert!(denied(TcpListener::bind("127.0.0.1:0").map(drop)));
        });
        thread.join().unwrap();
    }
}
