// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The page in `docs` and its picture: what was measured now replaces what its benches brought before, and everything else
//! stays, with the day on which it was measured.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use crate::report::{Figure, Place};
use crate::rows::ROWS;
use crate::samples::Samples;
use crate::svg::{self, Drawn, Panel, time};

/// Between these lines, the page is written by [`text`].
const BEGIN: &str = "<!-- figures: written by integration/bench/run --docs -->";
const END: &str = "<!-- end of figures -->";

const FIGURES: &str = "| figure | value | target | met | incumbent | day | what |\n\
                       | --- | ---: | --- | --- | ---: | --- | --- |\n";
const DISTRIBUTIONS: &str = "| bench | distribution | n | p50 | p99 | longest |\n\
                             | --- | --- | ---: | ---: | ---: | ---: |\n";

/// What one bench brought now.
pub(crate) struct Measured {
    /// The bench.
    pub bench: &'static str,
    /// All of its rows.
    pub figures: Vec<Figure>,
    /// Their distributions.
    pub samples: Vec<Samples>,
}

/// The benches, in the order of their rows.
fn benches() -> Vec<&'static str> {
    let mut benches: Vec<_> = ROWS.iter().map(|row| row.bench).collect();
    benches.dedup();
    benches
}

/// `old` with new figures between its marks.
pub(crate) fn text(old: &str, measured: &[Measured], place: &Place) -> Result<String> {
    let (before, rest) = old.split_once(BEGIN).context("the page has no place for figures")?;
    let (old, after) = rest.split_once(END).context("the page's figures have no end")?;
    let new = |bench: &str| measured.iter().find(|each| each.bench == bench);

    let figures: String = ROWS
        .iter()
        .filter_map(|row| match new(row.bench) {
            Some(new) => new.figures.iter().find(|figure| figure.row.name == row.name).map(|it| figure(it, place)),
            None => kept(old, &format!("| `{}` |", row.name)).next(),
        })
        .collect();
    let distributions: String = benches()
        .into_iter()
        .flat_map(|bench| match new(bench) {
            Some(new) => new.samples.iter().map(|samples| distribution(bench, samples)).collect(),
            None => kept(old, &format!("| {bench} |")).collect::<Vec<_>>(),
        })
        .collect();
    // Each day has one place: that of its last run.
    let mut places: Vec<String> =
        kept(old, "- ").filter(|line| !line.starts_with(&format!("- {}: ", place.day))).collect();
    places.push(format!("- {}: {}\n", place.day, place.machine));
    places.retain(|line| line.get(2..12).is_some_and(|day| figures.contains(&format!("| {day} |"))));
    places.sort();
    Ok(format!(
        "{before}{BEGIN}\n\nMeasured on\n\n{}\n{FIGURES}{figures}\n{DISTRIBUTIONS}{distributions}\n{END}{after}",
        places.concat()
    ))
}

/// The lines of the page that begin so.
fn kept(old: &str, begin: &str) -> impl Iterator<Item = String> {
    old.lines().filter(move |line| line.starts_with(begin)).map(|line| format!("{line}\n"))
}

fn figure(figure: &Figure, place: &Place) -> String {
    let [name, value, unit, target, met, incumbent] = figure.cells();
    let (day, what) = (&place.day, figure.row.what);
    format!("| `{name}` | {value} {unit} | {target} | {met} | {incumbent} | {day} | {what} |\n")
}

fn distribution(bench: &str, samples: &Samples) -> String {
    let mut line = format!("| {bench} | {} | {}", samples.name, samples.len());
    for part in [0.5, 0.99, 1.0] {
        let _ = write!(line, " | {}", time(samples.quantile(part)));
    }
    line + " |\n"
}

/// `old` with new panels in the place of those of the same benches.
pub(crate) fn picture(old: &str, measured: &[Measured], place: &Place) -> String {
    let old = svg::panels(old);
    let panel = |bench: &&str| -> Option<Drawn> {
        let Some(new) = measured.iter().find(|each| each.bench == *bench) else {
            return old.iter().find(|panel| panel.title() == *bench).cloned();
        };
        let title = format!("{bench} ({})", place.day);
        (!new.samples.is_empty()).then(|| svg::draw(&Panel { title: &title, samples: &new.samples }))
    };
    let panels: Vec<Drawn> = benches().iter().filter_map(panel).collect();
    svg::join(&panels, &place.machine)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::time::Duration;

    use super::*;

    /// All rows of a bench with this value, and one distribution.
    fn measured(bench: &'static str, value: f64) -> Measured {
        let rows = ROWS.iter().filter(|row| row.bench == bench);
        let mut samples = Samples::new(format!("{bench} at {value}"));
        samples.add(Duration::from_millis(3));
        Measured {
            bench,
            figures: rows.map(|row| Figure { row, value: Some(value) }).collect(),
            samples: vec![samples],
        }
    }

    fn place(day: &str) -> Place {
        Place { day: day.into(), machine: format!("the machine of {day}") }
    }

    fn lines(page: &str, with: &str) -> usize {
        page.lines().filter(|line| line.contains(with)).count()
    }

    #[test]
    fn what_was_not_measured_now_stays_with_its_day_and_its_machine() {
        let empty = format!("before\n{BEGIN}\n{END}\nafter\n");
        let all: Vec<_> = benches().into_iter().map(|bench| measured(bench, 41.0)).collect();
        let first = text(&empty, &all, &place("2026-01-01")).unwrap();
        assert!(first.starts_with("before\n") && first.ends_with("after\n"), "{first}");
        assert_eq!(lines(&first, "| 2026-01-01 |"), ROWS.len());
        assert_eq!(text(&first, &all, &place("2026-01-01")).unwrap(), first);

        let second = text(&first, &[measured("start", 42.0)], &place("2026-02-02")).unwrap();
        let of_start = ROWS.iter().filter(|row| row.bench == "start").count();
        assert_eq!(lines(&second, "| 2026-02-02 |"), of_start);
        assert_eq!(lines(&second, "| 2026-01-01 |"), ROWS.len() - of_start);
        assert_eq!(
            (lines(&second, "start at 42"), lines(&second, "start at 41"), lines(&second, "cold at 41")),
            (1, 0, 1)
        );
        let names =
            |page: &str| page.lines().filter_map(|line| Some(line.split('`').nth(1)?.to_owned())).collect::<Vec<_>>();
        assert_eq!(names(&second), names(&first), "in another order");
        assert_eq!(lines(&second, "the machine of"), 2);

        // Once nothing is left of a day, its machine goes, too.
        let third = text(&second, &all, &place("2026-02-02")).unwrap();
        assert_eq!(lines(&third, "2026-01-01"), 0, "{third}");
    }

    #[test]
    fn a_picture_keeps_the_panels_of_other_benches() {
        let all: Vec<_> = benches().into_iter().map(|bench| measured(bench, 41.0)).collect();
        let first = picture("", &all, &place("2026-01-01"));
        assert_eq!(svg::panels(&first).iter().map(Drawn::title).collect::<Vec<_>>(), benches());
        let second = picture(&first, &[measured("start", 42.0)], &place("2026-01-01"));
        assert_eq!(second.replace("start at 42", "start at 41"), first);
    }
}
