// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Each case installs a filter in a thread of its own and tries the calls there. A filter answers before the kernel
//! looks at the arguments, so the calls are made with arguments that do nothing where the filter is missing.

#![expect(unsafe_code, reason = "makes raw system calls, most of which have no wrapper")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::CStr;
use std::io;
use std::net::{TcpListener, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::process::Command;

use super::*;

/// Runs `body` in a thread that carries the filter.
fn under(filter: Result<Filter, SeccompError>, body: impl FnOnce() + Send + 'static) {
    let filter = filter.unwrap();
    let thread = std::thread::spawn(move || {
        install(&filter, Scope::ThisThread).unwrap();
        body();
    });
    thread.join().unwrap();
}

/// The error number that a raw call answers with, or 0.
fn raw(call: c_long, arguments: [c_long; 4]) -> i32 {
    let [a, b, c, d] = arguments;
    // SAFETY: the callers pass null pointers, bad descriptors or plain numbers.
    if unsafe { libc::syscall(call, a, b, c, d) } >= 0 { 0 } else { io::Error::last_os_error().raw_os_error().unwrap() }
}

/// The error number of `socket`; the descriptor is closed.
fn socket(family: i32, kind: i32, protocol: i32) -> i32 {
    // SAFETY: makes a descriptor and closes it.
    match unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) } {
        -1 => io::Error::last_os_error().raw_os_error().unwrap(),
        // SAFETY: as above.
        fd => unsafe { libc::close(fd) },
    }
}

fn execve_nothing() -> i32 {
    let nowhere: &CStr = c"/nowhere/at/all";
    raw(libc::SYS_execve, [nowhere.as_ptr() as c_long, 0, 0, 0])
}

/// Named here, so that one that slips into a table is found.
const NOBODY: [c_long; 49] = [
    // Other programs, other processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_memfd_create,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kcmp,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    // A second way to make system calls, and large surfaces with a history.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_shmget,
    libc::SYS_msgget,
    libc::SYS_mq_open,
    libc::SYS_timer_create,
    // Files by handle; another view of the machine.
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_personality,
    libc::SYS_setuid,
    libc::SYS_setresuid,
    libc::SYS_capset,
    libc::SYS_fanotify_init,
    // The kernel and the machine.
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
];

/// What the mounting half does and the other never.
const MOUNTS: [c_long; 9] = [
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
];

/// Calls with arguments that the kernel would refuse for another reason, or would answer harmlessly.
fn missing_in_both() {
    for call in NOBODY {
        assert_eq!(raw(call, [-1, -1, -1, -1]), libc::ENOSYS, "call number {call}");
    }
    assert_eq!(execve_nothing(), libc::ENOSYS);
    assert_eq!(raw(libc::SYS_clone3, [0, 0, 0, 0]), libc::ENOSYS);
    const TIOCSTI: c_long = 0x5412;
    assert_eq!(raw(libc::SYS_ioctl, [-1, TIOCSTI, 0, 0]), libc::ENOSYS);
    const FIONBIO: c_long = 0x5421;
    assert_eq!(raw(libc::SYS_ioctl, [-1, FIONBIO, 0, 0]), libc::EBADF);
    assert_eq!(raw(libc::SYS_fcntl, [-1, c_long::from(libc::F_SETOWN), 0, 0]), libc::ENOSYS);
    for option in [libc::PR_SET_DUMPABLE, libc::PR_SET_PDEATHSIG, libc::PR_SET_MM, libc::PR_SET_PTRACER] {
        assert_eq!(raw(libc::SYS_prctl, [c_long::from(option), 1, 0, 0]), libc::ENOSYS, "prctl {option}");
    }
    let executable = c_long::from(libc::PROT_READ | libc::PROT_EXEC);
    assert_eq!(raw(libc::SYS_mprotect, [0, 0, executable, 0]), libc::ENOSYS, "memory becomes no code");
    assert_eq!(raw(libc::SYS_mmap, [0, 0, executable, 0]), libc::ENOSYS, "no file becomes code");
    // Signal 0 asks whether it may be sent: to the parent, which there is.
    let parent = c_long::from(std::os::unix::process::parent_id().cast_signed());
    assert_eq!(raw(libc::SYS_tgkill, [parent, parent, 0, 0]), libc::ENOSYS);
    let us = c_long::from(std::process::id().cast_signed());
    assert_eq!(raw(libc::SYS_tgkill, [us, us, 0, 0]), 0);
    #[cfg(target_arch = "x86_64")]
    assert_eq!(raw(libc::SYS_getpid | 0x4000_0000, [0; 4]), libc::ENOSYS, "the x32 table is no way round");
}

fn a_thread_can_start() {
    assert_eq!(std::thread::spawn(|| 42).join().unwrap(), 42);
}

/// Without a filter these answer otherwise, or the cases below would prove nothing.
#[test]
fn the_same_calls_are_not_refused_without_a_filter() {
    assert_eq!(execve_nothing(), libc::ENOENT);
    assert_eq!(raw(libc::SYS_clone3, [0, 0, 0, 0]), libc::EINVAL);
    assert_eq!(raw(libc::SYS_open_tree, [-1, 0, 0, 0]), libc::EFAULT);
    assert_eq!(socket(libc::AF_INET, libc::SOCK_DGRAM, 0), 0);
    assert_eq!(socket(libc::AF_PACKET, libc::SOCK_RAW, 0), 0, "needs root");
    assert!(Command::new("/proc/self/exe").arg("--list").output().unwrap().status.success());
}

#[test]
fn the_engine_lacks_what_nobody_needs() {
    under(engine_filter(Unlisted::Missing), missing_in_both);
}

#[test]
fn the_engine_starts_no_program() {
    under(engine_filter(Unlisted::Missing), || {
        let error = Command::new("/proc/self/exe").arg("--list").output().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    });
}

#[test]
fn the_engine_mounts_nothing() {
    under(engine_filter(Unlisted::Missing), || {
        for call in MOUNTS {
            assert_eq!(raw(call, [-1, 0, 0, 0]), libc::ENOSYS, "call number {call}");
        }
    });
}

#[test]
fn the_engine_has_tcp_and_udp_sockets_and_no_others() {
    under(engine_filter(Unlisted::Missing), || {
        assert_eq!(socket(libc::AF_INET, libc::SOCK_STREAM, 0), 0);
        assert_eq!(socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, libc::IPPROTO_TCP), 0);
        assert_eq!(socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK, 0), 0);
        // A machine may have no IPv6; refused it is not.
        assert_ne!(socket(libc::AF_INET6, libc::SOCK_STREAM, 0), libc::ENOSYS);
        for (family, kind, protocol) in [
            (libc::AF_UNIX, libc::SOCK_STREAM, 0),
            (libc::AF_UNIX, libc::SOCK_DGRAM, 0),
            (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE),
            (libc::AF_PACKET, libc::SOCK_RAW, 0),
            (libc::AF_VSOCK, libc::SOCK_STREAM, 0),
            (libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
            (libc::AF_BLUETOOTH, libc::SOCK_RAW, 0),
            (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_TCP),
            (libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6),
            (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
            (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP),
            (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
            (libc::AF_INET, libc::SOCK_STREAM, 256), // SMC
        ] {
            assert_eq!(
                socket(family, kind, protocol),
                libc::ENOSYS,
                "family {family}, type {kind}, protocol {protocol}"
            );
        }
        let pair = |kind: i32| raw(libc::SYS_socketpair, [c_long::from(libc::AF_UNIX), c_long::from(kind), 0, 0]);
        assert_eq!((pair(libc::SOCK_STREAM), pair(libc::SOCK_DGRAM)), (libc::EFAULT, libc::ENOSYS));
        let fast = c_long::from(libc::MSG_FASTOPEN);
        assert_eq!(raw(libc::SYS_sendto, [-1, 0, 0, fast]), libc::ENOSYS, "sending does not connect");
        assert_eq!(raw(libc::SYS_sendmsg, [-1, 0, fast, 0]), libc::ENOSYS, "sending does not connect");
        assert_eq!(raw(libc::SYS_sendmmsg, [-1, 0, 0, fast]), libc::ENOSYS, "sending does not connect");
    });
}

#[test]
fn the_engine_makes_no_namespace() {
    under(engine_filter(Unlisted::Missing), || {
        for flag in tables::NEW_NAMESPACES {
            // With CLONE_THREAD alone the kernel would answer EINVAL: no child is made where the filter is missing.
            let flags = c_long::from(flag | libc::CLONE_THREAD);
            assert_eq!(raw(libc::SYS_clone, [flags, 0, 0, 0]), libc::ENOSYS, "flag {flag:#x}");
        }
    });
}

#[test]
fn the_engine_still_resolves_names_connects_and_starts_threads() {
    under(engine_filter(Unlisted::Missing), || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = ("localhost", port).to_socket_addrs().unwrap().find(|address| address.is_ipv4()).unwrap();
        std::net::TcpStream::connect(address).unwrap();
        UnixStream::pair().unwrap();
        a_thread_can_start();
    });
}

#[test]
fn the_engine_still_opens_its_arena() {
    under(engine_filter(Unlisted::Missing), || {
        use crate::arena::{Arena, ArenaKind};
        assert_eq!(Arena::open(1).unwrap().kind(), ArenaKind::SecretMemory);
    });
}

#[test]
fn the_warden_lacks_what_nobody_needs() {
    under(warden_filter(Mounting::ByDescriptor, Unlisted::Missing), missing_in_both);
}

#[test]
fn the_warden_has_no_sockets_but_those_of_this_machine() {
    under(warden_filter(Mounting::ByDescriptor, Unlisted::Missing), || {
        for family in [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET, libc::AF_VSOCK, libc::AF_ALG] {
            assert_eq!(socket(family, libc::SOCK_STREAM, 0), libc::ENOSYS, "family {family}");
        }
        assert_eq!(socket(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0), 0);
    });
}

#[test]
fn the_warden_starts_nothing() {
    under(warden_filter(Mounting::ByDescriptor, Unlisted::Missing), || {
        assert!(std::thread::Builder::new().spawn(|| ()).is_err());
        assert!(Command::new("/proc/self/exe").arg("--list").output().is_err());
    });
}

#[test]
fn in_a_build_for_tests_a_call_that_is_not_listed_ends_the_process() {
    // SAFETY: the child runs what follows and ends.
    let child = match unsafe { libc::fork() } {
        0 => {
            if engine_filter(Unlisted::Fatal).and_then(|filter| install(&filter, Scope::ThisThread)).is_ok() {
                raw(libc::SYS_getpgid, [0; 4]);
            }
            // SAFETY: ends the child without the harness's exit handlers.
            unsafe { libc::_exit(0) }
        }
        child => rustix::process::Pid::from_raw(child).unwrap(),
    };
    let (_, status) = rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.terminating_signal(), Some(libc::SIGSYS));
}

#[test]
fn the_warden_can_do_its_work() {
    for mounting in [Mounting::ByDescriptor, Mounting::ByPath] {
        under(warden_filter(mounting, Unlisted::Missing), move || {
            for call in MOUNTS.into_iter().chain([libc::SYS_openat2, libc::SYS_fchownat]) {
                let allowed = call != libc::SYS_mount || mounting == Mounting::ByPath;
                assert_eq!(raw(call, [-1, 0, 0, 0]) != libc::ENOSYS, allowed, "call number {call}, {mounting:?}");
            }
        });
    }
}

#[test]
fn a_filter_for_all_threads_binds_those_that_already_run() {
    // In a process of its own: the harness's threads must not be bound.
    // SAFETY: the child runs what follows and ends.
    let child = match unsafe { libc::fork() } {
        0 => {
            let (go, wait) = std::sync::mpsc::channel::<()>();
            let other = std::thread::spawn(move || wait.recv().map(|()| socket(libc::AF_PACKET, libc::SOCK_RAW, 0)));
            let bound = engine_filter(Unlisted::Missing).and_then(|filter| install(&filter, Scope::AllThreads)).is_ok()
                && go.send(()).is_ok()
                && matches!(other.join(), Ok(Ok(libc::ENOSYS)));
            // SAFETY: ends the child without the harness's exit handlers.
            unsafe { libc::_exit(i32::from(!bound)) }
        }
        child => rustix::process::Pid::from_raw(child).unwrap(),
    };
    let (_, status) = rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0));
}
