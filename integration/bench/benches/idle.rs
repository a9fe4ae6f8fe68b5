// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What a node full of volumes costs when no pod comes or goes: all processes of the plugin together.
//!
//! Kubelet's republishes are not in it; what one of them costs has a bench of its own.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use evanesce_integration::processes::Process;
use tokio::time::sleep;

use super::memory::QUIET;
use super::{Effort, Found};
use crate::processor;
use crate::site::{Class, Node, OFTEN, OFTEN_QUICK, ONE, Site, roomy, sibling};

/// Volumes.
const VOLUMES: usize = 1000;
/// Service accounts that they are spread over.
const ACCOUNTS: usize = 50;
/// What is waited for in the end.
const MINUTE: Duration = Duration::from_secs(60);
/// The period of [`OFTEN`].
const PERIOD: Duration = Duration::from_secs(300);
/// A tenth of it, by which it is spread at most.
const JITTER: u32 = 10;

/// Measures both.
pub(crate) async fn run(site: &Site, effort: Effort) -> Result<Found> {
    let tenth = |whole: Duration| if effort.quick { whole / 10 } else { whole };
    // All at once: the first of them is due in fifty-four minutes.
    let none_due = full(site, effort, ONE, Duration::ZERO, QUIET, tenth(MINUTE)).await?;
    // One after the other over a whole period, as pods come, and counted once the first of them have surely been refreshed.
    let often = if effort.quick { OFTEN_QUICK } else { OFTEN };
    let period = tenth(PERIOD);
    let often = full(site, effort, often, period, period / JITTER, tenth(MINUTE)).await?;
    Ok(Found { values: vec![("idle", none_due), ("idle-5m", often)], samples: Vec::new() })
}

/// Milliseconds of a processor in a minute, measured for `span` on a node that was filled within `fill`, and left alone for
/// `quiet`.
async fn full(
    site: &Site,
    effort: Effort,
    class: Class,
    fill: Duration,
    quiet: Duration,
    span: Duration,
) -> Result<f64> {
    let node = site.node(roomy()).await?;
    let accounts: Vec<_> = (0..ACCOUNTS).map(|_| site.stranger()).collect();
    let count = effort.rounds(VOLUMES);
    let begun = Instant::now();
    let mut volumes = Vec::with_capacity(count);
    for number in 0..count {
        sleep((fill * u32::try_from(number)? / u32::try_from(count)?).saturating_sub(begun.elapsed())).await;
        let volume = node.volume(&sibling(&accounts[number % ACCOUNTS]), class)?;
        node.kubelet.publish(&volume).await?;
        volumes.push(volume);
    }
    sleep(fill.saturating_sub(begun.elapsed()) + quiet).await;
    let (family, before, begun) = (node.plugin.processes(), taken(&node)?, Instant::now());
    sleep(span).await;
    let (after, elapsed) = (taken(&node)?, begun.elapsed());
    ensure!(node.plugin.processes() == family, "a process of the plugin has died");
    node.clear(&volumes).await?;
    Ok((after - before).as_secs_f64() * 1e3 * MINUTE.as_secs_f64() / elapsed.as_secs_f64())
}

/// What all processes of the plugin have taken so far.
fn taken(node: &Node<'_>) -> Result<Duration> {
    node.plugin.processes().into_iter().map(|process: Process| processor::time(process)).sum()
}
