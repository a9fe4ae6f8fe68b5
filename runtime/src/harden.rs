// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What a process gives up before it touches anything of value: core dumps, capabilities, new privileges, a life of its
//! own.
//!
//! Capabilities, `no_new_privs` and the bounding set belong to a *thread*; a thread started later inherits them, one
//! that already runs does not. So these verbs refuse a process with more than one thread: call them first in `main`,
//! before the asynchronous runtime is built.
//!
//! System calls are narrowed by [`seccomp`](crate::seccomp).

use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Gid, Pid, Resource, Rlimit, Signal, Uid, chdir, chroot, getppid, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit, umask,
};
use rustix::thread::{self, CapabilitySets};

pub use rustix::thread::CapabilitySet;

/// What could not be given up, and why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HardenError {
    /// The kernel refused a call.
    #[error("cannot harden the process: {call}: {errno}")]
    Refused {
        /// The call, as its manual names it.
        call: &'static str,
        /// Its answer.
        errno: Errno,
    },
    /// The process is asked to keep capabilities that it does not have.
    #[error("the process needs capabilities that it was not given: {}; run it as a privileged container", names(*.0))]
    Missing(CapabilitySet),
    /// Other threads already run, and would keep what this one gives up.
    #[error("{0} threads already run; privileges are per thread and must be dropped before others start")]
    Threads(usize),
    /// `/proc` does not say how many threads there are.
    #[error("cannot count this process's threads in /proc/self/status: {0}; mount /proc")]
    Proc(#[source] io::Error),
    /// The parent that this process must not outlive is already gone.
    #[error("the parent process {0} is gone")]
    Orphan(i32),
}

fn refused(call: &'static str) -> impl FnOnce(Errno) -> HardenError {
    move |errno| HardenError::Refused { call, errno }
}

/// Makes the process one that nobody of the same uid may trace or read, that never dumps core, and whose files are its
/// own: `PR_SET_DUMPABLE` 0, `RLIMIT_CORE` 0, umask 0077.
///
/// Changing uid and `execve` both reset the first: call it after either. It hands `/proc/self/*` to root, so a process
/// without privileges can no longer list its own `/proc/self/fd`.
///
/// # Errors
///
/// [`HardenError::Refused`].
pub fn harden_process() -> Result<(), HardenError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(refused("prctl(PR_SET_DUMPABLE)"))?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(refused("setrlimit(RLIMIT_CORE)"))?;
    umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    Ok(())
}

/// Promises that no `execve` of this process or its children grants a privilege (`PR_SET_NO_NEW_PRIVS`). For good.
///
/// # Errors
///
/// [`HardenError::Threads`], [`HardenError::Proc`], [`HardenError::Refused`].
pub fn no_new_privs() -> Result<(), HardenError> {
    alone()?;
    thread::set_no_new_privs(true).map_err(refused("prctl(PR_SET_NO_NEW_PRIVS)"))
}

/// Gives up every capability, for good.
///
/// # Errors
///
/// As [`keep_only_capabilities`], but for [`HardenError::Missing`].
pub fn drop_all_capabilities() -> Result<(), HardenError> {
    keep_only_capabilities(CapabilitySet::empty())
}

/// Gives up every capability but these, for good: permitted and effective become `keep`, inheritable and ambient become
/// empty, and what is not in `keep` leaves the bounding set.
///
/// Narrowing the bounding set needs `CAP_SETPCAP`. A process without it keeps the bounding set, from which it can gain
/// nothing once [`no_new_privs`] was called.
///
/// # Errors
///
/// [`HardenError::Missing`] when `keep` is more than the process has; [`HardenError::Threads`], [`HardenError::Proc`],
/// [`HardenError::Refused`].
pub fn keep_only_capabilities(keep: CapabilitySet) -> Result<(), HardenError> {
    alone()?;
    keep_only(keep)
}

/// Makes the working directory the root directory, becomes `user` (with the group of that number and no other; `None`
/// stays who it is), and gives up every capability. One verb, because each step needs what the next one takes, and
/// because there may be no `/proc` where it leads.
///
/// A process that was handed a descriptor of a directory outside still reaches what is beneath that.
///
/// # Errors
///
/// As [`keep_only_capabilities`].
pub fn move_in_as(user: Option<u32>) -> Result<(), HardenError> {
    alone()?;
    chroot(".").map_err(refused("chroot"))?;
    chdir("/").map_err(refused("chdir"))?;
    if let Some(user) = user {
        let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
        thread::set_thread_groups(&[]).map_err(refused("setgroups"))?;
        thread::set_thread_res_gid(gid, gid, gid).map_err(refused("setresgid"))?;
        thread::set_thread_res_uid(uid, uid, uid).map_err(refused("setresuid"))?;
    }
    keep_only(CapabilitySet::empty())
}

fn keep_only(keep: CapabilitySet) -> Result<(), HardenError> {
    let held = thread::capabilities(None).map_err(refused("capget"))?;
    let missing = keep - held.permitted;
    if !missing.is_empty() {
        return Err(HardenError::Missing(missing));
    }
    if held.effective.contains(CapabilitySet::SETPCAP) {
        for capability in bounding_set()? - keep {
            thread::remove_capability_from_bounding_set(capability).map_err(refused("prctl(PR_CAPBSET_DROP)"))?;
        }
    }
    // What is not inheritable cannot be ambient: the kernel empties that set with this one.
    let sets = CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
    thread::set_capabilities(None, sets).map_err(refused("capset"))
}

/// Ties this process's life to its parent's: the kernel sends `SIGKILL` when the parent ends.
///
/// *The parent* is the thread that started this process, so start it from one that lives as long as the process does
/// (`main`, never a worker). `expected_parent` is the pid this process was told to serve: if the parent died before the
/// kernel was asked, another process has adopted us, and this says so.
///
/// # Errors
///
/// [`HardenError::Orphan`]: exit. [`HardenError::Refused`].
pub fn die_with_parent(expected_parent: i32) -> Result<(), HardenError> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(refused("prctl(PR_SET_PDEATHSIG)"))?;
    // The order matters: a parent that dies after this line kills us, one that died before is found out here.
    if Pid::as_raw(getppid()) == expected_parent { Ok(()) } else { Err(HardenError::Orphan(expected_parent)) }
}

/// Every capability in the bounding set of the calling thread, including those newer than this program.
fn bounding_set() -> Result<CapabilitySet, HardenError> {
    let mut set = CapabilitySet::empty();
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match thread::capability_is_in_bounding_set(capability) {
            Ok(true) => set |= capability,
            Ok(false) => {}
            // Past the last one that this kernel knows.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(HardenError::Refused { call: "prctl(PR_CAPBSET_READ)", errno }),
        }
    }
    Ok(set)
}

fn alone() -> Result<(), HardenError> {
    let status = fs::read_to_string("/proc/self/status").map_err(HardenError::Proc)?;
    match status.lines().find_map(|line| line.strip_prefix("Threads:")?.trim().parse().ok()) {
        Some(1) => Ok(()),
        Some(threads) => Err(HardenError::Threads(threads)),
        None => Err(HardenError::Proc(io::Error::from(io::ErrorKind::InvalidData))),
    }
}

fn names(set: CapabilitySet) -> String {
    let names: Vec<_> = set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    names.join(", ")
}
