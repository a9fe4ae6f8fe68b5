// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The real node plugin, started as a container runtime would.
//!
//! Installed, that is `evanesce-csi` beside this program. From a source tree it is this program again: it links the
//! plugin and takes its role from the name it is started under.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use evanesce_csi::Role;
use evanesce_proto::csi::ProbeRequest;
use evanesce_proto::csi::identity_client::IdentityClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use super::PATIENCE;
use super::ground::Ground;
use super::show::Show;

/// The CSI driver name.
const DRIVER: &str = "csi.evanesce.dev";

/// A running node plugin.
pub(crate) struct Plugin {
    child: Child,
    folder: PathBuf,
    program: String,
    events: std::sync::mpsc::Receiver<String>,
}

impl Plugin {
    /// Starts it below `folder` and waits until it is ready for kubelet.
    pub(crate) async fn start(folder: &Path, ground: Ground, show: &mut Show) -> anyhow::Result<Self> {
        for name in ["pods", "classes", "credentials", "state", "registration"] {
            fs::create_dir_all(folder.join(name))?;
        }
        // The engine half has a uid of its own and reads classes by itself.
        for path in [folder, &folder.join("classes")] {
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        }
        let (mut command, program) = plugin()?;
        let at = |name: &str| folder.join(name);
        command
            .arg("--driver-name")
            .arg(DRIVER)
            .arg("--node-name")
            .arg("demo")
            .arg("--csi-socket")
            .arg(at("csi.sock"))
            .arg("--registration-dir")
            .arg(at("registration"))
            .arg("--pods-dir")
            .arg(at("pods"))
            .arg("--classes-dir")
            .arg(at("classes"))
            .arg("--credentials-dir")
            .arg(at("credentials"))
            .arg("--state-dir")
            .arg(at("state"))
            .arg("--http-address")
            .arg("none")
            .arg("--audit")
            .arg("stdout");
        if ground == Ground::Rootless {
            command.arg("--single-uid");
        }
        let log = fs::File::create(at("evanesce-csi.log"))?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("{program} cannot be started"))?;
        let stdout = child.stdout.take().context("the plugin has a standard output")?;
        let (send, events) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            use std::io::BufRead as _;
            // Ends with the plugin, or with the demo.
            for line in std::io::BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let mut plugin = Self { child, folder: folder.to_owned(), program, events };
        plugin.until_ready(show).await?;
        Ok(plugin)
    }

    /// Which program it is.
    pub(crate) fn program(&self) -> &str {
        &self.program
    }

    /// The socket that kubelet calls.
    pub(crate) fn csi_socket(&self) -> PathBuf {
        self.folder.join("csi.sock")
    }

    /// The socket that kubelet's plugin watcher finds.
    pub(crate) fn registration_socket(&self) -> PathBuf {
        self.folder.join("registration").join(format!("{DRIVER}@reg.sock"))
    }

    /// A new connection to one of its sockets.
    pub(crate) async fn connect(&self, socket: &Path) -> anyhow::Result<Channel> {
        let socket = socket.to_owned();
        let connect = move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        };
        Ok(Endpoint::from_static("http://localhost").connect_with_connector(tower::service_fn(connect)).await?)
    }

    /// Shows what the audit said since.
    pub(crate) fn show_events(&mut self, show: &mut Show) {
        while let Ok(line) = self.events.try_recv() {
            show.event(&line);
        }
    }

    /// Ends it in order and shows the last audit events; how many there were.
    pub(crate) async fn stop(mut self, show: &mut Show, limit: Duration) -> anyhow::Result<usize> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = tokio::task::spawn_blocking(move || {
            let status = self.child.wait();
            (status, self)
        });
        let (status, plugin) = tokio::time::timeout(limit, status).await.context("the plugin did not stop")??;
        // The pipe is closed: the thread sends what is left and ends, and with it the channel.
        while let Ok(line) = plugin.events.recv() {
            show.event(&line);
        }
        let status = status?;
        if !status.success() {
            bail!("the plugin did not end well: {status}");
        }
        Ok(show.events())
    }

    /// Waits until the probe says ready.
    async fn until_ready(&mut self, show: &mut Show) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                bail!("the plugin ended at its start: {status}");
            }
            self.show_events(show);
            if let Ok(channel) = self.connect(&self.csi_socket()).await
                && let Ok(answer) = IdentityClient::new(channel).probe(ProbeRequest {}).await
                && answer.get_ref().ready == Some(true)
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("the plugin is not ready after {PATIENCE:?}")
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        // After an error. Its other half ends with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program to start: `evanesce-csi` beside this one, or this one in that role.
fn plugin() -> anyhow::Result<(Command, String)> {
    let own = std::env::current_exe().context("this program's own file is not known")?;
    let beside = own.with_file_name(Role::Warden.name());
    if beside.is_file() {
        return Ok((Command::new(&beside), beside.display().to_string()));
    }
    let mut command = Command::new("/proc/self/exe");
    command.arg0(Role::Warden.name());
    Ok((command, "this program, in that role".to_owned()))
}
