// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The calls that each half makes, by name. Numbers are libc's, for the architecture that is compiled for.
//!
//! `.ci/syscalls` writes down what the processes call during the integration tests and compares it with these tables: what
//! it finds is here without a remark. What stands here although it is not seen has the reason beside it.

use libc::{c_int, c_long};

/// What every program does: memory, threads that run already, time, ends.
pub(super) const EVERYWHERE: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap, // a large allocation grows
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_sched_yield, // a lock under load
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn, // after a handler
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall, // the kernel's own, after a stop
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_clock_gettime, // where the vDSO has no clock
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getcwd, // a panic names files
    libc::SYS_uname,  // the resolver asks for the host's name
    libc::SYS_getuid, // libc, before it looks for files of settings
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
];

/// Files and descriptors, in both halves.
pub(super) const FILES: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close,
    libc::SYS_dup, // beside F_DUPFD_CLOEXEC
    libc::SYS_dup3,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_mkdirat,
    libc::SYS_renameat,
    libc::SYS_renameat2, // the same on architectures without the older one
    libc::SYS_unlinkat,
    libc::SYS_symlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ppoll,
    libc::SYS_recvmsg,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
];

/// The half that talks to the network and sees secrets.
pub(super) const ENGINE: &[c_long] = &[
    // Threads.
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_sched_getaffinity,
    libc::SYS_getrusage, // page faults since memory was given back: of itself, and of its threads
    // The event loop.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait, // where there is no epoll_wait
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    // Sockets; which, is a condition.
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg, // the resolver
    libc::SYS_shutdown,
    // Classes.
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    // Protected memory.
    SYS_MEMFD_SECRET,
    libc::SYS_mlock, // where there is no memfd_secret
    libc::SYS_mlock2,
    libc::SYS_munlock,
];

/// The half that mounts.
pub(super) const WARDEN: &[c_long] = &[
    libc::SYS_umount2,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    SYS_STATMOUNT,
    libc::SYS_fchownat,
    // The connection for the liveness probe.
    libc::SYS_connect,
    libc::SYS_sendmsg,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
];

/// libc has no name for it on every architecture; the number is the same on all.
const SYS_MEMFD_SECRET: c_long = 447;
/// `statmount(2)`, for which libc has no name; the number is the same on every architecture.
pub const SYS_STATMOUNT: c_long = 457;

/// What `fcntl` may be asked for: nothing that sends signals or takes locks.
pub(super) const FCNTL: [c_int; 6] =
    [libc::F_DUPFD, libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL];

/// What `ioctl` may be asked for: not to block, how much there is to read, whether it is a terminal. The values are those of
/// asm-generic, which x86-64 and aarch64 share.
pub(super) const IOCTL: [c_int; 3] = [0x5421, 0x541B, 0x5401];

/// What `prctl` may be asked for: a thread's and a mapping's name, and what the kernel said of the processor.
pub(super) const PRCTL: [c_int; 3] = [libc::PR_SET_NAME, 0x5356_4D41, 0x4155_5856];

/// `clone` flags that ask for a new namespace. (That of time has no flag in `clone`.)
pub(super) const NEW_NAMESPACES: [c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
