// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A folder with everything: a volume as the engine makes it, a configuration file, and the program beside them.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use evanesce_engine::generation::Generations;
use evanesce_engine::projection::{File, FilePath, Mode, Projection};
use evanesce_engine::secret::SecretBytes;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

/// Longer than anything takes, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_evanesce-sidecar");

/// Asks until there is an answer.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

pub(crate) struct Ground {
    folder: TempDir,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let ground = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(ground.path("secrets")).unwrap();
        fs::create_dir(ground.path("config")).unwrap();
        ground
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The lines of a file; none where there is no file.
    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) fn volume(&self) -> Generations {
        Generations::new(fs::File::open(self.path("secrets")).unwrap().into())
    }

    /// Makes generation `number` what the volume shows.
    pub(crate) fn swap(&self, number: u64) {
        let volume = self.volume();
        self.write(number);
        volume.show(number).unwrap();
        if let Some(before) = number.checked_sub(2) {
            volume.remove(before).unwrap();
        }
    }

    pub(crate) fn write(&self, number: u64) {
        let mut projection = Projection::default();
        let bytes = SecretBytes::from(format!("password {number}").as_bytes());
        let file = File { bytes, mode: Mode::GROUP_READS, uid: 0, gid: 0 };
        projection.add(FilePath::parse("password").unwrap(), file).unwrap();
        self.volume().write(number, &projection).unwrap();
    }

    /// A configuration with this volume; `hooks` are the items of a list, and `@` in them is this folder.
    pub(crate) fn config(&self, settings: &str, hooks: &[&str]) -> String {
        let here = self.folder.path().display().to_string();
        let hooks: String = hooks.iter().map(|hook| format!("      - {hook}\n")).collect();
        format!(
            "volumes:\n  - name: db\n    path: {here}/secrets\n    debounce: 10ms\n    minInterval: 0s\n    \
             retry: {{first: 100ms, most: 200ms}}\n{settings}    hooks:\n{}",
            hooks.replace('@', &here)
        )
    }

    /// Writes the configuration file in one step.
    pub(crate) fn write_config(&self, text: &str) {
        fs::write(self.path("config/new"), text).unwrap();
        fs::rename(self.path("config/new"), self.path("config/sidecar.yaml")).unwrap();
    }

    /// The command line of `run`, to be started.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(["run", "--log-format=json", "--config"]).arg(self.path("config/sidecar.yaml"));
        command.env("EVANESCE_SIDECAR_HTTP_ADDRESS", "none");
        command
    }

    pub(crate) fn start(&self, settings: &str, hooks: &[&str]) -> Program {
        self.write_config(&self.config(settings, hooks));
        let program = Program::start(self.command());
        program.wait_for_line("\"watching\"");
        program
    }

    /// A program of this folder's own name, so that no other test's is taken for it.
    pub(crate) fn script(&self, name: &str, body: &str) -> PathBuf {
        let path = self.path(name);
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(
            format!("#!/bin/sh\n{}\n", body.replace('@', &self.folder.path().display().to_string())).as_bytes(),
        )
        .unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o755)).unwrap();
        drop(file);
        path
    }
}

/// A process in a group of its own, which ends with this.
pub(crate) struct Application(pub(crate) Child);

impl Application {
    /// Started, and past the line of its script that makes `ready`.
    pub(crate) fn start(script: &Path, ready: &Path) -> Self {
        // A script that another thread's child still holds open for writing cannot be started: try again.
        let child = wait_for("the script can be started", || Command::new(script).process_group(0).spawn().ok());
        wait_for("the application is ready", || ready.exists().then_some(()));
        Self(child)
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = kill_process_group(pid(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

pub(crate) fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap()).unwrap()
}

type Lines = Arc<(Mutex<Vec<String>>, Condvar)>;

/// The program, and what it says.
pub(crate) struct Program {
    child: Child,
    lines: Lines,
}

impl Program {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let (lines, stderr) = (Lines::default(), child.stderr.take().unwrap());
        let heard = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                heard.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                heard.1.notify_all();
            }
        });
        Self { child, lines }
    }

    pub(crate) fn said(&self) -> Vec<String> {
        self.lines.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often it has said this.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.said().iter().filter(|line| line.contains(text)).count()
    }

    #[track_caller]
    pub(crate) fn wait_for_line(&self, text: &str) -> String {
        self.wait_for_lines(text, 1)
    }

    /// Waits until it has said this so often; the last time.
    #[track_caller]
    pub(crate) fn wait_for_lines(&self, text: &str, times: usize) -> String {
        let (lines, more) = &*self.lines;
        let few = |lines: &mut Vec<String>| lines.iter().filter(|line| line.contains(text)).count() < times;
        let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        let (lines, waited) = more.wait_timeout_while(lines, LIMIT, few).unwrap();
        assert!(!waited.timed_out(), "not said: {text}\n{}", lines.join("\n"));
        lines.iter().rfind(|line| line.contains(text)).cloned().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(pid(&self.child), signal).unwrap();
    }

    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait_for("the program ends", || self.child.try_wait().unwrap())
    }

    /// Asks it to end and waits for that.
    #[track_caller]
    pub(crate) fn end(&mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.wait().code(), Some(0), "{}", self.said().join("\n"));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Status and body of a GET.
pub(crate) fn get(port: u16, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
