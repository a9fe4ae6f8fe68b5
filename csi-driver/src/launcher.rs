// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The launcher: the only one of the three processes that may start a program.
//!
//! A seccomp filter outlives an exec, so the warden, whose filter has no network, could not start the engine half, which
//! needs one. This process has no filter, and nothing to be attacked through either: it takes two commands from the
//! warden, hears nothing from the engine half, and has one thread.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ExitCode, Stdio};

use evanesce_engine::crash_point;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::confine::{self, Leave};
use crate::private_root::PrivateRoot;
use crate::protocol::{Channel, ChannelError, FromLauncher, ToLauncher};
use crate::role::{self, Role};

/// Starts the launcher, which first makes a private root with `readable` in it, and returns the warden's end of its control channel: [`ToLauncher`] goes out, [`FromLauncher`]
/// comes back, and its end means that the launcher is gone. Call it from the main thread: the launcher dies with the thread
/// that started it.
///
/// # Errors
/// When the program cannot be started.
pub fn start(leave: &Leave, readable: &[PathBuf]) -> Result<Channel, ChannelError> {
    let (ours, theirs) = Channel::pair()?;
    role::command(Role::Launcher)
        .arg(std::process::id().to_string())
        .arg(leave.to_string())
        .args(readable)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        // Away from the terminal's process group: an interrupt from the keyboard is for the warden, which drains.
        .process_group(0)
        .spawn()?;
    Ok(ours)
}

/// The launcher process; its arguments are the warden's pid, what is left to engine halves, and what they read by
/// path.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            role::complain(Role::Launcher, &error);
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let (warden, leave, readable) = role::arguments()?;
    let readable: Vec<_> = readable.map(PathBuf::from).collect();
    let root = PrivateRoot::make(&readable)?;
    confine::launcher(warden, leave.user)?;
    let control = role::channel_from_stdin()?;
    root.enter()?;
    let mut running: Option<Running> = None;
    loop {
        let (command, ended) = wait(&control, running.as_ref())?;
        if ended && let Some(mut engine) = running.take() {
            let how = engine.child.wait()?.to_string();
            control.send(&FromLauncher::Exited { how }, &[])?;
        }
        if command {
            match control.receive()? {
                Some((ToLauncher::Start, _)) if running.is_none() => match Running::start(&leave) {
                    Ok((engine, channel)) => {
                        crash_point!("launcher:engine-started");
                        control.send(&FromLauncher::Started { pid: engine.child.id() }, &[channel.as_fd()])?;
                        running = Some(engine);
                    }
                    Err(error) => control.send(&FromLauncher::Failed { message: error.to_string() }, &[])?,
                },
                Some((ToLauncher::Kill, _)) if let Some(engine) = &mut running => engine.child.kill()?,
                // The engine half may have ended while the command was under way.
                Some(_) => {}
                None => return Ok(()),
            }
        }
    }
}

/// An engine half, and how to learn that it ended.
struct Running {
    child: Child,
    pidfd: OwnedFd,
}

impl Running {
    fn start(leave: &Leave) -> Result<(Self, Channel), ChannelError> {
        let (wardens, engines) = Channel::pair()?;
        let mut child = role::command(Role::Engine)
            .arg(std::process::id().to_string())
            .arg(leave.to_string())
            .stdin(Stdio::from(OwnedFd::from(engines)))
            .spawn()?;
        let pidfd = Pid::from_raw(child.id().cast_signed())
            .ok_or_else(|| io::Error::other("no process id"))
            .and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?));
        match pidfd {
            Ok(pidfd) => Ok((Self { child, pidfd }, wardens)),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error.into())
            }
        }
    }
}

/// Waits until there is a command, or the engine half has ended.
fn wait(control: &Channel, running: Option<&Running>) -> io::Result<(bool, bool)> {
    let mut fds = vec![PollFd::new(control, PollFlags::IN)];
    if let Some(engine) = running {
        fds.push(PollFd::new(&engine.pidfd, PollFlags::IN));
    }
    rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
    let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
    Ok((ready(0), ready(1)))
}
