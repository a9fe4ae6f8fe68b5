// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce leases`: what backends have lent to the volumes of the node plugin beside us.

mod table;

use std::process::ExitCode;

use evanesce_proto::node::{Lease, LeaseGroup, LeaseState, ListLeasesRequest};
use serde_json::{Value, json};

use crate::args::{Leases, Output};
use crate::node::{self, PATIENCE};
use crate::output::say_json;

/// Runs the command.
pub(crate) fn run(args: &Leases, output: Output) -> anyhow::Result<ExitCode> {
    let request = async |mut client: node::Client| client.list_leases(ListLeasesRequest {}).await;
    let listing = match node::ask(&args.plugin, PATIENCE, request) {
        Ok(listing) => listing,
        Err(error) => return Ok(node::failed(&error, output)),
    };
    let groups = chosen(listing.groups, args);
    match output {
        Output::Text => table::print(&groups)?,
        Output::Json => {
            let groups: Vec<_> = groups.iter().map(group).collect();
            say_json(&json!({"ok": true, "node": listing.node, "groups": groups}))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What was asked for, by pod.
fn chosen(mut groups: Vec<LeaseGroup>, args: &Leases) -> Vec<LeaseGroup> {
    groups.retain(|group| {
        args.namespace.as_ref().is_none_or(|namespace| *namespace == group.namespace)
            && (!args.returning || group.state() == LeaseState::Returning)
    });
    groups.sort_by(|a, b| key(a).cmp(&key(b)));
    groups
}

fn key(group: &LeaseGroup) -> (&str, &str, &str, i32, &str) {
    (&group.namespace, &group.pod, &group.class, group.state, &group.id)
}

/// For programs; what is not known is null.
fn group(group: &LeaseGroup) -> Value {
    let leases: Vec<_> = group.leases.iter().map(lease).collect();
    json!({
        "group": group.id,
        "state": state(group.state()),
        "volume": group.volume,
        "namespace": group.namespace,
        "pod": group.pod,
        "pod_uid": group.pod_uid,
        "service_account": group.service_account,
        "class": group.class,
        "backend": group.backend,
        "scope": if group.shared { "serviceAccount" } else { "volume" },
        "volumes": group.volumes,
        "ends_seconds": group.ends_in.map(|left| left.seconds),
        "next_seconds": group.next_in.map(|wait| wait.seconds),
        "cause": (!group.cause.is_empty()).then_some(&group.cause),
        "failures": group.failures,
        "last_error": group.last_error.as_ref().map(|error| json!({"kind": error.kind, "message": error.message})),
        "leases": group.leases_known.then_some(leases),
    })
}

fn lease(lease: &Lease) -> Value {
    json!({
        "path": lease.path,
        "id_digest": lease.id_digest,
        "renewable": lease.renewable,
        "ends_seconds": lease.ends_in.map(|left| left.seconds),
    })
}

/// As programs and people read it.
fn state(state: LeaseState) -> &'static str {
    match state {
        LeaseState::Unspecified => "unknown",
        LeaseState::Delivering => "delivering",
        LeaseState::Shown => "shown",
        LeaseState::Replaced => "replaced",
        LeaseState::Returning => "returning",
        LeaseState::Found => "found",
    }
}
