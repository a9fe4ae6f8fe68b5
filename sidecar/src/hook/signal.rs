// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Sends a signal to a process that is surely the one that is meant: by a descriptor, so that no other process can have
//! its number by the time the signal is sent.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open, pidfd_send_signal};

use super::Failure;
use crate::config::Recipient;

/// How many bytes of a process's name the kernel keeps.
const COMM: usize = 15;
/// A pid file is longer than a number only if it is none.
const LONGEST_PID_FILE: usize = 4096;

/// Sends it.
pub fn send(recipient: &Recipient) -> Result<(), Failure> {
    match (&recipient.pid_file, &recipient.process) {
        (Some(file), name) => {
            let process = Process::open(pid_in(file)?).map_err(|errno| {
                let cure = "the application may have ended without removing it, or its processes are not seen from here: the pod needs shareProcessNamespace: true";
                Failure::failed(format!("the process of {} is gone ({}): {cure}", file.display(), io::Error::from(errno)))
            })?;
            match name {
                Some(name) if !process.is_called(name) => Err(Failure::failed(format!(
                    "{} names process {}, which is not called {name:?}: it was left by one that ended",
                    file.display(),
                    process.pid
                ))),
                _ => process.signal(recipient),
            }
        }
        (None, Some(name)) => {
            let found = called(name).map_err(|error| Failure::failed(format!("/proc cannot be read: {error}")))?;
            if found.is_empty() {
                return Err(Failure::failed(format!(
                    "no process is called {name:?}: it may not have started yet, or the pod needs shareProcessNamespace: true"
                )));
            }
            found.iter().try_for_each(|process| process.signal(recipient))
        }
        (None, None) => Err(Failure::failed("`pidFile` or `process` says who gets the signal")),
    }
}

/// A process that is held.
struct Process {
    pid: i32,
    held: OwnedFd,
}

impl Process {
    fn open(pid: i32) -> Result<Self, Errno> {
        let held = pidfd_open(Pid::from_raw(pid).ok_or(Errno::SRCH)?, PidfdFlags::empty())?;
        Ok(Self { pid, held })
    }

    /// Looked at after it was opened: if it were another one by then, it could not be signalled.
    fn is_called(&self, name: &str) -> bool {
        comm(self.pid).is_some_and(|comm| same(&comm, name))
    }

    fn signal(&self, recipient: &Recipient) -> Result<(), Failure> {
        pidfd_send_signal(&self.held, recipient.signal).map_err(|errno| {
            let cure = match errno {
                Errno::PERM => ": run the sidecar as the application's uid (runAsUser), or give it CAP_KILL",
                Errno::SRCH => ": it has just ended",
                _ => "",
            };
            Failure::failed(format!("process {} cannot be signalled: {}{cure}", self.pid, io::Error::from(errno)))
        })
    }
}

/// The number in a pid file.
fn pid_in(file: &Path) -> Result<i32, Failure> {
    let text = fs::read(file).map_err(|error| {
        let cure = match error.kind() {
            io::ErrorKind::NotFound => {
                "the application writes it, and its folder has to be mounted in this container too"
            }
            io::ErrorKind::PermissionDenied => "this uid has to be allowed to read it",
            _ => "it has to be a file",
        };
        Failure::failed(format!("pid file {} cannot be read ({error}): {cure}", file.display()))
    })?;
    let number = (text.len() <= LONGEST_PID_FILE).then(|| str::from_utf8(&text).ok()).flatten();
    // PostgreSQL's has more lines; the number is the first.
    let number = number.and_then(|text| text.lines().next()?.trim().parse::<i32>().ok());
    match number {
        Some(pid) if Some(getpid()) == Pid::from_raw(pid) => Err(Failure::failed(format!(
            "pid file {} names {pid}, which is evanesce-sidecar itself: the containers have process numbers of their own; the pod needs shareProcessNamespace: true",
            file.display()
        ))),
        Some(pid) if pid > 0 => Ok(pid),
        _ => Err(Failure::failed(format!("pid file {} does not begin with the number of a process", file.display()))),
    }
}

/// Every process of this name whose parent has another one; never this one.
fn called(name: &str) -> io::Result<Vec<Process>> {
    let own = getpid().as_raw_nonzero().get();
    let numbers = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_called = |pid: i32| comm(pid).is_some_and(|comm| same(&comm, name));
    let first = |pid: &i32| *pid != own && is_called(*pid) && !parent(*pid).is_some_and(is_called);
    // Whoever ended meanwhile has nothing to be told.
    let open = |pid| Process::open(pid).ok().filter(|process| process.is_called(name));
    Ok(numbers.filter(first).filter_map(open).collect())
}

fn comm(pid: i32) -> Option<Vec<u8>> {
    let mut comm = fs::read(format!("/proc/{pid}/comm")).ok()?;
    comm.pop_if(|last| *last == b'\n');
    Some(comm)
}

fn same(comm: &[u8], name: &str) -> bool {
    let name = name.as_bytes();
    comm == name.get(..COMM).unwrap_or(name)
}

fn parent(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}
