// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A first publish of what the node has fresh: another pod of a service account whose secrets have just been fetched.

use anyhow::Result;
use evanesce_integration::plugin::Options;

use super::{Effort, Found};
use crate::samples::Samples;
use crate::site::{Site, TEN, call, open, sibling};

/// Pods of one service account. They are done before what was fetched for the first is too old.
const SIBLINGS: usize = 50;

/// Measures it.
pub(crate) async fn run(site: &Site, effort: Effort) -> Result<Found> {
    let node = site.node(Options::default()).await?;
    let mut samples = Samples::new("first publish, 10 secrets, fresh on the node");
    for _ in 0..effort.rounds(20) {
        let first = site.stranger();
        let volumes = (0..=SIBLINGS).map(|_| node.volume(&sibling(&first), TEN)).collect::<Result<Vec<_>>>()?;
        for (number, volume) in volumes.iter().enumerate() {
            let client = open(&node.kubelet).await?;
            let time = call(client, volume.request()).await?;
            // The first one fetches.
            if number > 0 {
                samples.add(time);
            }
        }
        node.clear(&volumes).await?;
    }
    Ok(Found { values: vec![("fresh-publish", samples.median())], samples: vec![samples] })
}
