// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The built `evanesce-csi`, running below a directory of its own, with the test in the container runtime's place.

use std::ffi::OsString;
use std::fs::{self, OpenOptions, Permissions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use evanesce_engine::crash::REACHED;
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::child::Child;
use crate::processes::Process;
use crate::scratch::Scratch;
use crate::{binaries, wait};

/// The name in the `CSIDriver` object.
pub const DRIVER: &str = "csi.evanesce.dev";

/// The node's name.
pub const NODE: &str = "node-1.test";

/// `argv[0]` of the half that talks to the network.
const ENGINE: &str = "evanesce-csi-engine";

/// `argv[0]` of the process that starts it.
const LAUNCHER: &str = "evanesce-csi-launcher";

/// How to start the plugin.
#[derive(Debug, Clone)]
pub struct Options {
    /// The log filter, for every process of the plugin.
    pub log: String,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// Ports of backends that classes will name later; those that they name at the start are found.
    pub ports: Vec<u16>,
    /// System calls that the kernel is to lack, by name (`src/bin/without.rs`).
    pub without: Vec<&'static str>,
    /// The program with crash points instead of the real one.
    pub crash_points: bool,
    /// A program and its arguments that start what comes after them; empty for none.
    pub under: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        // Everything, also of dependencies: what a test cannot see leak, it cannot find.
        Self {
            log: "trace".into(),
            arguments: Vec::new(),
            ports: Vec::new(),
            without: Vec::new(),
            crash_points: false,
            under: Vec::new(),
        }
    }
}

/// The running plugin. On drop all of its processes are killed; its mounts go with the [`Scratch`].
pub struct Plugin {
    warden: Child,
    files: Files,
    options: Options,
    client: reqwest::Client,
    started: Instant,
}

/// Where everything of one plugin is.
#[derive(Debug, Clone)]
struct Files {
    csi_socket: PathBuf,
    registration: PathBuf,
    pods: PathBuf,
    classes: PathBuf,
    credentials: PathBuf,
    state: PathBuf,
    audit: PathBuf,
    log: PathBuf,
    crash: PathBuf,
    http: u16,
}

impl Plugin {
    /// Starts it below `scratch` and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be built or exits before it is ready.
    pub async fn start(scratch: &Scratch, options: Options) -> Result<Self> {
        let mut plugin = Self::spawn(scratch, options)?;
        plugin.ready().await?;
        Ok(plugin)
    }

    /// Starts it below `scratch` and waits for nothing.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn spawn(scratch: &Scratch, options: Options) -> Result<Self> {
        let files = Files::below(scratch)?;
        // A client cannot be built without a provider, even for plain HTTP.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Whoever answered the last question may be dead by the next.
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build()?;
        let command = command(&files, &options)?;
        let started = Instant::now();
        let warden = Child::spawn(command, &files.log)?;
        Ok(Self { warden, files, options, client, started })
    }

    /// When it was started; of no use after a restart.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The socket that kubelet calls.
    #[must_use]
    pub fn csi_socket(&self) -> &Path {
        &self.files.csi_socket
    }

    /// The socket that kubelet's plugin watcher finds.
    #[must_use]
    pub fn registration_socket(&self) -> PathBuf {
        // The name holds an `@`: without one, the authority that kubelet sends is none (see `kubelet::dial`).
        self.files.registration.join(format!("{DRIVER}@reg.sock"))
    }

    /// The socket that the operator asks.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.files.state.join(DRIVER).join("admin.sock")
    }

    /// What `evanesce volumes` says of it, with these arguments more.
    ///
    /// # Errors
    /// When it cannot be built or started.
    pub fn volumes(&self, arguments: &[&str]) -> Result<Output> {
        self.ask("volumes", arguments)
    }

    /// What `evanesce leases` says of it, with these arguments more.
    ///
    /// # Errors
    /// When it cannot be built or started.
    pub fn leases(&self, arguments: &[&str]) -> Result<Output> {
        self.ask("leases", arguments)
    }

    /// What `evanesce refresh` says and does, with these arguments more.
    ///
    /// # Errors
    /// When it cannot be built or started.
    pub fn refresh(&self, arguments: &[&str]) -> Result<Output> {
        self.ask("refresh", arguments)
    }

    fn ask(&self, verb: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(binaries::evanesce()?);
        command.env_clear().arg(verb).arg("--state-dir").arg(&self.files.state).args(arguments);
        Ok(command.output()?)
    }

    /// Kubelet's directory of pods.
    #[must_use]
    pub fn pods(&self) -> &Path {
        &self.files.pods
    }

    /// The watched directory of classes.
    #[must_use]
    pub fn classes(&self) -> &Path {
        &self.files.classes
    }

    /// The directory of credentials files.
    #[must_use]
    pub fn credentials(&self) -> &Path {
        &self.files.credentials
    }

    /// The directory of records.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.files.state
    }

    /// Everything that its processes have printed, over restarts.
    #[must_use]
    pub fn log(&self) -> String {
        self.warden.output()
    }

    /// The audit events, oldest first.
    ///
    /// # Panics
    /// When a finished line is not JSON.
    #[must_use]
    pub fn audit(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.files.audit).unwrap_or_default();
        let finished = text.rfind('\n').map_or("", |end| &text[..end]);
        finished.lines().map(|line| serde_json::from_str(line).expect("an audit event is JSON")).collect()
    }

    /// The first process: what the container runtime started.
    #[must_use]
    pub fn warden(&self) -> Process {
        Process::new(self.warden.pid())
    }

    /// The process that starts the engine half.
    #[must_use]
    pub fn launcher(&self) -> Option<Process> {
        self.find(LAUNCHER)
    }

    /// The half that talks to the network, unless it is between two lives.
    #[must_use]
    pub fn engine(&self) -> Option<Process> {
        self.find(ENGINE)
    }

    fn find(&self, name: &str) -> Option<Process> {
        self.processes().into_iter().find(|process| process.name() == name)
    }

    /// Every process of the plugin.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        let warden = self.warden();
        [vec![warden], warden.descendants()].concat()
    }

    /// Kills the engine half and waits until the warden has started another that is ready.
    ///
    /// # Errors
    /// When the plugin exits instead.
    pub async fn kill_engine(&mut self) -> Result<()> {
        let before = wait::until_some("the engine half runs", || self.engine()).await;
        before.kill();
        wait::until("another engine half runs", || self.engine().is_some_and(|now| now != before)).await;
        self.ready().await
    }

    /// Kills the warden, and starts the plugin again once all of it is gone: as a container runtime does.
    ///
    /// # Errors
    /// When it does not start again.
    pub async fn kill_and_restart(&mut self) -> Result<()> {
        let family = self.processes();
        self.warden.kill();
        wait::until("all of the plugin is gone with the warden", || !family.iter().any(|each| each.is_running())).await;
        self.restart().await
    }

    /// Asks it to end, as a container runtime does, and waits until all of it is gone.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.warden.signal(Signal::TERM);
        self.ended().await
    }

    /// Waits until it has ended by itself, and all of it is gone.
    pub async fn ended(&mut self) -> ExitStatus {
        let family = self.processes();
        let status = self.warden.wait().await;
        wait::until("all of the plugin is gone with the warden", || !family.iter().any(|each| each.is_running())).await;
        status
    }

    /// Starts it again after it has ended.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.warden = Child::spawn(command(&self.files, &self.options)?, &self.files.log)?;
        self.ready().await
    }

    /// Whether the first process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.warden.exited().is_some()
    }

    /// Has whichever process first comes to this step die there, once, or with a `*` before it every process that comes to
    /// it; for [`Options::crash_points`].
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn crash_at(&self, step: &str) -> Result<()> {
        Ok(fs::write(&self.files.crash, step)?)
    }

    /// Whether the step of [`Plugin::crash_at`] is still to be reached, or whoever came to it has yet to die.
    #[must_use]
    pub fn is_to_crash(&self) -> bool {
        let step = fs::read_to_string(&self.files.crash).unwrap_or_default();
        let Some(reached) = step.strip_prefix(REACHED) else { return !step.is_empty() };
        let dies = reached.split(' ').next().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
        dies.is_some_and(|pid| Process::new(pid).is_running())
    }

    /// Waits until `/readyz` says yes.
    ///
    /// # Errors
    /// When the plugin exits first.
    pub async fn ready(&mut self) -> Result<()> {
        let answered = wait::until_ready("the plugin is ready", async || match self.http("readyz").await {
            Ok(answer) if answer.status().is_success() => Some(true),
            _ => self.warden.exited().map(|_| false),
        });
        if !answered.await {
            bail!("evanesce-csi has exited:\n{}", self.log());
        }
        Ok(())
    }

    /// Everything that `/metrics` shows.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self) -> Result<String> {
        Ok(self.http("metrics").await?.error_for_status()?.text().await?)
    }

    /// What the plugin's own HTTP server answers to a path.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn http(&self, path: &str) -> Result<reqwest::Response> {
        Ok(self.client.get(format!("http://127.0.0.1:{}/{path}", self.files.http)).send().await?)
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let family = self.processes();
        self.warden.kill();
        // They die with the warden by themselves; this is for the case that a test has just broken that.
        for process in family {
            if [ENGINE, LAUNCHER].contains(&process.name().as_str()) {
                process.kill();
            }
        }
        if std::thread::panicking() {
            print_end_of(&self.files.log);
            return;
        }
        // In a build for tests a system call that is on no list ends the process; here every test looks for that.
        let died = self.warden.exited().and_then(|status| status.signal()) == Some(Signal::SYS.as_raw());
        assert!(!died && !self.log().contains("SIGSYS"), "a process made a system call that is on no list");
    }
}

impl Files {
    fn below(scratch: &Scratch) -> Result<Self> {
        let plugin = scratch.directory("plugin")?;
        let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?.local_addr()?.port();
        Ok(Self {
            csi_socket: plugin.join("csi.sock"),
            registration: scratch.directory("registry")?,
            pods: scratch.directory("pods")?,
            classes: scratch.directory("classes")?,
            credentials: scratch.directory("credentials")?,
            state: scratch.directory("state")?,
            audit: scratch.path().join("audit.jsonl"),
            log: scratch.path().join("log"),
            crash: scratch.path().join("crash"),
            http,
        })
    }
}

/// The command line: the only place that knows it.
fn command(files: &Files, options: &Options) -> Result<Command> {
    let mut line: Vec<OsString> = options.under.iter().map(OsString::from).collect();
    if !options.without.is_empty() {
        line.extend([binaries::without()?.into(), options.without.join(",").into(), "--".into()]);
    }
    let program = if options.crash_points { binaries::evanesce_csi_crash_points()? } else { binaries::evanesce_csi()? };
    line.push(program.into());
    let (program, arguments) = line.split_first().context("the plugin is at the end of it")?;
    let mut command = Command::new(program);
    command.args(arguments);
    command.env_clear().env("RUST_BACKTRACE", "1");
    if options.crash_points {
        // Every process opens it, also one without privileges.
        let file = OpenOptions::new().create(true).append(true).open(&files.crash)?;
        file.set_permissions(Permissions::from_mode(0o666))?;
        command.env("EVANESCE_CRASH_FILE", &files.crash);
    }
    command.args(["--driver-name", DRIVER, "--node-name", NODE]);
    for (flag, path) in [
        ("--csi-socket", &files.csi_socket),
        ("--registration-dir", &files.registration),
        ("--kubelet-csi-socket", &files.csi_socket),
        ("--pods-dir", &files.pods),
        ("--classes-dir", &files.classes),
        ("--credentials-dir", &files.credentials),
        ("--state-dir", &files.state),
    ] {
        command.arg(flag).arg(path);
    }
    command.arg("--audit").arg(format!("file:{}", files.audit.display()));
    command.arg("--http-address").arg(format!("127.0.0.1:{}", files.http));
    let ports: Vec<_> = options.ports.iter().copied().chain(ports_of_classes(&files.classes)?).collect();
    if !ports.is_empty() {
        let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
        command.arg("--backend-ports").arg(ports.join(","));
    }
    command.args(["--log", &options.log]);
    command.args(&options.arguments);
    Ok(command)
}

/// The ports of the backends that the classes name now.
fn ports_of_classes(classes: &Path) -> Result<Vec<u16>> {
    let mut ports = Vec::new();
    for entry in fs::read_dir(classes)? {
        let path = entry?.path();
        let text = if path.is_file() { fs::read_to_string(path)? } else { String::new() };
        for address in text.split("://").skip(1) {
            let authority = address.split(|end: char| !end.is_ascii_alphanumeric() && !".:[]-".contains(end)).next();
            let port: Option<u16> = authority.and_then(|authority| authority.rsplit_once(':')?.1.parse().ok());
            ports.extend(port);
        }
    }
    Ok(ports)
}

/// A failed test shows what the plugin had to say.
#[expect(clippy::print_stderr, reason = "the output of a failed test")]
fn print_end_of(log: &Path) {
    const LINES: usize = 60;
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    eprintln!("--- the end of the plugin's log\n{}", lines[lines.len().saturating_sub(LINES)..].join("\n"));
}
