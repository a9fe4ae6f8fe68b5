// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What hardening does to a process, read by the kernel's own account in `/proc/self/status`.
//!
//! Needs root with full capabilities, as the privileged half of the node plugin has: what it drops it must have had.

#![expect(
    unsafe_code,
    reason = "each case runs in a forked child, which alone is single-threaded under a test harness"
)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use evanesce_runtime::arena::{Arena, ArenaError, ArenaKind};
use evanesce_runtime::harden::{
    CapabilitySet, HardenError, die_with_parent, drop_all_capabilities, harden_process, keep_only_capabilities,
    no_new_privs,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, getpid, kill_process, setrlimit, waitpid};

/// Runs `body` in a forked child and gives back what it wrote, and how it ended.
fn in_child(body: impl FnOnce(&mut PipeWriter)) -> String {
    let (mut reader, mut writer) = pipe().unwrap();
    let child = fork(|| body(&mut writer));
    drop(writer);
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    let (_, status) = waitpid(Some(child), WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0), "the child failed after saying: {said}");
    said
}

/// Forks; the child runs `body` and ends there, with status 1 if it panicked. What was moved into `body` is the child's:
/// here it is dropped.
fn fork(body: impl FnOnce()) -> Pid {
    // SAFETY: the child has one thread, glibc leaves its heap usable, and it never returns into the harness.
    match unsafe { libc::fork() } {
        0 => {
            let failed = catch_unwind(AssertUnwindSafe(body)).is_err();
            // SAFETY: ends the child without running the harness's exit handlers.
            unsafe { libc::_exit(i32::from(failed)) }
        }
        child => Pid::from_raw(child).unwrap(),
    }
}

fn status() -> String {
    std::fs::read_to_string("/proc/self/status").unwrap()
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap().trim()
}

fn capabilities(status: &str, name: &str) -> u64 {
    u64::from_str_radix(field(status, name), 16).unwrap()
}

/// What a child does that is to be killed. It ends by itself long after the test has failed.
fn linger() {
    let _ = poll(&mut [], Some(&Timespec { tv_sec: 30, tv_nsec: 0 }));
}

/// Waits until every writer of the pipe is gone, and says whether that came within ten seconds.
fn hung_up(reader: &PipeReader) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(reader.as_fd(), PollFlags::IN)];
    let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
    poll(&mut polled, Some(&limit)).unwrap() == 1 && polled[0].revents().contains(PollFlags::HUP)
}

#[test]
fn a_hardened_process_cannot_be_dumped_or_traced_and_its_files_are_its_own() {
    let said = in_child(|out| {
        harden_process().unwrap();
        // SAFETY: asks for a flag of this process.
        let dumpable = unsafe { libc::prctl(libc::PR_GET_DUMPABLE) };
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let core: Vec<_> = core.split_whitespace().skip(4).take(2).collect();
        let status = status();
        write!(out, "dumpable {dumpable}, core {}, umask {}", core.join(" "), field(&status, "Umask")).unwrap();
    });
    assert_eq!(said, "dumpable 0, core 0 0, umask 0077");
}

#[test]
fn dropping_all_capabilities_leaves_none_in_any_set() {
    let status = in_child(|out| {
        drop_all_capabilities().unwrap();
        out.write_all(status().as_bytes()).unwrap();
    });
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(capabilities(&status, set), 0, "{set}");
    }
}

#[test]
fn only_the_named_capabilities_are_kept() {
    let keep = CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE;
    let status = in_child(|out| {
        // An ambient capability outlives `capset` on its own account unless it is cleared.
        let held = rustix::thread::capabilities(None).unwrap();
        let inheritable = CapabilitySet::SYS_ADMIN;
        rustix::thread::set_capabilities(None, rustix::thread::CapabilitySets { inheritable, ..held }).unwrap();
        rustix::thread::configure_capability_in_ambient_set(CapabilitySet::SYS_ADMIN, true).unwrap();
        keep_only_capabilities(keep).unwrap();
        out.write_all(status().as_bytes()).unwrap();
    });
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(capabilities(&status, set), keep.bits(), "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(capabilities(&status, set), 0, "{set}");
    }
}

#[test]
fn a_capability_that_is_not_held_is_named() {
    let said = in_child(|out| {
        keep_only_capabilities(CapabilitySet::KILL).unwrap();
        let error = keep_only_capabilities(CapabilitySet::KILL | CapabilitySet::SYS_ADMIN).unwrap_err();
        write!(out, "{error}").unwrap();
    });
    assert_eq!(
        said,
        "the process needs capabilities that it was not given: CAP_SYS_ADMIN; run it as a privileged container"
    );
}

#[test]
fn a_process_without_setpcap_can_still_drop_the_rest() {
    let status = in_child(|out| {
        keep_only_capabilities(CapabilitySet::KILL).unwrap();
        no_new_privs().unwrap();
        drop_all_capabilities().unwrap();
        out.write_all(status().as_bytes()).unwrap();
    });
    assert_eq!(capabilities(&status, "CapPrm"), 0);
    assert_eq!(field(&status, "NoNewPrivs"), "1");
}

#[test]
fn privileges_are_not_dropped_while_another_thread_keeps_them() {
    let said = in_child(|out| {
        let (answer, hold) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || hold.recv());
        for refused in [no_new_privs(), drop_all_capabilities()] {
            assert!(matches!(refused, Err(HardenError::Threads(2))));
        }
        drop(answer);
        let _ = other.join();
        out.write_all(status().as_bytes()).unwrap();
    });
    assert_ne!(capabilities(&said, "CapPrm"), 0, "and nothing was dropped on the way to the refusal");
}

#[test]
fn a_child_dies_with_its_parent() {
    let (life, alive) = pipe().unwrap();
    let parent = fork(move || {
        let me = Pid::as_raw(Some(getpid()));
        let (mut ready, mut say_ready) = pipe().unwrap();
        fork(move || {
            die_with_parent(me).unwrap();
            say_ready.write_all(b"!").unwrap();
            linger();
            drop(alive);
        });
        ready.read_exact(&mut [0]).unwrap();
    });
    waitpid(Some(parent), WaitOptions::empty()).unwrap();
    assert!(hung_up(&life), "the child outlived its parent");
}

#[test]
fn a_child_whose_parent_is_already_another_says_so() {
    let said = in_child(|out| {
        let error = die_with_parent(1_000_000_000).unwrap_err();
        assert!(matches!(error, HardenError::Orphan(_)));
        write!(out, "{error}").unwrap();
    });
    assert_eq!(said, "the parent process 1000000000 is gone");
}

#[test]
fn an_arena_above_the_limit_on_locked_memory_names_the_limit() {
    let said = in_child(|out| {
        drop_all_capabilities().unwrap();
        setrlimit(Resource::Memlock, Rlimit { current: Some(65_536), maximum: Some(65_536) }).unwrap();
        for kind in [ArenaKind::SecretMemory, ArenaKind::LockedMemory] {
            let refused = Arena::open_as(kind, 1 << 20).map(|_| ());
            assert_eq!(refused, Err(ArenaError::LockLimit { wanted: 1 << 20, limit: 65_536 }), "{kind}");
        }
        Arena::open(65_536).unwrap();
        write!(out, "{}", Arena::open(1 << 20).unwrap_err()).unwrap();
    });
    assert!(said.contains("RLIMIT_MEMLOCK is 65536 bytes") && said.contains("`ulimit -l`"), "{said}");
}

#[test]
fn another_process_of_the_same_user_cannot_read_a_hardened_ones_memory() {
    let (mut ready, mut say_ready) = pipe().unwrap();
    let child = fork(move || {
        harden_process().unwrap();
        say_ready.write_all(b"!").unwrap();
        linger();
    });
    ready.read_exact(&mut [0]).unwrap();
    let said = in_child(|out| {
        // Root without `CAP_SYS_PTRACE`, which is what another container's root would be.
        keep_only_capabilities(CapabilitySet::SYS_ADMIN | CapabilitySet::DAC_OVERRIDE).unwrap();
        let opened = File::open(format!("/proc/{}/mem", child.as_raw_nonzero()));
        write!(out, "{:?}", opened.map(|_| ()).map_err(|error| error.kind())).unwrap();
    });
    kill_process(child, Signal::KILL).unwrap();
    waitpid(Some(child), WaitOptions::empty()).unwrap();
    assert_eq!(said, "Err(PermissionDenied)");
}
