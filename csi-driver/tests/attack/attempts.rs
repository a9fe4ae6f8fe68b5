// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What is tried: each attempt by its name, with what it came to. The same attempts run confined and, as a control, by the
//! same uid without any confinement, where each has to come to something else.

use std::ffi::CString;
use std::net::{Ipv4Addr, SocketAddrV4};

use libc::{c_int, c_long};
use serde::{Deserialize, Serialize};

/// What there is to attack; the victim says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Aim {
    /// A listening port that a backend has.
    pub(crate) backend: u16,
    /// A listening port that none has.
    pub(crate) other: u16,
    /// A port to listen on that was not given.
    pub(crate) unused: u16,
    /// A process of the same uid.
    pub(crate) tenant: i32,
    /// The process that has root.
    pub(crate) warden: i32,
    /// A file that everybody may read, outside.
    pub(crate) file: String,
    /// The directory of classes, which may be read.
    pub(crate) classes: String,
    /// The CSI socket's path.
    pub(crate) socket: String,
    /// The operator's socket's path.
    pub(crate) admin: String,
    /// The directory of all pods.
    pub(crate) pods: String,
}

/// What must come of the confined attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wall {
    /// The seccomp filter: there is no such call.
    NoSuchCall,
    /// Landlock.
    Landlock,
    /// The private root: there is no such path.
    NoSuchPath,
    /// Its mounts.
    ReadOnly,
    /// None: this is what it is for, and shows that attempts can succeed.
    None,
}

impl Wall {
    pub(crate) fn errno(self) -> c_int {
        match self {
            Self::NoSuchCall => libc::ENOSYS,
            Self::Landlock => libc::EACCES,
            Self::NoSuchPath => libc::ENOENT,
            Self::ReadOnly => libc::EROFS,
            Self::None => 0,
        }
    }
}

/// Name, wall, and the error number that the attempt came to; 0 for success.
pub(crate) type Attempt = (String, Wall, c_int);

/// Makes every attempt.
pub(crate) fn all(aim: &Aim) -> Vec<Attempt> {
    let mut made = Vec::new();
    let mut row = |name: &str, wall: Wall, errno: c_int| made.push((name.to_owned(), wall, errno));

    row("connect to a backend's port", Wall::None, connect(aim.backend));
    row("connect to a port that no backend names", Wall::Landlock, connect(aim.other));
    row("listen on another port", Wall::Landlock, bind(aim.unused));
    row("connect by sending (TCP fast open)", Wall::NoSuchCall, fast_open(aim.other));
    for (name, family, kind, protocol) in [
        ("MPTCP socket", libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP),
        ("raw socket", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_TCP),
        ("ping socket", libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
        ("packet socket", libc::AF_PACKET, libc::SOCK_RAW, 0),
        ("netlink socket", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE),
        ("vsock socket", libc::AF_VSOCK, libc::SOCK_STREAM, 0),
        ("alg socket", libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
        ("unix socket, to the CSI socket or an abstract one", libc::AF_UNIX, libc::SOCK_STREAM, 0),
        ("unix datagram socket", libc::AF_UNIX, libc::SOCK_DGRAM, 0),
    ] {
        row(name, Wall::NoSuchCall, call(libc::SYS_socket, [family.into(), kind.into(), protocol.into(), 0, 0]));
    }
    let mut pair: [c_int; 2] = [0; 2];
    let pair = pair.as_mut_ptr() as c_long;
    let datagrams = [libc::AF_UNIX.into(), libc::SOCK_DGRAM.into(), 0, pair, 0];
    row("pair of unix datagram sockets", Wall::NoSuchCall, call(libc::SYS_socketpair, datagrams));

    let nowhere = c"/nowhere".as_ptr() as c_long;
    let empty = c"".as_ptr() as c_long;
    let (tenant, warden) = (c_long::from(aim.tenant), c_long::from(aim.warden));
    let here = c_long::from(libc::AT_FDCWD);
    for (name, number, arguments) in [
        ("execve", libc::SYS_execve, [nowhere, 0, 0, 0, 0]),
        ("execveat", libc::SYS_execveat, [-1, empty, 0, 0, libc::AT_EMPTY_PATH.into()]),
        ("memfd_create, to execute what is in it", libc::SYS_memfd_create, [empty, 0, 0, 0, 0]),
        ("memory that is code", libc::SYS_mmap, [0, 4096, (libc::PROT_READ | libc::PROT_EXEC).into(), 0x22, -1]),
        ("a process (clone)", libc::SYS_clone, [c_long::from(libc::CLONE_SIGHAND), 0, 0, 0, 0]),
        ("clone3 with a namespace", libc::SYS_clone3, [0, 0, 0, 0, 0]),
        ("ptrace of a process of this uid", libc::SYS_ptrace, [libc::PTRACE_SEIZE.into(), tenant, 0, 0, 0]),
        ("ptrace of the warden", libc::SYS_ptrace, [libc::PTRACE_SEIZE.into(), warden, 0, 0, 0]),
        ("process_vm_readv", libc::SYS_process_vm_readv, [tenant, 0, 0, 0, 0]),
        ("process_vm_writev", libc::SYS_process_vm_writev, [tenant, 0, 0, 0, 0]),
        ("pidfd_open", libc::SYS_pidfd_open, [tenant, 0, 0, 0, 0]),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, [-1, 0, 0, 0, 0]),
        ("kcmp", libc::SYS_kcmp, [tenant, tenant, 0, 0, 0]),
        ("kill of a process of this uid", libc::SYS_kill, [tenant, 0, 0, 0, 0]),
        ("tgkill of a process of this uid", libc::SYS_tgkill, [tenant, tenant, 0, 0, 0]),
        ("kill of everything", libc::SYS_kill, [-1, 0, 0, 0, 0]),
        ("mount", libc::SYS_mount, [empty, nowhere, empty, 0, 0]),
        ("umount", libc::SYS_umount2, [nowhere, 0, 0, 0, 0]),
        ("fsopen", libc::SYS_fsopen, [c"tmpfs".as_ptr() as c_long, 0, 0, 0, 0]),
        ("fsmount", libc::SYS_fsmount, [-1, 0, 0, 0, 0]),
        ("open_tree", libc::SYS_open_tree, [here, c"/".as_ptr() as c_long, 1, 0, 0]),
        ("move_mount", libc::SYS_move_mount, [-1, empty, -1, empty, 4]),
        ("mount_setattr", libc::SYS_mount_setattr, [-1, empty, 0x1000, 0, 0]),
        ("pivot_root", libc::SYS_pivot_root, [nowhere, nowhere, 0, 0, 0]),
        ("chroot", libc::SYS_chroot, [nowhere, 0, 0, 0, 0]),
        ("unshare of a user namespace", libc::SYS_unshare, [0x4000_0000_0000, 0, 0, 0, 0]),
        ("setns", libc::SYS_setns, [-1, 0, 0, 0, 0]),
        ("bpf", libc::SYS_bpf, [-1, 0, 0, 0, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0, 0, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, [-1, 0, 0, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, [0, 0, -1, -1, 0]),
        ("keyctl", libc::SYS_keyctl, [0, -3, 0, 0, 0]),
        ("add_key", libc::SYS_add_key, [0, 0, 0, 0, 0]),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, [-1, 0, 0, 0, 0]),
        ("name_to_handle_at", libc::SYS_name_to_handle_at, [here, c"/".as_ptr() as c_long, 0, 0, 0]),
        ("fanotify_init", libc::SYS_fanotify_init, [0, 0, 0, 0, 0]),
        ("to become root", libc::SYS_setuid, [0, 0, 0, 0, 0]),
        ("to become dumpable", libc::SYS_prctl, [libc::PR_SET_DUMPABLE.into(), 1, 0, 0, 0]),
        ("to outlive the launcher", libc::SYS_prctl, [libc::PR_SET_PDEATHSIG.into(), 0, 0, 0, 0]),
        ("to type into a terminal", libc::SYS_ioctl, [-1, 0x5412, 0, 0, 0]),
        ("System V shared memory", libc::SYS_shmget, [0, 4096, 0o1600, 0, 0]),
    ] {
        row(name, Wall::NoSuchCall, call(number, arguments));
    }

    for path in [
        "/etc/passwd",
        "/proc/self/mem",
        "/proc/self/exe",
        "/proc/self/root/etc/passwd",
        "/proc/1/environ",
        "/dev/null",
        "/sys",
        "../../../../etc/passwd",
        &format!("/proc/{}/mem", aim.warden),
        &format!("/proc/{}/fd", aim.tenant),
        &aim.file,
        &aim.pods,
        &aim.socket,
        &aim.admin,
        &format!("{}/../../../../../etc/passwd", aim.classes),
    ] {
        row(&format!("open {path}"), Wall::NoSuchPath, open(path, libc::O_PATH));
    }
    row("open the directory of classes", Wall::None, open(&aim.classes, libc::O_RDONLY | libc::O_DIRECTORY));
    made
}

/// Attempts at writing, which have no counterpart outside.
pub(crate) fn writing(aim: &Aim) -> Vec<Attempt> {
    let create = libc::O_CREAT | libc::O_WRONLY;
    vec![
        ("write into the root".into(), Wall::ReadOnly, open("/new", create)),
        ("write a class".into(), Wall::ReadOnly, open(&format!("{}/new.yaml", aim.classes), create)),
    ]
}

fn call(number: c_long, [a, b, c, d, e]: [c_long; 5]) -> c_int {
    // SAFETY: pointers are to constant strings or to a pair of numbers that outlives the call, or null; what succeeds without
    // a filter makes a descriptor, a mapping or a segment that ends with the process.
    errno(unsafe { libc::syscall(number, a, b, c, d, e) })
}

fn errno(result: c_long) -> c_int {
    if result >= 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap_or(-1) }
}

pub(crate) fn open(path: &str, flags: c_int) -> c_int {
    let path = CString::new(path).unwrap();
    call(libc::SYS_openat, [libc::AT_FDCWD.into(), path.as_ptr() as c_long, (flags | libc::O_CLOEXEC).into(), 0o600, 0])
}

fn connect(port: u16) -> c_int {
    error_of(std::net::TcpStream::connect(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).err())
}

fn bind(port: u16) -> c_int {
    error_of(std::net::TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).err())
}

fn error_of(error: Option<std::io::Error>) -> c_int {
    error.map_or(0, |error| error.raw_os_error().unwrap_or(-1))
}

fn fast_open(port: u16) -> c_int {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: the address is as long as is said; one byte is sent.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        errno(libc::syscall(
            libc::SYS_sendto,
            socket,
            c"x".as_ptr(),
            1,
            libc::MSG_FASTOPEN,
            &raw const address,
            size_of::<libc::sockaddr_in>(),
        ))
    }
}
