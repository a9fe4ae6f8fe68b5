// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What is measured, one file each.
//!
//! The machine is noisy, so what stands in one ratio is measured in turns, A B A B, within one run.

pub(crate) mod burst;
pub(crate) mod cold;
pub(crate) mod fresh;
pub(crate) mod idle;
pub(crate) mod memory;
pub(crate) mod republish;
pub(crate) mod rotate;
pub(crate) mod start;
pub(crate) mod throughput;

use anyhow::{Result, bail};

use crate::samples::Samples;
use crate::site::Site;

/// What a bench found.
#[derive(Default)]
pub(crate) struct Found {
    /// Values, by the name of their row. A row without one could not be measured here.
    pub values: Vec<(&'static str, f64)>,
    /// The distributions behind them.
    pub samples: Vec<Samples>,
}

/// How long to measure.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// A tenth of everything: to see that it works.
    pub quick: bool,
}

impl Effort {
    /// So many rounds, or a tenth.
    pub(crate) fn rounds(self, full: usize) -> usize {
        if self.quick { full.div_ceil(10) } else { full }
    }
}

/// Runs the bench of this name.
pub(crate) async fn run(bench: &str, site: &Site, effort: Effort) -> Result<Found> {
    match bench {
        "cold" => cold::run(site, effort).await,
        "fresh" => fresh::run(site, effort).await,
        "republish" => republish::run(site, effort).await,
        "rotate" => rotate::run(site, effort).await,
        "burst" => burst::run(site, effort).await,
        "memory" => memory::run(site).await,
        "idle" => idle::run(site, effort).await,
        "start" => start::run(site, effort).await,
        "throughput" => throughput::run(site, effort).await,
        other => bail!("no bench {other}"),
    }
}
