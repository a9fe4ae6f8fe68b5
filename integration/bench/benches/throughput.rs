// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! First publishes per second when nothing has to be fetched, beside what the kernel and gRPC allow.

use std::time::{Duration, Instant};

use anyhow::Result;
use evanesce_integration::kubelet::Kubelet;
use evanesce_proto::kubelet::Publish;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::{Effort, Found};
use crate::limit::{Limit, Work};
use crate::samples::Samples;
use crate::site::{ONE, Site, dial_and_call, roomy, sibling};

/// Volumes in one round: done before what was fetched for the first is too old.
const VOLUMES: usize = 400;

/// Measures it.
pub(crate) async fn run(site: &Site, effort: Effort) -> Result<Found> {
    let node = site.node(roomy()).await?;
    let limit = Limit::start(Work::Mount).await?;
    let mut found = Found::default();
    for (in_flight, part, rate, bare_rate) in [
        (1, "publishes-1", "publishes-1-rate", "publishes-1-limit"),
        (16, "publishes-16", "publishes-16-rate", "publishes-16-limit"),
        (64, "publishes-64", "publishes-64-rate", "publishes-64-limit"),
    ] {
        let mut each = Samples::new(format!("first publish, {in_flight} in flight"));
        let mut bare = Samples::new(format!("echo with mount calls, {in_flight} in flight"));
        let (mut walls, mut bare_walls) = (Samples::new("wall"), Samples::new("wall"));
        for _ in 0..effort.rounds(10) {
            let first = site.stranger();
            let primer = node.volume(&first, ONE)?;
            let volumes = (0..VOLUMES).map(|_| node.volume(&sibling(&first), ONE)).collect::<Result<Vec<_>>>()?;
            node.kubelet.publish(&primer).await?;
            walls.add(publish(&node.kubelet, &volumes, in_flight, &mut each).await?);
            node.clear(&volumes).await?;
            node.clear(&[primer]).await?;

            // The same volumes: after the one has removed a target, the other may make it.
            volumes.iter().try_for_each(|volume| node.kubelet.prepare(volume))?;
            bare_walls.add(publish(&limit.kubelet, &volumes, in_flight, &mut bare).await?);
            for volume in &volumes {
                limit.kubelet.unpublish(volume).await?;
            }
        }
        let per_second = |walls: &Samples| VOLUMES as f64 / (walls.median() / 1e3);
        found.values.extend([
            (part, 100.0 / walls.ratio_to(&bare_walls)),
            (rate, per_second(&walls)),
            (bare_rate, per_second(&bare_walls)),
        ]);
        found.samples.extend([each, bare]);
    }
    Ok(found)
}

/// Publishes all, with a dial for each and so many at once.
async fn publish(kubelet: &Kubelet, volumes: &[Publish], in_flight: usize, each: &mut Samples) -> Result<Duration> {
    let begun = Instant::now();
    let calls = volumes.iter().map(|volume| dial_and_call(kubelet, volume.request()));
    let times: Vec<Duration> = stream::iter(calls).buffer_unordered(in_flight).try_collect().await?;
    let wall = begun.elapsed();
    times.into_iter().for_each(|time| each.add(time));
    Ok(wall)
}
