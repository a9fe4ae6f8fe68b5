// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce volumes`: what the node plugin beside us has.

mod table;

use std::process::ExitCode;

use evanesce_proto::node::{ListVolumesRequest, ListVolumesResponse, State, Volume};
use serde_json::{Value, json};

use crate::args::{Output, Plugin, Volumes};
use crate::node::{self, PATIENCE};
use crate::output::say_json;

/// Runs the command.
pub(crate) fn run(args: &Volumes, output: Output) -> anyhow::Result<ExitCode> {
    match list(&args.plugin) {
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
        Err(error) => Ok(node::failed(&error, output)),
    }
}

/// What the plugin has.
pub(crate) fn list(plugin: &Plugin) -> anyhow::Result<ListVolumesResponse> {
    node::ask(plugin, PATIENCE, async |mut client| client.list_volumes(ListVolumesRequest {}).await)
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

pub(crate) fn key(volume: &Volume) -> (bool, &str, &str, &str, &str) {
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
pub(crate) fn state(state: State) -> &'static str {
    match state {
        State::Unspecified => "unknown",
        State::Delivering => "delivering",
        State::Live => "live",
        State::Stale => "stale",
        State::Leaving => "leaving",
        State::LeftAlone => "left_alone",
    }
}
