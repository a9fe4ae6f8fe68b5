// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What each of the three processes gives up, in one place.
//!
//! | | warden | launcher | engine half |
//! | --- | --- | --- | --- |
//! | uid | root | root | its own |
//! | capabilities | to mount, to give files to owners, to read credentials | to change uid, to kill | none |
//! | system calls | no network, no programs | all: its filter would be the engine half's too | no mounts, no programs |
//! | dies with | | the warden | the launcher |

#![expect(unsafe_code, reason = "close_range(2) has no safe wrapper")]

use evanesce_runtime::harden::{
    CapabilitySet, HardenError, die_with_parent, drop_all_capabilities, harden_process, keep_only_capabilities,
    no_new_privs,
};
use evanesce_runtime::seccomp::{Scope, SeccompError, engine_filter, install, warden_filter};
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
}

/// Whose uid the engine half runs under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineUser {
    /// Its own; the group has the same number.
    Own(u32),
    /// The warden's, because this user namespace has only one.
    Wardens,
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
    let limit = getrlimit(Resource::Nofile);
    if let Err(errno) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%errno, "the limit on open files stays at {:?}", limit.current);
    }
    Ok(())
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
pub fn warden() -> Result<(), ConfineError> {
    no_new_privs()?;
    // DAC_READ_SEARCH: credentials files and volumes may belong to others.
    keep_only_capabilities(CapabilitySet::SYS_ADMIN | CapabilitySet::CHOWN | CapabilitySet::DAC_READ_SEARCH)?;
    install(&warden_filter()?, Scope::AllThreads)?;
    Ok(())
}

/// The launcher, first thing.
///
/// # Errors
/// When the kernel refuses, or the warden is gone already.
pub fn launcher(warden: i32, user: EngineUser) -> Result<(), ConfineError> {
    die_with_parent(warden)?;
    harden_process()?;
    no_new_privs()?;
    match user {
        EngineUser::Own(_) => {
            keep_only_capabilities(CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::KILL)?;
        }
        EngineUser::Wardens => drop_all_capabilities()?,
    }
    Ok(())
}

/// The engine half, first thing: before any thread starts, because threads inherit and do not follow.
///
/// # Errors
/// When the kernel refuses, or the launcher is gone already.
pub fn engine_half(launcher: i32) -> Result<(), ConfineError> {
    die_with_parent(launcher)?;
    harden_process()?;
    no_new_privs()?;
    drop_all_capabilities()?;
    install(&engine_filter()?, Scope::AllThreads)?;
    Ok(())
}
