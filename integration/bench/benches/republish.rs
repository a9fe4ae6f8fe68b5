// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What kubelet does for every volume, again and again: a publish of what is there, before it is due.
//!
//! The plugin closes a connection that has carried a token, so each call on an open one is the first of its kind there.

use anyhow::Result;
use evanesce_integration::plugin::Options;

use super::{Effort, Found};
use crate::limit::{Limit, Work};
use crate::samples::Samples;
use crate::site::{ONE, Site, call, dial_and_call, open};

const WARM_UP: usize = 50;

/// Measures it.
pub(crate) async fn run(site: &Site, effort: Effort) -> Result<Found> {
    let node = site.node(Options::default()).await?;
    let echo = Limit::start(Work::Echo).await?;
    let volume = node.volume(&site.stranger(), ONE)?;
    node.kubelet.publish(&volume).await?;

    let mut opened = Samples::new("republish, connection open");
    let mut opened_echo = Samples::new("bare echo, connection open");
    let mut dialled = Samples::new("republish with a dial");
    let mut dialled_echo = Samples::new("bare echo with a dial");
    for round in 0..WARM_UP + effort.rounds(3000) {
        let on_open = call(open(&node.kubelet).await?, volume.request()).await?;
        let with_dial = dial_and_call(&node.kubelet, volume.request()).await?;
        let echo_on_open = call(open(&echo.kubelet).await?, volume.request()).await?;
        let echo_with_dial = dial_and_call(&echo.kubelet, volume.request()).await?;
        if round >= WARM_UP {
            opened.add(on_open);
            dialled.add(with_dial);
            opened_echo.add(echo_on_open);
            dialled_echo.add(echo_with_dial);
        }
    }
    node.clear(&[volume]).await?;
    Ok(Found {
        values: vec![("republish", opened.median() * 1e3), ("republish-dial", dialled.ratio_to(&dialled_echo))],
        samples: vec![opened, opened_echo, dialled, dialled_echo],
    })
}
