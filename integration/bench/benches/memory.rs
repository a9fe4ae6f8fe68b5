// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What the plugin costs a node: all of its processes together.

use std::time::Duration;

use anyhow::{Context, Result};
use evanesce_integration::cgroup::Cgroup;
use evanesce_integration::plugin::Options;
use evanesce_integration::processes::Process;
use futures_util::future::try_join_all;

use super::Found;
use super::burst::VOLUMES;
use crate::site::{Node, Site, TEN, sibling};

/// What the plugin is given to give back what it needs no more.
pub(super) const QUIET: Duration = Duration::from_secs(15);

/// Measures it.
pub(crate) async fn run(site: &Site) -> Result<Found> {
    let cgroup = Cgroup::new();
    let under = cgroup.as_ref().map(Cgroup::starter).unwrap_or_default();
    let node = site.node(Options { under, ..Options::default() }).await?;
    let mut values = Vec::new();
    let mut look = |rss, anon, charge| {
        values.push((rss, sum(&node, "VmRSS")));
        values.push((anon, sum(&node, "RssAnon")));
        values.extend(cgroup.as_ref().and_then(Cgroup::charge).map(|bytes| (charge, bytes as f64 / 1e6)));
    };
    look("memory-idle", "memory-idle-anon", "memory-idle-cgroup");
    let first = site.stranger();
    let volumes = (0..VOLUMES).map(|_| node.volume(&sibling(&first), TEN)).collect::<Result<Vec<_>>>()?;
    try_join_all(volumes.iter().map(|volume| node.kubelet.publish(volume))).await.context("publish")?;
    // With volumes, not while they are made: what a burst has used goes back some seconds later.
    tokio::time::sleep(QUIET).await;
    look("memory-100", "memory-100-anon", "memory-100-cgroup");
    node.clear(&volumes).await?;
    Ok(Found { values, samples: Vec::new() })
}

/// Of all processes of the plugin, in megabytes (10⁶ bytes).
fn sum(node: &Node<'_>, field: &str) -> f64 {
    let megabytes = |process: Process| process.memory(field).map_or(f64::NAN, |bytes| bytes as f64 / 1e6);
    node.plugin.processes().into_iter().map(megabytes).sum()
}
