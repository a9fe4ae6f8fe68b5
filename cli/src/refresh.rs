// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce refresh`: has the node plugin beside us refresh volumes now.

use std::process::ExitCode;
use std::time::Duration;

use evanesce_proto::node::{Outcome, RefreshRequest, Refreshed, Volume};
use serde_json::json;

use crate::args::{Output, Refresh};
use crate::columns::plain;
use crate::node::{self, PATIENCE};
use crate::output::{ERROR, GOOD, WARNING, say, say_json, styled};
use crate::volumes;

/// No volume is meant.
const NONE: u8 = 3;
/// Some are not done.
const LATE: u8 = 4;

/// Runs the command.
pub(crate) fn run(args: &Refresh, output: Output) -> anyhow::Result<ExitCode> {
    let listing = match volumes::list(&args.plugin) {
        Ok(listing) => listing,
        Err(error) => return Ok(node::failed(&error, output)),
    };
    let meant = match meant(listing.volumes, args) {
        Ok(meant) => meant,
        Err(error) => {
            crate::output::failed(&error, output);
            return Ok(ExitCode::from(NONE));
        }
    };
    let wait = Duration::from_secs(args.wait.into());
    let request = RefreshRequest {
        volumes: meant.iter().map(|volume| volume.id.clone()).collect(),
        wait: wait.try_into().ok().filter(|_| args.wait > 0),
    };
    let answer = match node::ask(&args.plugin, wait + PATIENCE, async |mut client| client.refresh(request).await) {
        Ok(answer) => answer.volumes,
        Err(error) => return Ok(node::failed(&error, output)),
    };
    let all: Vec<_> = meant.iter().zip(&answer).collect();
    let code = code(&answer, args.wait > 0);
    match output {
        Output::Text => all.iter().try_for_each(|(volume, came)| say(line(volume, came)))?,
        Output::Json => {
            let volumes: Vec<_> = all.iter().map(|(volume, came)| object(volume, came)).collect();
            say_json(&json!({"ok": code == 0, "volumes": volumes}))?;
        }
    }
    Ok(ExitCode::from(code))
}

/// The volumes that the arguments mean.
fn meant(mut volumes: Vec<Volume>, args: &Refresh) -> anyhow::Result<Vec<Volume>> {
    let is = |wanted: &Option<String>, has: &str| wanted.as_ref().is_none_or(|wanted| wanted == has);
    volumes.retain(|volume| {
        is(&args.namespace, &volume.namespace)
            && is(&args.pod, &volume.pod)
            && args.volume.as_ref().is_none_or(|id| volume.id.starts_with(id.as_str()))
    });
    volumes.sort_by(|a, b| volumes::key(a).cmp(&volumes::key(b)));
    if let Some(id) = &args.volume {
        if volumes.iter().any(|volume| volume.id == *id) {
            volumes.retain(|volume| volume.id == *id);
        }
        anyhow::ensure!(
            volumes.len() < 2,
            "{} volumes of this node begin with {id}: write more of the id",
            volumes.len()
        );
    }
    anyhow::ensure!(
        args.all || !volumes.is_empty(),
        "no volume of this node is meant: evanesce volumes lists those there are"
    );
    Ok(volumes)
}

fn code(answer: &[Refreshed], waited: bool) -> u8 {
    let any = |outcome: Outcome| answer.iter().any(|came| came.outcome() == outcome);
    if any(Outcome::Failed) || any(Outcome::NotLive) || any(Outcome::Unspecified) {
        1
    } else if waited && any(Outcome::Pending) {
        LATE
    } else {
        0
    }
}

fn line(volume: &Volume, came: &Refreshed) -> String {
    let (style, what) = match came.outcome() {
        Outcome::Replaced => (GOOD, format!("replaced, generation {}", came.generation.unwrap_or_default())),
        Outcome::Unchanged => (GOOD, "unchanged".to_owned()),
        Outcome::Pending => (WARNING, "due".to_owned()),
        Outcome::Failed => (ERROR, "failed".to_owned()),
        Outcome::NotLive | Outcome::Unspecified => (ERROR, "cannot be refreshed now".to_owned()),
    };
    let why = came.error.as_ref().map(|why| format!("\n  {}: {}", plain(&why.kind), plain(&why.message)));
    let name = plain(&format!("{}/{}  {}  {:.16}", volume.namespace, volume.pod, volume.class, volume.id));
    format!("{name}  {}{}", styled(style, what), why.unwrap_or_default())
}

fn object(volume: &Volume, came: &Refreshed) -> serde_json::Value {
    json!({
        "volume": volume.id,
        "namespace": volume.namespace,
        "pod": volume.pod,
        "class": volume.class,
        "outcome": outcome(came.outcome()),
        "generation": came.generation,
        "error": came.error.as_ref().map(|error| json!({"kind": error.kind, "message": error.message})),
    })
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Unspecified => "unknown",
        Outcome::Pending => "pending",
        Outcome::Replaced => "replaced",
        Outcome::Unchanged => "unchanged",
        Outcome::Failed => "failed",
        Outcome::NotLive => "not_live",
    }
}
