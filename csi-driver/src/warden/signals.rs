// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The signals that mean "stop", as a descriptor to wait on.

#![expect(unsafe_code, reason = "signalfd(2) and the signal mask have no safe wrapper")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Keeps SIGTERM and SIGINT pending from now on, in this thread and those it starts, and makes the descriptor that becomes
/// readable when one is. Programs started with [`std::process::Command`] begin with an empty mask again.
///
/// # Errors
/// The kernel's.
pub(super) fn stop_signals() -> io::Result<OwnedFd> {
    // SAFETY: `set` is initialised by `sigemptyset` before it is read; all pointers are to locals that outlive the calls.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::sigaddset(&raw mut set, libc::SIGINT);
        let error = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Takes the pending signal, so that the descriptor is readable again only for the next one.
pub(super) fn take(signals: &OwnedFd) {
    let mut info = [0; size_of::<libc::signalfd_siginfo>()];
    // Nothing to do about an error: without a signal there is nothing to take.
    let _ = rustix::io::read(signals, &mut info);
}
