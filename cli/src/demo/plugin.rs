// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The real node plugin, started as a container runtime would.
//!
//! Installed, that is `evanesce-csi` beside this program. From a source tree it is this program again: it links the
//! plugin and takes its role from the name it is started under.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, anyhow, bail, ensure};
use evanesce_csi::Role;
use evanesce_proto::csi::ProbeRequest;
use evanesce_proto::csi::identity_client::IdentityClient;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixStream;
use tonic::transport::Channel;

use super::ground::Ground;
use super::show::Show;
use super::{PATIENCE, reduced, tied, wait};

/// What the plugin logs, in the demo's folder.
pub(crate) const LOG: &str = "evanesce-csi.log";
/// The CSI driver name.
const DRIVER: &str = "csi.evanesce.dev";

/// A running node plugin.
pub(crate) struct Plugin {
    child: Child,
    folder: PathBuf,
    program: String,
    /// Shows audit events as they come; its end means that no process of the plugin is left, for all of them hold the
    /// other end of the pipe.
    reader: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Plugin {
    /// Starts it below `folder`, with one more `flag`, and waits until it is ready for kubelet. From now on its audit events are shown.
    pub(crate) async fn start(folder: &Path, ground: Ground, flag: String, show: Arc<Show>) -> anyhow::Result<Self> {
        for name in ["pods", "state", "registration"] {
            fs::create_dir_all(folder.join(name))?;
        }
        let (mut command, program) = program()?;
        // Its settings are flags or variables; those of whoever looks at the demo are not meant for it.
        command.env_clear().args(["--driver-name", DRIVER, "--node-name", "demo"]);
        for (flag, name) in [
            ("--csi-socket", "csi.sock"),
            ("--registration-dir", "registration"),
            ("--pods-dir", "pods"),
            ("--classes-dir", "classes"),
            ("--credentials-dir", "credentials"),
            ("--state-dir", "state"),
        ] {
            command.arg(flag).arg(folder.join(name));
        }
        command.arg(flag).args(["--http-address", "none", "--audit", "stdout", "--log-format", "json"]);
        if ground == Ground::Rootless {
            command.arg("--single-uid");
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(fs::File::create(folder.join(LOG))?);
        let child = tied::spawn(&mut command).with_context(|| format!("{program} cannot be started"))?;
        let mut plugin = Self { child, folder: folder.to_owned(), program, reader: None };
        let events = plugin.child.stdout.take().context("the plugin has a standard output")?;
        let reader = thread::Builder::new().name("audit".into()).spawn(move || show_events(events, &show))?;
        plugin.reader = Some(reader);
        plugin.until_ready().await?;
        Ok(plugin)
    }

    /// Which program it is.
    pub(crate) fn program(&self) -> &str {
        &self.program
    }

    /// What it misses here, by its own account.
    pub(crate) fn reduced(&self) -> anyhow::Result<Vec<String>> {
        Ok(reduced::in_log(&fs::read_to_string(self.folder.join(LOG))?))
    }

    /// The socket that kubelet calls.
    pub(crate) fn csi_socket(&self) -> PathBuf {
        self.folder.join("csi.sock")
    }

    /// The socket that kubelet's plugin watcher finds.
    pub(crate) fn registration_socket(&self) -> PathBuf {
        self.folder.join("registration").join(format!("{DRIVER}@reg.sock"))
    }

    /// Whether it remembers a volume.
    pub(crate) fn has_records(&self) -> anyhow::Result<bool> {
        let records = self.folder.join("state").join(DRIVER);
        let entries = fs::read_dir(&records).with_context(|| records.display().to_string())?;
        let names: Vec<_> = entries.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<_>>()?;
        Ok(names.iter().any(|name| name.to_string_lossy().starts_with("csi-")))
    }

    /// A new connection to one of its sockets.
    pub(crate) async fn connect(&self, socket: &Path) -> anyhow::Result<Channel> {
        Ok(crate::socket::channel(UnixStream::connect(socket).await?).await?)
    }

    /// Ends it in order, and waits until the last audit event is shown and none of its processes is left.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let status = self.until_ended().await?;
        ensure!(status.success(), "the plugin did not end well: {status}");
        for socket in [self.csi_socket(), self.registration_socket()] {
            ensure!(!socket.exists(), "the socket {} is still there", socket.display());
        }
        self.read_to_the_end()
    }

    async fn until_ended(&mut self) -> anyhow::Result<ExitStatus> {
        let in_vain = || format!("the plugin, or a process of it, runs on {PATIENCE:?} after it was asked to end");
        wait::until(in_vain, async || {
            let reader_ended = self.reader.as_ref().is_none_or(JoinHandle::is_finished);
            if reader_ended { Ok(self.child.try_wait()?) } else { Ok(None) }
        })
        .await
    }

    fn read_to_the_end(&mut self) -> anyhow::Result<()> {
        let Some(reader) = self.reader.take() else { return Ok(()) };
        reader.join().map_err(|_| anyhow!("the reader of audit events ended early"))?
    }

    /// Waits until the probe says ready.
    async fn until_ready(&mut self) -> anyhow::Result<()> {
        wait::until(
            || format!("the plugin is not ready after {PATIENCE:?}"),
            async || {
                if let Some(status) = self.child.try_wait()? {
                    bail!("the plugin ended at its start: {status}");
                }
                let Ok(channel) = self.connect(&self.csi_socket()).await else { return Ok(None) };
                let answer = IdentityClient::new(channel).probe(ProbeRequest {}).await;
                Ok(answer.is_ok_and(|answer| answer.get_ref().ready == Some(true)).then_some(()))
            },
        )
        .await
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        // After an error or a signal; its other processes end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.read_to_the_end();
    }
}

/// Ends with the last process of the plugin.
fn show_events(events: ChildStdout, show: &Show) -> anyhow::Result<()> {
    let mut result = Ok(());
    for line in BufReader::new(events).lines() {
        // Reads on after an error: a plugin whose pipe nobody empties waits for ever.
        let shown = show.event(&line?).context("an audit event cannot be shown");
        result = result.and(shown);
    }
    result
}

/// The program to start: `evanesce-csi` beside this one, or this one in that role; and how it is told.
fn program() -> anyhow::Result<(Command, String)> {
    let own = std::env::current_exe().context("this program's own file is not known")?;
    let beside = own.with_file_name(Role::Warden.name());
    let runs = |metadata: fs::Metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
    if fs::metadata(&beside).is_ok_and(runs) {
        return Ok((Command::new(&beside), beside.display().to_string()));
    }
    let mut command = Command::new("/proc/self/exe");
    command.arg0(Role::Warden.name());
    Ok((command, format!("{}, in that role", own.display())))
}
