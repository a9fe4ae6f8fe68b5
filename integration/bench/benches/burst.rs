// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A node that comes up: a hundred volumes of one service account at the same time.

use std::time::Instant;

use anyhow::{Result, ensure};
use evanesce_integration::plugin::Options;
use futures_util::future::try_join_all;

use super::{Effort, Found};
use crate::samples::Samples;
use crate::site::{Site, TEN, dial_and_call, sibling};

/// Volumes at once.
pub(crate) const VOLUMES: usize = 100;

/// Measures it: the median of the walls, and the most calls that any round made.
pub(crate) async fn run(site: &Site, effort: Effort) -> Result<Found> {
    let node = site.node(Options::default()).await?;
    let mut walls = Samples::new("100 volumes at once, until the last");
    let mut each = Samples::new("100 volumes at once, each");
    let mut most_calls = 0;
    for _ in 0..effort.rounds(20) {
        let first = site.stranger();
        let volumes = (0..VOLUMES).map(|_| node.volume(&sibling(&first), TEN)).collect::<Result<Vec<_>>>()?;
        let before = site.backend().requests()?.len();
        let begun = Instant::now();
        let times = volumes.iter().map(|volume| dial_and_call(&node.kubelet, volume.request()));
        let times = try_join_all(times).await?;
        walls.add(begun.elapsed());
        most_calls = most_calls.max(site.backend().requests()?.len() - before);
        times.into_iter().for_each(|time| each.add(time));
        node.clear(&volumes).await?;
    }
    ensure!(most_calls > 0, "nothing was fetched: the backend's audit log is not read");
    Ok(Found {
        values: vec![("burst-wall", walls.median() / 1e3), ("burst-calls", most_calls as f64)],
        samples: vec![walls, each],
    })
}
