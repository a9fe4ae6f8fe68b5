// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What each of the three processes gives up, in one place.
//!
//! | | warden | launcher | engine half |
//! | --- | --- | --- | --- |
//! | uid | root | root | its own |
//! | capabilities | to mount, to give files to owners, to read credentials | to change uid and root, to kill | none |
//! | root directory | the container's | the container's | a private one, with what it reads by path |
//! | TCP | none | as the container | to the backends' ports, from the HTTP port |
//! | system calls | a list: it mounts | all: its filter would be the engine half's too | a list: it talks |
//! | dies with | | the warden | the launcher |

#![expect(unsafe_code, reason = "close_range(2) has no safe wrapper")]

use std::str::FromStr;

use evanesce_runtime::harden::{
    CapabilitySet, HardenError, die_with_parent, harden_process, keep_only_capabilities, move_in_as, no_new_privs,
};
use evanesce_runtime::landlock;
use evanesce_runtime::seccomp::{Mounting, Scope, SeccompError, Unlisted, engine_filter, install, warden_filter};
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A privilege could not be given up, so the process must not go on.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// Of the process.
    #[error(transparent)]
    Harden(#[from] HardenError),
    /// Of the filter.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// Of the ports.
    #[error("cannot limit the ports for TCP: {0}")]
    Ports(#[source] std::io::Error),
}

/// Whose uid the engine half runs under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineUser {
    /// Its own; the group has the same number.
    Own(u32),
    /// The warden's, because this user namespace has only one.
    Wardens,
}

/// What is left to an engine half. It stands on its command line, so that it is confined before it hears a byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leave {
    /// Whom it runs as.
    pub user: EngineUser,
    /// The ports that it may open TCP connections to.
    pub connect: Vec<u16>,
    /// The one port that it may listen on.
    pub listen: Option<u16>,
}

impl std::fmt::Display for Leave {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.user {
            EngineUser::Own(uid) => write!(f, "uid={uid}")?,
            EngineUser::Wardens => f.write_str("uid=warden")?,
        }
        self.connect.iter().try_for_each(|port| write!(f, " connect={port}"))?;
        self.listen.iter().try_for_each(|port| write!(f, " listen={port}"))
    }
}

impl FromStr for Leave {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const BY_HAND: &str = "started by hand: start evanesce-csi";
        let (mut user, mut connect, mut listen) = (None, Vec::new(), None);
        for word in text.split(' ') {
            match word.split_once('=').ok_or(BY_HAND)? {
                ("uid", "warden") => user = Some(EngineUser::Wardens),
                ("uid", uid) => user = Some(EngineUser::Own(uid.parse().map_err(|_| BY_HAND)?)),
                ("connect", port) => connect.push(port.parse().map_err(|_| BY_HAND)?),
                ("listen", port) => listen = Some(port.parse().map_err(|_| BY_HAND)?),
                _ => return Err(BY_HAND),
            }
        }
        Ok(Self { user: user.ok_or(BY_HAND)?, connect, listen })
    }
}

/// The warden, before it starts anything: what its children inherit.
///
/// # Errors
/// When the kernel refuses.
pub fn prepare_warden() -> Result<(), ConfineError> {
    harden_process()?;
    inherit_no_descriptors();
    // Kubelet reads the directories we make for it; what must be closer is made so by its mode.
    rustix::process::umask(Mode::from_raw_mode(0o027));
    // One descriptor per volume, and in the engine half several per connection.
    raise(Resource::Nofile, getrlimit(Resource::Nofile).maximum);
    // Threads are counted by uid, against the limit of whoever starts one more: a tenant with the engine half's uid must
    // not be able to reach it.
    raise(Resource::Nproc, None);
    Ok(())
}

/// Raises a limit to `most` (`None`: to none at all), which may take `CAP_SYS_RESOURCE`, or else to the most that was given.
fn raise(resource: Resource, most: Option<u64>) {
    let given = getrlimit(resource).maximum;
    let to = |limit| setrlimit(resource, Rlimit { current: limit, maximum: limit });
    if let Err(errno) = to(most).or_else(|_| to(given)) {
        tracing::warn!(%errno, ?resource, "a limit stays as it is");
    }
}

/// Descriptors that the container runtime or a supervisor left open (CVE-2024-21626 was one) go no further than here.
fn inherit_no_descriptors() {
    // SAFETY: takes three numbers and closes nothing now; what is marked is closed by the next exec.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        tracing::warn!(%error, "close_range: descriptors that were inherited go on to the engine half");
    }
}

/// The warden, once the launcher runs and the sockets are bound.
///
/// # Errors
/// When the kernel refuses, or the process was not given what the warden needs.
pub fn warden(mounting: Mounting) -> Result<(), ConfineError> {
    no_new_privs()?;
    // DAC_READ_SEARCH: credentials files and volumes may belong to others.
    keep_only_capabilities(CapabilitySet::SYS_ADMIN | CapabilitySet::CHOWN | CapabilitySet::DAC_READ_SEARCH)?;
    install(&warden_filter(mounting, Unlisted::OF_THIS_BUILD)?, Scope::AllThreads)?;
    Ok(())
}

/// The launcher, once it has made the private root.
///
/// # Errors
/// When the kernel refuses, or the warden is gone already.
pub fn launcher(warden: i32, user: EngineUser) -> Result<(), ConfineError> {
    die_with_parent(warden)?;
    harden_process()?;
    no_new_privs()?;
    let others = match user {
        EngineUser::Own(_) => CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::KILL,
        EngineUser::Wardens => CapabilitySet::empty(),
    };
    keep_only_capabilities(CapabilitySet::SYS_CHROOT | others)?;
    Ok(())
}

/// The engine half, first thing: before any thread starts, because threads inherit and do not follow. Its working directory
/// is the private root.
///
/// It comes with the launcher's capabilities rather than with its own uid, because only an exec of root's keeps the one
/// that changes the root directory.
///
/// # Errors
/// When the kernel refuses, or the launcher is gone already.
pub fn engine_half(launcher: i32, leave: &Leave, unlisted: Unlisted) -> Result<(), ConfineError> {
    no_new_privs()?;
    move_in_as(match leave.user {
        EngineUser::Own(uid) => Some(uid),
        EngineUser::Wardens => None,
    })?;
    // After the change of uid, which undoes both.
    die_with_parent(launcher)?;
    harden_process()?;
    landlock::limit_ports(&leave.connect, leave.listen).map_err(ConfineError::Ports)?;
    install(&engine_filter(unlisted)?, Scope::AllThreads)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn what_is_left_to_an_engine_half_survives_its_command_line() {
        for leave in [
            Leave { user: EngineUser::Own(60999), connect: vec![53, 8200], listen: Some(9811) },
            Leave { user: EngineUser::Wardens, connect: Vec::new(), listen: None },
        ] {
            assert_eq!(leave.to_string().parse::<Leave>().unwrap(), leave);
        }
        for not_one in ["", "uid=", "uid=1 connect=65536", "connect=1", "60999", "uid=1 shell=1"] {
            assert!(not_one.parse::<Leave>().is_err(), "{not_one}");
        }
    }
}
