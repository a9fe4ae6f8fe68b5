// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce volumes`: what the node plugin beside us has, asked over the socket that only root can use.

mod table;

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use evanesce_proto::node::node_admin_client::NodeAdminClient;
use evanesce_proto::node::{ListVolumesRequest, ListVolumesResponse, State, Volume};
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::args::{Output, Volumes};
use crate::output::{self, say_json};
use crate::socket;

/// The plugin's socket, in a folder of its driver's name in the state directory.
const SOCKET: &str = "admin.sock";
/// How long the plugin may take. It has the answer at hand.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer in bytes: a hundred times that of a full node.
const LONGEST: usize = 64 << 20;

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

/// Runs the command.
pub(crate) fn run(args: &Volumes, output: Output) -> anyhow::Result<ExitCode> {
    match ask(args) {
        Ok(listing) => {
            let volumes = chosen(listing.volumes, args);
            match output {
                Output::Text => table::print(&volumes)?,
                Output::Json => {
                    let volumes: Vec<_> = volumes.iter().map(volume).collect();
                    say_json(&json!({"ok": true, "node": listing.node, "volumes": volumes}))?;
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            let code = error.downcast_ref::<Unanswered>().map(Unanswered::code);
            let failed = output::failed(&error, output);
            Ok(code.map_or(failed, ExitCode::from))
        }
    }
}

fn ask(args: &Volumes) -> anyhow::Result<ListVolumesResponse> {
    if !rustix::process::geteuid().is_root() {
        let why = "only root may ask the node plugin: run it in the plugin's container, or with sudo on the node";
        return Err(anyhow::Error::msg(Unanswered::NotRoot(why.into())));
    }
    let path = find(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, list(&path))
            .await
            .unwrap_or_else(|_| Err(silent(&path, format_args!("did not answer for {PATIENCE:?}"))))
    })
}

/// The socket of the plugin that is meant.
fn find(args: &Volumes) -> anyhow::Result<PathBuf> {
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

async fn list(path: &Path) -> anyhow::Result<ListVolumesResponse> {
    let stream = UnixStream::connect(path).await.map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => silent(path, "has a full queue"),
        _ => not_here(path, &error),
    })?;
    let mut client = NodeAdminClient::new(socket::channel(stream).await.map_err(|_| silent(path, "hung up"))?)
        .max_decoding_message_size(LONGEST);
    let answer = client.list_volumes(ListVolumesRequest {}).await;
    answer.map(tonic::Response::into_inner).map_err(|status| match status.code() {
        tonic::Code::Unimplemented => anyhow::anyhow!("the node plugin has another version and lists no volumes"),
        // What the transport makes of a connection that ends. Not in its words: see `table::plain`.
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

/// What was asked for, by pod; volumes without one last.
fn chosen(mut volumes: Vec<Volume>, args: &Volumes) -> Vec<Volume> {
    volumes.retain(|volume| {
        args.namespace.as_ref().is_none_or(|namespace| *namespace == volume.namespace)
            && (!args.stale || volume.last_error.is_some())
    });
    volumes.sort_by(|a, b| key(a).cmp(&key(b)));
    volumes
}

fn key(volume: &Volume) -> (bool, &str, &str, &str, &str) {
    (volume.pod.is_empty(), &volume.namespace, &volume.pod, &volume.class, &volume.id)
}

/// For programs; what is not known is null.
fn volume(volume: &Volume) -> Value {
    let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "volume": volume.id,
        "state": state(volume.state()),
        "namespace": known(&volume.namespace),
        "pod": known(&volume.pod),
        "pod_uid": known(&volume.pod_uid),
        "service_account": known(&volume.service_account),
        "class": known(&volume.class),
        "target": known(&volume.target_path),
        "generation": volume.generation,
        "age_seconds": volume.fresh_ago.map(|ago| ago.seconds),
        "next_refresh_seconds": volume.next_refresh_in.map(|wait| wait.seconds),
        "failures": volume.failures,
        "last_error": volume.last_error.as_ref().map(|error| json!({"kind": error.kind, "message": error.message})),
    })
}

/// As programs and people read it.
fn state(state: State) -> &'static str {
    match state {
        State::Unspecified => "unknown",
        State::Delivering => "delivering",
        State::Live => "live",
        State::Stale => "stale",
        State::Leaving => "leaving",
        State::LeftAlone => "left_alone",
    }
}
