// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Configuration files as users write them: every file below `configs/succeeds` is read, every file below `configs/fails`
//! fails with the message in its first line. To add a case, add a file.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use evanesce_sidecar::config::{Config, On};

fn cases(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs").join(folder);
    let mut cases: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

#[test]
fn what_is_right_is_read() {
    for case in cases("succeeds") {
        if let Err(error) = Config::parse(&fs::read_to_string(&case).unwrap()) {
            panic!("{}: {error}", case.display());
        }
    }
}

#[test]
fn the_recipes_of_the_readme_are_read() {
    let readme = include_str!("../README.md");
    let blocks: Vec<_> =
        readme.split("```yaml\n# sidecar.yaml\n").skip(1).filter_map(|it| it.split("```").next()).collect();
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        Config::parse(block).unwrap_or_else(|error| panic!("{error}:\n{block}"));
    }
}

#[test]
fn what_is_wrong_says_where_and_how_to_mend_it_and_quotes_no_header() {
    let mut failures = String::new();
    for case in cases("fails") {
        let text = fs::read_to_string(&case).unwrap();
        let expected = text.lines().next().unwrap().strip_prefix("# error: ").unwrap();
        let message =
            Config::parse(&text).map_or_else(|error| format!("{error:?} {error}"), |_| "it was read".to_owned());
        if !message.contains(expected) || message.contains("CANARY") {
            failures += &format!("{}\n  expected: {expected}\n  heard:    {message}\n", case.display());
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

#[test]
fn the_value_of_a_header_does_not_print() {
    let case = cases("succeeds").into_iter().find(|case| case.ends_with("everything.yaml")).unwrap();
    let config = Config::parse(&fs::read_to_string(case).unwrap()).unwrap();
    let printed = format!("{config:?}");
    assert!(printed.contains("authorization") && !printed.contains("CANARY"), "{printed}");
    assert_eq!(config.volumes[0].hooks(On::Changed).count(), 5);
}
