// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The system calls that each half of the node plugin makes, and no others.
//!
//! What is not on a half's list does not exist for it: the kernel answers `ENOSYS`, at which a library that tries a newer
//! call first takes the older one, so that an update does not stop a node from starting pods. In a build with debug
//! assertions it ends the process instead ([`Unlisted`]): every test of the suite is then one of the list's being complete.
//! Two things are looked at before any name, because either would be a way round the names: calls of another
//! architecture's table (32-bit; the process is killed, as no call of ours can be one) and, on x86-64, calls of the x32
//! table.
//!
//! A filter sees numbers and flags, not what a pointer leads to: not a path (the engine half has a private root), not an
//! address (see [`landlock`](crate::landlock)), not `clone3`'s flags: it always answers `ENOSYS`, at which libc uses
//! `clone`. Nor can memory become code: nothing is mapped executable.
//!
//! A filter is inherited through `fork` and `execve`, by threads started later, and never loosened. That is why the
//! process that starts programs must not carry one of these.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Is, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

mod tables;

pub use tables::SYS_STATMOUNT;

/// The limits of one half, compiled for this machine and this process.
#[derive(Clone, Debug)]
pub struct Filter(BpfProgram);

/// Whom a filter binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The calling thread, and every thread and process it starts from now on.
    ThisThread,
    /// Every thread of the process (`SECCOMP_FILTER_FLAG_TSYNC`).
    AllThreads,
}

/// What becomes of a call that is not on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlisted {
    /// `ENOSYS`.
    Missing,
    /// The end of the process, by `SIGSYS`.
    Fatal,
}

impl Unlisted {
    /// Missing in a release; fatal in a build with debug assertions, whose tests shall notice.
    pub const OF_THIS_BUILD: Self = if cfg!(debug_assertions) { Self::Fatal } else { Self::Missing };

    fn action(self) -> SeccompAction {
        match self {
            Self::Missing => SeccompAction::Errno(libc::ENOSYS as u32),
            Self::Fatal => SeccompAction::KillProcess,
        }
    }
}

/// A filter could not be compiled or installed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeccompError {
    /// The rules do not compile: a mistake in this crate.
    #[error("cannot compile the system-call filter: {0}")]
    Compile(#[source] seccompiler::Error),
    /// The kernel refused the filter.
    #[error("cannot install the system-call filter: {0}; the kernel needs CONFIG_SECCOMP_FILTER")]
    Install(#[source] seccompiler::Error),
    /// There is no table of system calls for this architecture.
    #[error("no system-call filter for the architecture {0}: x86_64 and aarch64 have one")]
    Architecture(&'static str),
}

/// The filter of the half that talks to the network and sees secrets, without privileges. For the process that calls it.
///
/// Its sockets are TCP and UDP ones, and the pairs with which the runtime wakes itself: it can connect to no Unix socket, of
/// a path or abstract. It starts threads, and no process; signals reach itself alone.
///
/// # Errors
///
/// [`SeccompError::Architecture`], [`SeccompError::Compile`].
pub fn engine_filter(unlisted: Unlisted) -> Result<Filter, SeccompError> {
    let mut listed = Listed::default();
    listed.always(tables::ENGINE);
    for family in [libc::AF_INET, libc::AF_INET6] {
        // The protocol too: MPTCP, SMC and the like would be TCP that no limit on ports sees.
        for (kind, protocol) in [(libc::SOCK_STREAM, libc::IPPROTO_TCP), (libc::SOCK_DGRAM, libc::IPPROTO_UDP)] {
            for protocol in [0, protocol] {
                let kind = (1, Is::MaskedEq(SOCK_TYPE_MASK), kind);
                listed.when(libc::SYS_socket, [(0, Is::Eq, family), kind, (2, Is::Eq, protocol)]);
            }
        }
    }
    // Connected for good; one of datagrams could still be sent elsewhere.
    let stream = (1, Is::MaskedEq(SOCK_TYPE_MASK), libc::SOCK_STREAM);
    listed.when(libc::SYS_socketpair, [(0, Is::Eq, libc::AF_UNIX), stream]);
    // Sending may not connect: no limit on ports would see it.
    for (call, flags) in [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)] {
        listed.when(call, [(flags, Is::MaskedEq(libc::MSG_FASTOPEN as u64), 0)]);
    }
    // A thread, in the namespaces that there are.
    let namespaces = tables::NEW_NAMESPACES.iter().fold(0, |all, flag| all | *flag);
    listed.when(
        libc::SYS_clone,
        [(0, Is::MaskedEq((namespaces | libc::CLONE_THREAD) as u32 as u64), libc::CLONE_THREAD)],
    );
    for option in tables::PRCTL {
        listed.when(libc::SYS_prctl, [(0, Is::Eq, option)]);
    }
    listed.compile(unlisted)
}

/// How the half that mounts does so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounting {
    /// With the calls of Linux 5.2 to 5.12, which take descriptors.
    ByDescriptor,
    /// With `mount(2)`, where one of those is missing.
    ByPath,
}

/// The filter of the half that mounts, as root, and sees no secret. For the process that calls it.
///
/// It reaches no network (sockets are `AF_UNIX` alone), starts no thread, process or program, and traces nobody.
///
/// # Errors
///
/// [`SeccompError::Architecture`], [`SeccompError::Compile`].
pub fn warden_filter(mounting: Mounting, unlisted: Unlisted) -> Result<Filter, SeccompError> {
    let mut listed = Listed::default();
    listed.always(tables::WARDEN);
    match mounting {
        Mounting::ByDescriptor => {}
        Mounting::ByPath => listed.always(&[libc::SYS_mount]),
    }
    listed.when(libc::SYS_socket, [(0, Is::Eq, libc::AF_UNIX)]);
    listed.compile(unlisted)
}

/// Installs `filter`, for good, and with it `no_new_privs`, without which a filter would follow a process into a
/// set-user-ID program.
///
/// # Errors
///
/// [`SeccompError::Install`]; with [`Scope::AllThreads`] also when a thread has a filter that this one lacks.
pub fn install(filter: &Filter, scope: Scope) -> Result<(), SeccompError> {
    match scope {
        Scope::ThisThread => seccompiler::apply_filter(&filter.0),
        Scope::AllThreads => seccompiler::apply_filter_all_threads(&filter.0),
    }
    .map_err(SeccompError::Install)
}

/// The bits of `socket`'s type that are no flags.
const SOCK_TYPE_MASK: u64 = 0xf;

/// One argument's condition: its index, the comparison, and the value. Every argument used here is an `int` to the
/// kernel, which ignores the upper half, and so must we.
type Argument = (u8, Is, i32);

/// The calls that are allowed, always or on a condition.
struct Listed(BTreeMap<c_long, Vec<Vec<Argument>>>);

impl Default for Listed {
    /// What both halves do.
    fn default() -> Self {
        let mut listed = Self(BTreeMap::new());
        listed.always(tables::EVERYWHERE);
        listed.always(tables::FILES);
        for command in tables::FCNTL {
            listed.when(libc::SYS_fcntl, [(1, Is::Eq, command)]);
        }
        for request in tables::IOCTL {
            listed.when(libc::SYS_ioctl, [(1, Is::Eq, request)]);
        }
        for call in [libc::SYS_mmap, libc::SYS_mprotect] {
            listed.when(call, [(2, Is::MaskedEq(libc::PROT_EXEC as u64), 0)]);
        }
        // abort(3) signals its own thread. Where the process was not told its own id, nobody.
        let us = i32::try_from(std::process::id()).unwrap_or(0);
        listed.when(libc::SYS_tgkill, [(0, Is::Eq, us)]);
        // Limits of its own.
        listed.when(libc::SYS_prlimit64, [(0, Is::Eq, 0)]);
        listed
    }
}

impl Listed {
    fn always(&mut self, calls: &[c_long]) {
        for call in calls {
            self.0.insert(*call, Vec::new());
        }
    }

    /// Allows `call` when all of `conditions` hold.
    fn when<const N: usize>(&mut self, call: c_long, conditions: [Argument; N]) {
        self.0.entry(call).or_default().push(conditions.into());
    }

    fn compile(self, unlisted: Unlisted) -> Result<Filter, SeccompError> {
        let arch = std::env::consts::ARCH;
        let target = TargetArch::try_from(arch).map_err(|_| SeccompError::Architecture(arch))?;
        let compile = || -> Result<BpfProgram, seccompiler::BackendError> {
            let mut rules = BTreeMap::new();
            for (call, chains) in self.0 {
                let chains: Result<Vec<_>, _> = chains.into_iter().map(rule).collect();
                rules.insert(call, chains?);
            }
            SeccompFilter::new(rules, unlisted.action(), SeccompAction::Allow, target)?.try_into()
        };
        let named = compile().map_err(|error| SeccompError::Compile(error.into()))?;
        let mut program = prologue();
        program.extend(named);
        Ok(Filter(program))
    }
}

fn rule(conditions: Vec<Argument>) -> Result<SeccompRule, seccompiler::BackendError> {
    let conditions: Result<Vec<_>, _> = conditions
        .into_iter()
        // The cast keeps the 32 bits that `Width::Dword` compares.
        .map(|(index, is, value)| SeccompCondition::new(index, Width::Dword, is, u64::from(value as u32)))
        .collect();
    SeccompRule::new(conditions?)
}

/// What a table of calls by number cannot say: a range (x32), and what answers `ENOSYS` in every build (`clone3`). It looks
/// at the number alone; the architecture is checked right after it.
fn prologue() -> BpfProgram {
    let stmt = |code: u32, k: u32| sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let unless = |test: u32, k: u32| sock_filter { code: (libc::BPF_JMP | test | libc::BPF_K) as u16, jt: 0, jf: 1, k };
    let refuse = |errno: i32| stmt(libc::BPF_RET | libc::BPF_K, u32::from(SeccompAction::Errno(errno as u32)));

    let mut program = vec![stmt(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    if cfg!(target_arch = "x86_64") {
        const X32_SYSCALL_BIT: u32 = 0x4000_0000;
        program.extend([unless(libc::BPF_JGE, X32_SYSCALL_BIT), refuse(libc::ENOSYS)]);
    }
    program.extend([unless(libc::BPF_JEQ, libc::SYS_clone3 as u32), refuse(libc::ENOSYS)]);
    program
}

#[cfg(test)]
mod tests;
