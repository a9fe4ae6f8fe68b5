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

/// Calls with arguments that the kernel would refuse for another reason, or would answer harmlessly.
fn refused_by_both() {
    // Named again, so that a line lost from the table is missed here.
    for call in [
        libc::SYS_execveat,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_getfd,
        libc::SYS_io_uring_setup,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_keyctl,
        libc::SYS_open_by_handle_at,
        libc::SYS_setns,
        libc::SYS_unshare,
        libc::SYS_chroot,
        libc::SYS_pivot_root,
        libc::SYS_finit_module,
        libc::SYS_kexec_load,
        libc::SYS_clock_settime,
    ] {
        assert_eq!(raw(call, [-1, -1, -1, -1]), libc::EPERM, "call number {call}");
    }
    for call in tables::EVERYWHERE {
        assert_eq!(raw(*call, [-1, -1, -1, -1]), libc::EPERM, "call number {call}");
    }
    assert_eq!(execve_nothing(), libc::EPERM);
    assert_eq!(raw(libc::SYS_clone3, [0, 0, 0, 0]), libc::ENOSYS);
    assert_eq!(raw(libc::SYS_ioctl, [-1, c_long::from(tables::TIOCSTI), 0, 0]), libc::EPERM);
    assert_eq!(raw(libc::SYS_ioctl, [-1, libc::FIONREAD as c_long, 0, 0]), libc::EBADF);
    let dumpable = c_long::from(libc::PR_SET_DUMPABLE);
    assert_eq!(raw(libc::SYS_prctl, [dumpable, 1, 0, 0]), libc::EPERM);
    #[cfg(target_arch = "x86_64")]
    assert_eq!(raw(libc::SYS_getpid | 0x4000_0000, [0; 4]), libc::EPERM, "the x32 table is no way round");
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
fn the_engine_is_refused_what_nobody_needs() {
    under(engine_filter(), refused_by_both);
}

#[test]
fn the_engine_starts_no_program() {
    under(engine_filter(), || {
        let error = Command::new("/proc/self/exe").arg("--list").output().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    });
}

#[test]
fn the_engine_mounts_and_watches_nothing() {
    under(engine_filter(), || {
        for call in [tables::MOUNTS, tables::WATCHES].concat() {
            assert_eq!(raw(call, [-1, 0, 0, 0]), libc::EPERM, "call number {call}");
        }
    });
}

#[test]
fn the_engine_speaks_to_the_internet_and_to_this_machine_alone() {
    under(engine_filter(), || {
        for family in [libc::AF_UNIX, libc::AF_INET] {
            assert_eq!(socket(family, libc::SOCK_STREAM, 0), 0, "family {family}");
            assert_eq!(socket(family, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK, 0), 0, "family {family}");
        }
        // A machine may have no IPv6; refused it is not.
        assert_ne!(socket(libc::AF_INET6, libc::SOCK_STREAM, 0), libc::EPERM);
        assert_eq!(socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE), 0);
        assert_eq!(socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_KOBJECT_UEVENT), libc::EPERM);
        for family in [libc::AF_PACKET, libc::AF_INET, libc::AF_INET6] {
            assert_eq!(socket(family, libc::SOCK_RAW | libc::SOCK_NONBLOCK, 1), libc::EPERM, "family {family}");
        }
        for family in [libc::AF_VSOCK, libc::AF_ALG, libc::AF_BLUETOOTH, libc::AF_PACKET] {
            assert_eq!(socket(family, libc::SOCK_DGRAM, 0), libc::EPERM, "family {family}");
        }
    });
}

#[test]
fn the_engine_makes_no_namespace() {
    under(engine_filter(), || {
        for flag in tables::NEW_NAMESPACES {
            // With CLONE_SIGHAND alone the kernel would answer EINVAL: no child is made where the filter is missing.
            let flags = c_long::from(*flag | libc::CLONE_SIGHAND);
            assert_eq!(raw(libc::SYS_clone, [flags, 0, 0, 0]), libc::EPERM, "flag {flag:#x}");
        }
    });
}

#[test]
fn the_engine_still_resolves_names_connects_and_starts_threads() {
    under(engine_filter(), || {
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
    under(engine_filter(), || {
        use crate::arena::{Arena, ArenaKind};
        assert_eq!(Arena::open(1).unwrap().kind(), ArenaKind::SecretMemory);
    });
}

#[test]
fn the_warden_is_refused_what_nobody_needs() {
    under(warden_filter(), refused_by_both);
}

#[test]
fn the_warden_has_no_sockets_but_those_of_this_machine() {
    under(warden_filter(), || {
        for family in [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET, libc::AF_VSOCK, libc::AF_ALG] {
            assert_eq!(socket(family, libc::SOCK_STREAM, 0), libc::EPERM, "family {family}");
        }
        assert_eq!(raw(libc::SYS_socketpair, [c_long::from(libc::AF_TIPC), 1, 0, 0]), libc::EPERM);
        UnixStream::pair().unwrap();
        assert_eq!(socket(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0), 0);
    });
}

#[test]
fn the_warden_starts_threads_but_no_process() {
    under(warden_filter(), || {
        a_thread_can_start();
        // No SIGCHLD and CLONE_SIGHAND without CLONE_VM: EINVAL, and no child, where the filter is missing.
        assert_eq!(raw(libc::SYS_clone, [c_long::from(libc::CLONE_SIGHAND), 0, 0, 0]), libc::EPERM);
        let error = Command::new("/proc/self/exe").arg("--list").output().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    });
}

#[test]
fn the_warden_can_do_its_work() {
    under(warden_filter(), || {
        for call in [tables::MOUNTS, tables::WATCHES, &[libc::SYS_openat2]].concat() {
            let answer = raw(call, [-1, 0, 0, 0]);
            assert!(![libc::EPERM, libc::ENOSYS].contains(&answer) || call == 467, "call number {call}: {answer}");
        }
    });
}

#[test]
fn a_filter_for_all_threads_binds_those_that_already_run() {
    // In a process of its own: the harness's threads must not be bound.
    // SAFETY: the child runs what follows and ends.
    let child = match unsafe { libc::fork() } {
        0 => {
            let (go, wait) = std::sync::mpsc::channel::<()>();
            let other = std::thread::spawn(move || wait.recv().map(|()| socket(libc::AF_INET, libc::SOCK_STREAM, 0)));
            let bound = warden_filter().and_then(|filter| install(&filter, Scope::AllThreads)).is_ok()
                && go.send(()).is_ok()
                && matches!(other.join(), Ok(Ok(libc::EPERM)));
            // SAFETY: ends the child without the harness's exit handlers.
            unsafe { libc::_exit(i32::from(!bound)) }
        }
        child => rustix::process::Pid::from_raw(child).unwrap(),
    };
    let (_, status) = rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0));
}
