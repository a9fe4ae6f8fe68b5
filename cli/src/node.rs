// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The node plugin beside us, asked over the socket that only root can use.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use evanesce_proto::node::node_admin_client::NodeAdminClient;
use tokio::net::UnixStream;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::args::{Output, Plugin};
use crate::output;
use crate::socket;

/// The plugin's socket, in a folder of its driver's name in the state directory.
const SOCKET: &str = "admin.sock";
/// How long the plugin may take. It has the answer at hand.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer in bytes: a hundred times that of a full node.
const LONGEST: usize = 64 << 20;

/// Asks.
pub(crate) type Client = NodeAdminClient<Channel>;

/// Why there is no answer, where that has an exit code of its own; after `sysexits.h`.
#[derive(Debug)]
enum Unanswered {
    /// No plugin runs here.
    NotHere(String),
    /// One does, and says nothing.
    Silent(String),
    /// It does not speak to us.
    NotRoot(String),
}

impl Unanswered {
    fn code(&self) -> u8 {
        match self {
            Self::NotHere(_) => 69,
            Self::Silent(_) => 75,
            Self::NotRoot(_) => 77,
        }
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::NotHere(why) | Self::Silent(why) | Self::NotRoot(why)) = self;
        f.write_str(why)
    }
}

/// Asks the plugin, which may take so long.
pub(crate) fn ask<T>(
    args: &Plugin,
    patience: Duration,
    question: impl AsyncFnOnce(Client) -> Result<Response<T>, Status>,
) -> anyhow::Result<T> {
    if !rustix::process::geteuid().is_root() {
        let why = "only root may ask the node plugin: run it in the plugin's container, or with sudo on the node";
        return Err(anyhow::Error::msg(Unanswered::NotRoot(why.into())));
    }
    let path = find(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let late = |_| Err(silent(&path, format_args!("did not answer for {patience:?}")));
        tokio::time::timeout(patience, put(&path, question)).await.unwrap_or_else(late)
    })
}

/// Says why there is no answer, with the exit code that says it too.
pub(crate) fn failed(error: &anyhow::Error, output: Output) -> ExitCode {
    let code = error.downcast_ref::<Unanswered>().map(Unanswered::code);
    let failed = output::failed(error, output);
    code.map_or(failed, ExitCode::from)
}

/// The socket of the plugin that is meant.
fn find(args: &Plugin) -> anyhow::Result<PathBuf> {
    if let Some(driver) = &args.driver_name {
        return Ok(args.state_dir.join(driver).join(SOCKET));
    }
    let entries = std::fs::read_dir(&args.state_dir).map_err(|error| not_here(&args.state_dir, &error))?;
    let mut found: Vec<_> =
        entries.flatten().map(|entry| entry.path().join(SOCKET)).filter(|path| path.exists()).collect();
    let only = found.pop().ok_or_else(|| not_here(&args.state_dir.join("*").join(SOCKET), &"there is none"))?;
    anyhow::ensure!(found.is_empty(), "several node plugins run here: choose one with --driver-name");
    Ok(only)
}

async fn put<T>(path: &Path, question: impl AsyncFnOnce(Client) -> Result<Response<T>, Status>) -> anyhow::Result<T> {
    let stream = UnixStream::connect(path).await.map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => silent(path, "has a full queue"),
        _ => not_here(path, &error),
    })?;
    let client = NodeAdminClient::new(socket::channel(stream).await.map_err(|_| silent(path, "hung up"))?)
        .max_decoding_message_size(LONGEST);
    question(client).await.map(Response::into_inner).map_err(|status| match status.code() {
        tonic::Code::Unimplemented => {
            anyhow::anyhow!("the node plugin has another version and does not know the question")
        }
        // What the transport makes of a connection that ends. Not in its words: see `columns::plain`.
        code => silent(path, format_args!("gave no answer ({code:?})")),
    })
}

fn not_here(path: &Path, why: &dyn fmt::Display) -> anyhow::Error {
    anyhow::Error::msg(Unanswered::NotHere(format!(
        "no node plugin runs here: {}: {why}: run it in the plugin's container on the node, or name its --state-dir",
        path.display()
    )))
}

fn silent(path: &Path, what: impl fmt::Display) -> anyhow::Error {
    anyhow::Error::msg(Unanswered::Silent(format!(
        "the node plugin at {} {what}: it may be starting again; if this stays so, its log says why",
        path.display()
    )))
}
