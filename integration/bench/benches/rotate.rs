// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A secret that changes: how long until a running pod reads the new one, when it is told to and when nobody says anything.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use evanesce_integration::plugin::Options;
use evanesce_proto::kubelet::Publish;
use tokio::time::sleep;

use super::cold::{WARM_UP, dial_and_fetch, fetch};
use super::{Effort, Found};
use crate::bare::Bare;
use crate::samples::Samples;
use crate::site::{Class, LIVELY, Node, ONE, Site, TEN, refresh, shows};

/// The period of [`LIVELY`].
const PERIOD: Duration = Duration::from_secs(1);
/// Between two looks of a pod: far below what is measured.
const PAUSE: Duration = Duration::from_millis(1);
/// Then something is broken.
const LIMIT: Duration = Duration::from_secs(20);

/// Measures it.
pub(crate) async fn run(site: &Site, effort: Effort) -> Result<Found> {
    let node = site.node(Options::default()).await?;
    let mut found = swap(site, &node, effort).await?;
    let polled = polled(site, &node, effort).await?;
    found.values.push(("write-to-read", 100.0 * polled.median() / (PERIOD.as_secs_f64() * 1e3)));
    found.samples.push(polled);
    let forced = forced(site, &node, effort).await?;
    found.values.push(("write-to-read-forced", forced.median()));
    found.samples.push(forced);
    Ok(found)
}

/// Ten files and the next ten, beside what any client has to do for them.
async fn swap(site: &Site, node: &Node<'_>, effort: Effort) -> Result<Found> {
    let bare = Bare::new(site.backend())?;
    let kept = bare.client()?;
    let mut swaps = Samples::new("swap of 10 secrets");
    let mut dialling = Samples::new("bare client that dials anew, beside a swap");
    let mut never_closing = Samples::new("bare client that never closes, beside a swap");
    for round in 0..WARM_UP + effort.rounds(300) {
        let mut times = [Duration::ZERO; 3];
        // Each goes first, second and third equally often.
        for turn in 0..3 {
            let who = (round + turn) % 3;
            times[who] = match who {
                0 => {
                    let volume = published(site, node, TEN).await?;
                    let new = format!("swap {round} ");
                    site.write(TEN, &new).await?;
                    let begun = Instant::now();
                    let time = told(node, &volume, TEN, &new, begun).await?;
                    node.clear(&[volume]).await?;
                    time
                }
                1 => dial_and_fetch(site, &bare, TEN).await?,
                _ => fetch(site, &bare, &kept, TEN).await?,
            };
        }
        if round >= WARM_UP {
            for (samples, time) in [&mut swaps, &mut dialling, &mut never_closing].into_iter().zip(times) {
                samples.add(time);
            }
        }
    }
    Ok(Found {
        values: vec![("rotate-swap", swaps.ratio_to(&dialling)), ("rotate-swap-open", swaps.ratio_to(&never_closing))],
        samples: vec![swaps, dialling, never_closing],
    })
}

/// From a write until the pod reads it, where nobody tells the plugin.
async fn polled(site: &Site, node: &Node<'_>, effort: Effort) -> Result<Samples> {
    let mut samples = Samples::new("write to read, every second");
    let volume = published(site, node, LIVELY).await?;
    for round in 0..effort.rounds(100) {
        // What was just read has just been asked for: writes fall into every part of the period alike.
        sleep(PERIOD.mul_f64((round as f64 * GOLDEN).fract())).await;
        let new = format!("polled {round} ");
        let begun = Instant::now();
        site.write(LIVELY, &new).await?;
        while !shows(&volume, LIVELY, &new)? {
            ensure!(begun.elapsed() < LIMIT, "nothing new to read within {LIMIT:?}");
            sleep(PAUSE).await;
        }
        samples.add(begun.elapsed());
    }
    node.clear(&[volume]).await?;
    Ok(samples)
}

/// The multiples of the golden ratio are spread more evenly than chance would have them, however many there are.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// From a write until the pod reads it, where the plugin is told at once.
async fn forced(site: &Site, node: &Node<'_>, effort: Effort) -> Result<Samples> {
    let mut samples = Samples::new("write to read, told at once");
    for round in 0..WARM_UP + effort.rounds(300) {
        let volume = published(site, node, ONE).await?;
        let new = format!("forced {round} ");
        let begun = Instant::now();
        site.write(ONE, &new).await?;
        let time = told(node, &volume, ONE, &new, begun).await?;
        if round >= WARM_UP {
            samples.add(time);
        }
        node.clear(&[volume]).await?;
    }
    Ok(samples)
}

/// A volume of a pod that nothing is shared with, and that has had no other generation.
async fn published(site: &Site, node: &Node<'_>, class: Class) -> Result<Publish> {
    let volume = node.volume(&site.stranger(), class)?;
    node.kubelet.publish(&volume).await?;
    Ok(volume)
}

/// Tells the plugin, reads, and says how long it is since it began.
async fn told(node: &Node<'_>, volume: &Publish, class: Class, new: &str, begun: Instant) -> Result<Duration> {
    refresh(node, volume).await?;
    ensure!(shows(volume, class, new)?, "the pod reads something old after its refresh");
    Ok(begun.elapsed())
}
