// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `integration/bench/run` names what it measures, and the page in `docs` has a figure for each. Nothing is measured here:
//! a time is not a test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_evanesce-bench")).args(arguments).output().unwrap()
}

/// The second word of every line of `--list`.
fn rows(arguments: &[&str]) -> Vec<String> {
    let output = bench(&[&["--list"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect()
}

fn page() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks.md");
    std::fs::read_to_string(page).unwrap()
}

#[test]
fn every_promise_has_a_row() {
    let rows = rows(&[]);
    for promised in [
        "cold-publish-1",
        "cold-publish-10",
        "fresh-publish",
        "republish",
        "republish-dial",
        "rotate-swap",
        "write-to-read",
        "write-to-read-forced",
        "burst-wall",
        "burst-calls",
        "memory-idle",
        "memory-100",
        "idle",
        "idle-5m",
        "start-to-ready",
        "engine-restart",
        "publishes-1",
        "publishes-16",
        "publishes-64",
    ] {
        assert!(rows.iter().any(|row| row == promised), "no row {promised} among {rows:?}");
    }
}

#[test]
fn the_page_has_a_figure_for_every_row_and_for_nothing_else() {
    let page = page();
    let listed = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert_eq!(listed.collect::<Vec<_>>(), rows(&[]), "run integration/bench/run --docs");
    assert!(page.contains("(benchmarks.svg)"), "the page shows no picture");
}

#[test]
fn a_bench_is_chosen_by_its_name_or_by_a_row_of_it() {
    assert_eq!(rows(&["start"]), ["start-to-ready", "engine-restart"]);
    assert_eq!(rows(&["engine-restart"]), rows(&["start"]));
    assert!(rows(&["burst", "republish"]).len() < rows(&[]).len());
    assert!(!bench(&["--list", "no-such-row"]).status.success());
}
