// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A first publish with nothing to reuse, beside what any client has to do for it.
//!
//! Each publish is of a service account of its own, so that neither login nor answer can be shared.

use std::time::{Duration, Instant};

use anyhow::Result;
use evanesce_integration::plugin::Options;
use reqwest::Client;

use super::{Effort, Found};
use crate::bare::Bare;
use crate::samples::Samples;
use crate::site::{Class, Node, ONE, Site, TEN, call, open};

/// Rounds that are not counted: the first make files, threads and sessions that the others find.
pub(super) const WARM_UP: usize = 5;

/// Measures it.
pub(crate) async fn run(site: &Site, effort: Effort) -> Result<Found> {
    let node = site.node(Options::default()).await?;
    let bare = Bare::new(site.backend())?;
    let mut found = Found::default();
    for (class, over_dialling, over_open) in
        [(ONE, "cold-publish-1", "cold-publish-1-open"), (TEN, "cold-publish-10", "cold-publish-10-open")]
    {
        let name = |what| format!("{what}, {} secrets", class.secrets);
        let mut publishes = Samples::new(name("first publish"));
        let mut dialling = Samples::new(name("bare client that dials anew"));
        let mut never_closing = Samples::new(name("bare client that never closes"));
        let kept = bare.client()?;
        for round in 0..WARM_UP + effort.rounds(300) {
            let mut times = [Duration::ZERO; 3];
            // Each goes first, second and third equally often.
            for turn in 0..3 {
                let who = (round + turn) % 3;
                times[who] = match who {
                    0 => publish(site, &node, class).await?,
                    1 => dial_and_fetch(site, &bare, class).await?,
                    _ => fetch(site, &bare, &kept, class).await?,
                };
            }
            if round >= WARM_UP {
                for (samples, time) in [&mut publishes, &mut dialling, &mut never_closing].into_iter().zip(times) {
                    samples.add(time);
                }
            }
        }
        found.values.push((over_dialling, publishes.ratio_to(&dialling)));
        found.values.push((over_open, publishes.ratio_to(&never_closing)));
        found.samples.extend([publishes, dialling, never_closing]);
    }
    Ok(found)
}

async fn publish(site: &Site, node: &Node<'_>, class: Class) -> Result<Duration> {
    let volume = node.volume(&site.stranger(), class)?;
    let client = open(&node.kubelet).await?;
    let time = call(client, volume.request()).await?;
    node.clear(&[volume]).await?;
    Ok(time)
}

/// What a client takes that dials anew.
pub(super) async fn dial_and_fetch(site: &Site, bare: &Bare, class: Class) -> Result<Duration> {
    let begun = Instant::now();
    let client = bare.client()?;
    let made = begun.elapsed();
    Ok(made + fetch(site, bare, &client, class).await?)
}

/// What a client takes that is there already.
pub(super) async fn fetch(site: &Site, bare: &Bare, client: &Client, class: Class) -> Result<Duration> {
    let token = site.token(&site.stranger())?;
    let begun = Instant::now();
    bare.fetch(client, &token.token, class.secrets).await?;
    Ok(begun.elapsed())
}
