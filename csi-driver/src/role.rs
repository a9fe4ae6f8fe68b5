// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Which of the three processes this one is. The name a program was started under (`argv[0]`) tells, because all three are
//! the same file, and whoever looks at the list of processes sees it too.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::fs::{Mode, OFlags};

use crate::confine::Leave;
use crate::protocol::{Channel, ChannelError};

/// One of the three processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Root; mounts.
    Warden,
    /// Starts programs.
    Launcher,
    /// Unprivileged; everything else.
    Engine,
}

impl Role {
    /// The role that this process was started for, or `None` when its name is another program's.
    #[must_use]
    pub fn of_this_process() -> Option<Self> {
        let name = std::env::args_os().next()?;
        let name = Path::new(&name).file_name()?;
        [Self::Warden, Self::Launcher, Self::Engine].into_iter().find(|role| role.name() == name)
    }

    /// The name it runs under.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warden => "evanesce-csi",
            Self::Launcher => "evanesce-csi-launcher",
            Self::Engine => "evanesce-csi-engine",
        }
    }

    /// Does what this role is for, until the process is to end.
    #[must_use]
    pub fn run(self) -> ExitCode {
        #[cfg(feature = "crash-points")]
        evanesce_engine::crash::armed::arm();
        match self {
            Self::Warden => crate::warden::main(),
            Self::Launcher => crate::launcher::main(),
            Self::Engine => crate::engine_half::main(),
        }
    }
}

/// This same file, to be started in another role.
///
/// By `/proc/self/exe`, so that it is the same file even if somebody has put another one in its place.
#[must_use]
pub fn command(role: Role) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(role.name());
    command
}

/// The command line of a process that this program started: its parent's pid, what is left to an engine half, and the rest.
///
/// # Errors
/// When it is another: the program was started by hand.
pub fn arguments() -> Result<(i32, Leave, impl Iterator<Item = OsString>), &'static str> {
    const BY_HAND: &str = "started by hand: start evanesce-csi";
    let mut arguments = std::env::args_os().skip(1);
    let mut next = || arguments.next()?.into_string().ok();
    let parent = next().and_then(|parent| parent.parse().ok()).ok_or(BY_HAND)?;
    let leave = next().and_then(|leave| leave.parse().ok()).ok_or(BY_HAND)?;
    Ok((parent, leave, arguments))
}

/// Standard input as a channel; what is left at descriptor 0 reads as empty.
///
/// # Errors
/// When standard input is no channel: the program was started by hand.
pub fn channel_from_stdin() -> Result<Channel, ChannelError> {
    let channel = Channel::from_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(null)?;
    Ok(channel)
}

/// The last words of a process that cannot go on, for which there may be no log.
pub fn complain(role: Role, error: &dyn Display) {
    // If standard error is gone as well, nobody is listening.
    let _ = writeln!(io::stderr(), "{}: {error}", role.name());
}
