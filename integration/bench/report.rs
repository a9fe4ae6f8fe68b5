// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Figures as a table and as lines of JSON; [`page`](crate::page) has them as the page in `docs`.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::rows::Row;
use crate::samples::Samples;
use crate::svg::time;

/// A row with its value, if it could be measured here.
pub(crate) struct Figure {
    /// The row.
    pub row: &'static Row,
    /// Its value.
    pub value: Option<f64>,
}

impl Figure {
    fn met(&self) -> Option<bool> {
        self.row.target.met(self.value?)
    }

    /// As wide as it is exact.
    fn text(&self) -> String {
        match self.value {
            None => "not measured".into(),
            Some(value) if value.fract() == 0.0 || value >= 1000.0 => format!("{value:.0}"),
            Some(value) if value >= 100.0 => format!("{value:.1}"),
            Some(value) => format!("{value:.2}"),
        }
    }

    /// As [`HEAD`] says.
    pub(crate) fn cells(&self) -> [String; 6] {
        let met = match self.met() {
            None => "",
            Some(true) => "yes",
            Some(false) => "NO",
        };
        let Row { name, unit, target, incumbent, .. } = self.row;
        [
            (*name).into(),
            self.text(),
            (*unit).into(),
            target.text().unwrap_or_default(),
            met.into(),
            (*incumbent).into(),
        ]
    }
}

const HEAD: [&str; 6] = ["name", "value", "unit", "target", "met", "incumbent"];

/// For a terminal.
pub(crate) fn table(figures: &[Figure]) -> String {
    aligned(&HEAD.map(String::from), figures.iter().map(Figure::cells).collect())
}

/// The distributions, for a terminal.
pub(crate) fn distributions(samples: &[Samples]) -> String {
    let cells = |samples: &Samples| {
        let quantile = |part| time(samples.quantile(part));
        [samples.name.clone(), samples.len().to_string(), quantile(0.5), quantile(0.9), quantile(0.99), quantile(1.0)]
    };
    aligned(&["distribution", "n", "p50", "p90", "p99", "max"].map(String::from), samples.iter().map(cells).collect())
}

fn aligned<const N: usize>(head: &[String; N], rows: Vec<[String; N]>) -> String {
    let all: Vec<&[String; N]> = std::iter::once(head).chain(&rows).collect();
    let width: [usize; N] =
        std::array::from_fn(|column| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    all.iter().fold(String::new(), |mut text, row| {
        let line: String = row.iter().zip(width).map(|(cell, width)| format!("{cell:width$}  ")).collect();
        text.push_str(line.trim_end());
        text.push('\n');
        text
    })
}

/// One line.
pub(crate) fn line(figure: &Figure) -> Value {
    let Row { name, unit, target, .. } = figure.row;
    json!({"name": name, "value": figure.value, "unit": unit, "target": target.text(), "met": figure.met()})
}

/// When and on what something is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// As `2026-11-21`.
    pub day: String,
    /// Processors, memory, kernel.
    pub machine: String,
}

impl Place {
    /// Now and here.
    pub(crate) fn here() -> Result<Self> {
        let now = OffsetDateTime::now_utc();
        let processors = fs::read_to_string("/proc/cpuinfo")?;
        let model = processors.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        let model = model.trim_start_matches([' ', '\t', ':']);
        let count = std::thread::available_parallelism()?;
        let memory = fs::read_to_string("/proc/meminfo")?;
        let memory: u64 = memory.split_whitespace().nth(1).context("odd /proc/meminfo")?.parse()?;
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let kernel = kernel.split('-').next().unwrap_or_default().trim();
        Ok(Self {
            day: format!("{:04}-{:02}-{:02}", now.year(), u8::from(now.month()), now.day()),
            machine: format!("{count} processors ({model}), {} GiB of memory, Linux {kernel}", memory >> 20),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::rows::ROWS;

    #[test]
    fn a_line_has_five_members_and_says_whether_a_target_is_met() {
        for row in ROWS {
            for value in [None, Some(0.0), Some(1e9)] {
                let line = line(&Figure { row, value });
                let members: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
                assert_eq!(members, ["met", "name", "target", "unit", "value"]);
                let judged = value.is_some() && !line["target"].is_null();
                assert_eq!(line["met"].is_boolean(), judged, "{line}");
            }
        }
        let wall = ROWS.iter().find(|row| row.name == "burst-wall").unwrap();
        let met = |value| line(&Figure { row: wall, value: Some(value) })["met"].clone();
        assert_eq!([met(0.3), met(0.31)], [true, false]);
    }
}
