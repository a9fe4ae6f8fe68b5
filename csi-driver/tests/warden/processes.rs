// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The built program: three processes, what each may do, and who outlives whom. Needs root.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::ground::Ground;

const PROGRAM: &str = env!("CARGO_BIN_EXE_evanesce-csi");

/// The started program; killed with everything it started when the test is over.
struct Program {
    warden: Child,
    log: BufReader<ChildStderr>,
}

impl Program {
    fn start(ground: &Ground, more: &[&str]) -> Self {
        Self::start_with(Command::new(PROGRAM), ground, more)
    }

    fn start_with(mut command: Command, ground: &Ground, more: &[&str]) -> Self {
        let mut warden = command
            .env_clear()
            .args(arguments(ground))
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(warden.stderr.take().unwrap());
        Self { warden, log }
    }

    /// Reads the log until a line has the words; returns the lines up to it.
    fn wait_for(&mut self, words: &str) -> String {
        let mut seen = String::new();
        loop {
            let start = seen.len();
            assert_ne!(self.log.read_line(&mut seen).unwrap(), 0, "the log ended without {words:?}:\n{seen}");
            if seen[start..].contains(words) {
                return seen;
            }
        }
    }

    fn ready(&mut self) -> (Process, Process) {
        self.wait_for("engine half ready");
        let launcher = child_of(self.warden.id(), "evanesce-csi-launcher");
        let engine = child_of(launcher.pid, "evanesce-csi-engine");
        (launcher, engine)
    }

    fn warden(&self) -> Process {
        Process::of(self.warden.id())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.warden.id().cast_signed()).unwrap(), signal).unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.warden.kill();
        let _ = self.warden.wait();
    }
}

fn arguments(ground: &Ground) -> Vec<String> {
    let flag = |name: &str, path: &str| format!("--{name}={}", ground.path(path).display());
    vec![
        "--node-name=n".into(),
        flag("csi-socket", "csi/csi.sock"),
        flag("registration-dir", "registration"),
        flag("pods-dir", "pods"),
        flag("state-dir", "state"),
        flag("classes-dir", "classes"),
        flag("credentials-dir", "credentials"),
        "--http-address=none".into(),
        "--audit=none".into(),
        "--log-format=json".into(),
    ]
}

/// A process, held, so that its number cannot come to mean another.
struct Process {
    pid: u32,
    pidfd: OwnedFd,
}

impl Process {
    fn of(pid: u32) -> Self {
        let pidfd = pidfd_open(Pid::from_raw(pid.cast_signed()).unwrap(), PidfdFlags::empty()).unwrap();
        Self { pid, pidfd }
    }

    fn status(&self) -> HashMap<String, String> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        status.lines().filter_map(|line| line.split_once(":\t")).map(|(k, v)| (k.into(), v.trim().into())).collect()
    }

    fn kill(&self) {
        rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL).unwrap();
    }

    /// Waits until it has ended; fails if it does not.
    fn has_ended(&self) {
        let long = Timespec { tv_sec: 20, tv_nsec: 0 };
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        assert_eq!(poll(&mut fds, Some(&long)).unwrap(), 1, "process {} still runs", self.pid);
    }
}

fn child_of(pid: u32, name: &str) -> Process {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    for child in children.split_ascii_whitespace() {
        let arguments = fs::read(format!("/proc/{child}/cmdline")).unwrap();
        if arguments.split(|byte| *byte == 0).next() == Some(name.as_bytes()) {
            return Process::of(child.parse().unwrap());
        }
    }
    panic!("process {pid} has no child {name}");
}

#[test]
fn each_process_may_do_what_it_is_for_and_no_more() {
    let ground = Ground::new();
    let mut program = Program::start(&ground, &[]);
    let (launcher, engine) = program.ready();

    let all_ids = |id: &str| [id; 4].join("\t");
    let status = engine.status();
    assert_eq!((&status["Uid"], &status["Gid"]), (&all_ids("60999"), &all_ids("60999")));
    assert_eq!(status["Groups"], "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    assert_eq!((status["NoNewPrivs"].as_str(), status["Seccomp"].as_str()), ("1", "2"));
    // Not dumpable: its files in /proc are root's.
    assert_eq!(fs::metadata(format!("/proc/{}/environ", engine.pid)).unwrap().uid(), 0);

    let status = launcher.status();
    assert_eq!(status["CapEff"], "00000000000400e0", "SYS_CHROOT, KILL, SETGID, SETUID");
    assert_eq!((status["CapBnd"].as_str(), status["Threads"].as_str()), ("00000000000400e0", "1"));
    assert_eq!(status["NoNewPrivs"], "1");

    let status = program.warden().status();
    assert_eq!(status["CapEff"], "0000000000200005", "SYS_ADMIN, DAC_READ_SEARCH, CHOWN");
    assert_eq!((status["NoNewPrivs"].as_str(), status["Seccomp"].as_str()), ("1", "2"));

    for socket in ["csi/csi.sock", "registration/csi.evanesce.dev@reg.sock", "state/csi.evanesce.dev/admin.sock"] {
        let metadata = fs::metadata(ground.path(socket)).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (0o600, 0), "{socket}");
    }
}

#[test]
fn no_descriptor_that_the_warden_was_left_with_reaches_the_engine_half() {
    let ground = Ground::new();
    let leaked = fs::File::create(ground.path("leaked")).unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let mut program = Program::start(&ground, &[]);
    let (launcher, engine) = program.ready();
    let holds_it = |process: &Process| {
        let directory = format!("/proc/{}/fd", process.pid);
        // A descriptor may be closed between the two looks.
        let mut links = fs::read_dir(directory).unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        links.any(|path| path.ends_with("leaked"))
    };
    assert!(holds_it(&program.warden()), "or the rest proves nothing");
    assert!(!holds_it(&launcher) && !holds_it(&engine));
}

#[test]
fn nobody_outlives_the_warden() {
    let ground = Ground::new();
    let mut program = Program::start(&ground, &[]);
    let (launcher, engine) = program.ready();
    // Stopped, they cannot see that their channels are closed: only the kernel can end them.
    for process in [&engine, &launcher] {
        rustix::process::pidfd_send_signal(&process.pidfd, Signal::STOP).unwrap();
    }
    program.signal(Signal::KILL);
    launcher.has_ended();
    engine.has_ended();
}

#[test]
fn the_engine_half_does_not_outlive_the_launcher_and_the_warden_says_so() {
    let ground = Ground::new();
    let mut program = Program::start(&ground, &[]);
    let (launcher, engine) = program.ready();
    // Stopped, it cannot see that its channel is closed.
    rustix::process::pidfd_send_signal(&engine.pidfd, Signal::STOP).unwrap();
    launcher.kill();
    engine.has_ended();
    program.wait_for("the launcher is gone");
    assert_eq!(program.warden.wait().unwrap().code(), Some(1));
    assert!(!ground.path("csi/csi.sock").exists());
}

#[test]
fn a_killed_engine_half_is_started_again_behind_the_same_sockets() {
    let ground = Ground::new();
    let mut program = Program::start(&ground, &[]);
    let (_, first) = program.ready();
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    let before = inode(ground.path("csi/csi.sock"));
    first.kill();
    let log = program.wait_for("engine half ended");
    assert!(log.contains("SIGKILL"), "{log}");
    let (_, second) = program.ready();
    assert_ne!(first.pid, second.pid);
    assert_eq!(inode(ground.path("csi/csi.sock")), before);
    UnixStream::connect(ground.path("csi/csi.sock")).unwrap();
    // The key is the node's, not the engine half's; it stays where only root reads it.
    let key = fs::metadata(format!(
        "/proc/{}/root{}",
        program.warden.id(),
        ground.path("state/csi.evanesce.dev/key").display()
    ));
    assert_eq!(key.unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn asked_to_stop_it_drains_and_leaves_no_socket() {
    for signal in [Signal::TERM, Signal::INT] {
        let ground = Ground::new();
        let mut program = Program::start(&ground, &[]);
        let (launcher, engine) = program.ready();
        program.signal(signal);
        // By itself, with its audit log written to the end, and not by a kill.
        assert!(program.wait_for("engine half ended").contains("exit status: 0"));
        assert_eq!(program.warden.wait().unwrap().code(), Some(0));
        engine.has_ended();
        launcher.has_ended();
        for (directory, stays) in [("csi", &["leases"][..]), ("registration", &[])] {
            let there: Vec<_> =
                fs::read_dir(ground.path(directory)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(there, stays, "{directory}");
        }
        assert!(
            ground.path("state/csi.evanesce.dev/key").exists()
                && !ground.path("state/csi.evanesce.dev/admin.sock").exists()
        );
    }
}

#[test]
fn a_second_warden_leaves_the_first_alone_and_a_successor_of_a_killed_one_starts() {
    let ground = Ground::new();
    let mut first = Program::start(&ground, &[]);
    let (launcher, engine) = first.ready();
    let mut second = Program::start(&ground, &[]);
    let log = second.wait_for("another process serves this socket");
    assert!(log.contains("--csi-socket"), "{log}");
    assert_eq!(second.warden.wait().unwrap().code(), Some(1));
    UnixStream::connect(ground.path("csi/csi.sock")).unwrap();

    // Its engine half holds the sockets a moment longer: the successor waits for that.
    first.signal(Signal::KILL);
    Program::start(&ground, &[]).ready();
    launcher.has_ended();
    engine.has_ended();
}

#[test]
fn under_a_single_uid_the_engine_half_still_has_no_capability() {
    let ground = Ground::new();
    let mut program = Program::start(&ground, &["--single-uid"]);
    let log = program.wait_for("single uid");
    assert!(log.contains("reduced"), "{log}");
    let (launcher, engine) = program.ready();
    for (process, capabilities) in [(&launcher, "0000000000040000"), (&engine, "0000000000000000")] {
        let status = process.status();
        assert_eq!(status["CapEff"], capabilities, "SYS_CHROOT alone, or none");
        assert_eq!((status["CapPrm"].as_str(), status["NoNewPrivs"].as_str()), (capabilities, "1"));
    }
    assert_eq!(engine.status()["Seccomp"], "2");
    engine.kill();
    program.ready();
}

#[test]
fn in_a_user_namespace_it_says_what_is_reduced_and_works() {
    let ground = Ground::new();
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--mount", "--", PROGRAM]);
    let mut program = Program::start_with(unshare, &ground, &[]);
    let log = program.wait_for("file owners");
    for reduced in ["swap", "single uid"] {
        assert!(log.contains(reduced), "{log}");
    }
    let (_, engine) = program.ready();
    assert_eq!(engine.status()["CapEff"], "0000000000000000");
}

#[test]
fn what_is_missing_is_named_with_its_cure() {
    let ground = Ground::new();
    for (flag, value, says) in [
        ("--pods-dir", "absent", "--pods-dir"),
        ("--credentials-dir", "absent", "--credentials-dir"),
        ("--registration-dir", "absent", "--registration-dir"),
        ("--csi-socket", "absent/csi.sock", "--csi-socket"),
        ("--journal-dir", "absent/leases", "--journal-dir"),
    ] {
        let assignment = format!("{flag}={}", ground.path(value).display());
        let arguments = arguments(&ground).into_iter().filter(|argument| !argument.starts_with(flag));
        let mut command = Command::new(PROGRAM);
        let output = command.env_clear().args(arguments).arg(assignment).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.lines().last().unwrap().contains(says), "{error}");
    }
    assert_eq!(fs::read_dir(ground.path("csi")).unwrap().count(), 0, "no socket stays behind");
}

#[test]
fn the_other_roles_refuse_to_be_started_by_hand() {
    use std::os::unix::process::CommandExt;
    for role in ["evanesce-csi-launcher", "evanesce-csi-engine"] {
        for arguments in [&[][..], &["1", "1"], &["x", "y"]] {
            let mut child = Command::new(PROGRAM)
                .arg0(role)
                .args(arguments)
                .stdin(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(1));
            let mut error = String::new();
            child.stderr.unwrap().read_to_string(&mut error).unwrap();
            assert!(error.starts_with(role) && error.lines().count() == 1, "{error}");
        }
    }
}
