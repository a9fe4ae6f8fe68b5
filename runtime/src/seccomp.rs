// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The system calls that each half of the node plugin goes without.
//!
//! Both filters allow by default and refuse by name: a library that learns a new call must not stop a node from
//! starting pods. A refusal is `EPERM`, so that the caller sees an error rather than the end of the process. What is not
//! named here is told in the threat model. Two things are refused before any name is looked at, because either would
//! be a way round the names: calls of another architecture's table (32-bit; the process is killed, as no call of ours
//! can be one) and, on x86-64, calls of the x32 table.
//!
//! `clone3` and `openat2` pass their arguments through memory, which a filter cannot read. `clone3` therefore answers
//! `ENOSYS`, at which libc uses `clone`, whose flags a filter can read.
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

/// The limits of one half, compiled for this machine.
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

/// The filter of the half that talks to the network and sees secrets, without privileges.
///
/// It starts no program, traces nobody, changes no mount, namespace, key, clock or kernel, and has no sockets but those
/// of the Internet, of this machine (`AF_UNIX`), and the one with which libc asks for routes.
///
/// # Errors
///
/// [`SeccompError::Architecture`], [`SeccompError::Compile`].
pub fn engine_filter() -> Result<Filter, SeccompError> {
    let mut refused = Refused::new(tables::EVERYWHERE);
    refused.always(tables::MOUNTS);
    refused.always(tables::WATCHES);

    const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    refused.when(libc::SYS_socket, FAMILIES.map(|family| (0, Is::Ne, family)));
    // getaddrinfo sorts what it found by the routes there are.
    let netlink = (0, Is::Eq, libc::AF_NETLINK);
    refused.when(libc::SYS_socket, [netlink, (2, Is::Ne, libc::NETLINK_ROUTE)]);
    for family in [libc::AF_INET, libc::AF_INET6] {
        let raw = (1, Is::MaskedEq(SOCK_TYPE_MASK), libc::SOCK_RAW);
        refused.when(libc::SYS_socket, [(0, Is::Eq, family), raw]);
    }
    // A thread or a plain child, but no new namespace.
    for flag in tables::NEW_NAMESPACES {
        refused.when(libc::SYS_clone, [(0, Is::MaskedEq(*flag as u64), *flag)]);
    }
    refused.compile()
}

/// The filter of the half that mounts, as root, and sees no secret.
///
/// It reaches no network (sockets are `AF_UNIX` alone), starts no process and no program (threads it may), and traces
/// nobody. The mount calls, `openat2` and fanotify are its work.
///
/// # Errors
///
/// [`SeccompError::Architecture`], [`SeccompError::Compile`].
pub fn warden_filter() -> Result<Filter, SeccompError> {
    let mut refused = Refused::new(tables::EVERYWHERE);
    refused.always(tables::FORKS);
    for call in [libc::SYS_socket, libc::SYS_socketpair] {
        refused.when(call, [(0, Is::Ne, libc::AF_UNIX)]);
    }
    refused.when(libc::SYS_clone, [(0, Is::MaskedEq(libc::CLONE_THREAD as u64), 0)]);
    refused.compile()
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

const EPERM: SeccompAction = SeccompAction::Errno(libc::EPERM as u32);

/// One argument's condition: its index, the comparison, and the value. Every argument used here is an `int` to the
/// kernel, which ignores the upper half, and so must we.
type Argument = (u8, Is, i32);

/// The calls that are refused, always or on a condition.
struct Refused(BTreeMap<c_long, Vec<Vec<Argument>>>);

impl Refused {
    fn new(calls: &[c_long]) -> Self {
        let mut refused = Self(BTreeMap::new());
        refused.always(calls);
        refused.when(libc::SYS_ioctl, [(1, Is::Eq, tables::TIOCSTI)]);
        refused.when(libc::SYS_ioctl, [(1, Is::Eq, tables::TIOCLINUX)]);
        // What `harden` closed stays closed.
        refused.when(libc::SYS_prctl, [(0, Is::Eq, libc::PR_SET_DUMPABLE), (1, Is::Ne, 0)]);
        refused
    }

    fn always(&mut self, calls: &[c_long]) {
        for call in calls {
            self.0.insert(*call, Vec::new());
        }
    }

    /// Refuses `call` when all of `conditions` hold.
    fn when<const N: usize>(&mut self, call: c_long, conditions: [Argument; N]) {
        self.0.entry(call).or_default().push(conditions.into());
    }

    fn compile(self) -> Result<Filter, SeccompError> {
        let arch = std::env::consts::ARCH;
        let target = TargetArch::try_from(arch).map_err(|_| SeccompError::Architecture(arch))?;
        let compile = || -> Result<BpfProgram, seccompiler::BackendError> {
            let mut rules = BTreeMap::new();
            for (call, chains) in self.0 {
                let chains: Result<Vec<_>, _> = chains.into_iter().map(rule).collect();
                rules.insert(call, chains?);
            }
            SeccompFilter::new(rules, SeccompAction::Allow, EPERM, target)?.try_into()
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

/// What a table of calls by number cannot say: a range (x32) and a second errno (`clone3`). It looks at the number
/// alone; the architecture is checked right after it.
fn prologue() -> BpfProgram {
    let stmt = |code: u32, k: u32| sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let unless = |test: u32, k: u32| sock_filter { code: (libc::BPF_JMP | test | libc::BPF_K) as u16, jt: 0, jf: 1, k };
    let refuse = |errno: i32| stmt(libc::BPF_RET | libc::BPF_K, u32::from(SeccompAction::Errno(errno as u32)));

    let mut program = vec![stmt(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    if cfg!(target_arch = "x86_64") {
        const X32_SYSCALL_BIT: u32 = 0x4000_0000;
        program.extend([unless(libc::BPF_JGE, X32_SYSCALL_BIT), refuse(libc::EPERM)]);
    }
    program.extend([unless(libc::BPF_JEQ, libc::SYS_clone3 as u32), refuse(libc::ENOSYS)]);
    program
}

#[cfg(test)]
mod tests;
