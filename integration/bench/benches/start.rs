// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! How long there is no service: after the start of the process, and after the engine half was killed.
//!
//! Each round has a plugin of its own: the warden takes its time with an engine half that dies again and again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use evanesce_integration::plugin::Options;
use evanesce_proto::csi::ProbeRequest;
use rustix::process::{Signal, kill_process};
use tokio::time::sleep;

use super::{Effort, Found};
use crate::samples::Samples;
use crate::site::{Node, ONE, Site, dial_and_call};

/// Between two tries: far below what is measured.
const PAUSE: Duration = Duration::from_micros(200);
/// Then something is broken.
const LIMIT: Duration = Duration::from_secs(20);

/// Measures both.
pub(crate) async fn run(site: &Site, effort: Effort) -> Result<Found> {
    let mut starts = Samples::new("process start to ready");
    let mut restarts = Samples::new("engine half killed until a republish is answered");
    for _ in 0..effort.rounds(40) {
        let node = site.spawn(Options::default())?;
        starts.add(until(node.plugin.started(), async || is_ready(&node).await).await.context("start")?);

        let volume = node.volume(&site.stranger(), ONE)?;
        node.kubelet.publish(&volume).await?;
        let engine = node.plugin.engine().context("no engine half")?;
        let begun = Instant::now();
        kill_process(engine.pid(), Signal::KILL)?;
        // It may answer one more call before it is gone; that would not count.
        let answered = async || !engine.is_running() && dial_and_call(&node.kubelet, volume.request()).await.is_ok();
        restarts.add(until(begun, answered).await.context("restart")?);
        node.clear(&[volume]).await?;
    }
    Ok(Found {
        values: vec![("start-to-ready", starts.median()), ("engine-restart", restarts.median())],
        samples: vec![starts, restarts],
    })
}

async fn is_ready(node: &Node<'_>) -> bool {
    let Ok(mut client) = node.kubelet.identity().await else { return false };
    matches!(client.probe(ProbeRequest {}).await, Ok(answer) if answer.get_ref().ready == Some(true))
}

async fn until(begun: Instant, mut holds: impl AsyncFnMut() -> bool) -> Result<Duration> {
    while !holds().await {
        ensure!(begun.elapsed() < LIMIT, "no answer within {LIMIT:?}");
        sleep(PAUSE).await;
    }
    Ok(begun.elapsed())
}
