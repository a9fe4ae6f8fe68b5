// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Programs that end with the demo, also when it is killed and can do nothing any more.
//!
//! The kernel sees to it (`PR_SET_PDEATHSIG`), and the setting outlives the exec that follows it. It is about the thread
//! that starts the program, which here is the main one. The plugin's other processes end with its first one in the same
//! way.

#![expect(unsafe_code, reason = "what a child does between fork and exec is for the caller to vouch for")]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};

/// Starts a program that ends with this process; call it from the main thread. It is away from the terminal's process
/// group, so that an interrupt from the keyboard is the demo's alone, which then ends everything in order.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    let demo = getpid();
    // SAFETY: two plain system calls, which neither allocate nor take a lock.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // A parent that ended before that line kills nobody.
            if getppid().map(Pid::as_raw_nonzero) == Some(demo.as_raw_nonzero()) { Ok(()) } else { Err(Errno::SRCH)? }
        });
    }
    command.process_group(0).spawn()
}
