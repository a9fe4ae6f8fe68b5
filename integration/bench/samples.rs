// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Many measurements of one thing.

use std::time::Duration;

/// Durations of one kind, in milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Samples {
    /// What was measured, as it stands in a legend.
    pub name: String,
    /// In the order in which they were taken.
    values: Vec<f64>,
}

impl Samples {
    /// None yet.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), values: Vec::new() }
    }

    /// One more.
    pub(crate) fn add(&mut self, duration: Duration) {
        self.values.push(duration.as_secs_f64() * 1e3);
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// From the shortest to the longest.
    pub(crate) fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// The value that this part of all stays below (nearest rank).
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        quantile(&self.sorted(), part)
    }

    /// Half are shorter.
    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The median of the ratios of what was measured side by side: what slows the machine for a while slows both.
    pub(crate) fn ratio_to(&self, other: &Self) -> f64 {
        let mut ratios: Vec<f64> = self.values.iter().zip(&other.values).map(|(this, that)| this / that).collect();
        ratios.sort_by(f64::total_cmp);
        quantile(&ratios, 0.5)
    }
}

fn quantile(sorted: &[f64], part: f64) -> f64 {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
