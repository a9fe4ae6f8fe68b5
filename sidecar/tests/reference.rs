// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The reference page is what the program says of itself: `EVANESCE_UPDATE=1` writes it anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use clap::CommandFactory as _;
use evanesce_engine::spec::form::Form;
use evanesce_sidecar::args::Args;
use evanesce_sidecar::config::keys::TABLES;
use evanesce_sidecar::metrics::Metrics;

const HEAD: &str = "\
# The sidecar

Written from the program by its test; change it there. How to use it: [sidecar/README.md](../../sidecar/README.md).

`evanesce-sidecar run` watches mounted volumes and tells the application about changes; `evanesce-sidecar check FILE` says what
is wrong with a configuration file. Exit codes:

| Code | Means |
| --- | --- |
| 0 | it was asked to end (SIGTERM, SIGINT) and did, also in the middle of a hook that took longer than the grace; for `check`: nothing is wrong |
| 1 | it could not start: the configuration, a program of a hook, the HTTP address; for `check`: something is wrong |
| 2 | the command line is wrong |

While it runs nothing ends it but a signal: what is wrong with a volume, a hook or a configuration file that has changed is in
the log and in metrics.
";

const CONFIG: &str = "
## The configuration file

YAML, one document. Unknown keys are errors that name the line and the nearest known key. Durations are written `10s`, `5m`,
`1h30m` or `250ms`; text that YAML would read as a number or a boolean has to be in quotes. The file is read again when it
changes; one that is refused, in one line of the log, leaves what held before.
";

const METRICS: &str = "
## Metrics

Served at `/metrics` of `--http-address`, beside `/readyz` (every volume was there once) and `/livez`. Labels have the values
below and no others: no name of a volume or a hook is ever one; those are in the log. Counters begin at 0.
";

/// A row of a table; what stands in a cell cannot end it.
fn row(cells: &[&str]) -> String {
    cells.iter().fold("|".to_owned(), |row, cell| row + " " + &cell.replace('|', "\\|") + " |") + "\n"
}

fn flags() -> String {
    let mut page = String::from("\n## Flags of `run`\n\nEvery flag is an environment variable too; a flag wins.\n\n");
    page += &row(&["Flag", "Variable", "Default", "What it does"]);
    page += &row(&["---", "---", "---", "---"]);
    let mut command = Args::command();
    command.build();
    let run = command.find_subcommand("run").unwrap();
    for flag in run.get_arguments().filter(|flag| !matches!(flag.get_id().as_str(), "help" | "version")) {
        let variable = flag.get_env().unwrap_or_else(|| panic!("{} has no variable", flag.get_id()));
        let [default] = flag.get_default_values() else { panic!("{} has no default", flag.get_id()) };
        page += &row(&[
            &format!("`--{}`", flag.get_long().unwrap()),
            &format!("`{}`", variable.to_str().unwrap()),
            &format!("`{}`", default.to_str().unwrap()),
            &flag.get_help().unwrap().to_string(),
        ]);
    }
    page
}

fn keys() -> String {
    let mut page = CONFIG.to_owned();
    for table in TABLES {
        let title = if table.path.is_empty() { "the file" } else { table.path };
        write!(page, "\n### `{title}`\n\n{}\n\n", table.about).unwrap();
        page += &row(&["key", "value", "default", "meaning"]);
        page += &row(&["---", "---", "---", "---"]);
        for key in table.keys {
            let value = match key.form {
                Form::OneOf(words) => format!("`{}`", words.join("`, `")),
                ref other => other.kind().into_owned(),
            };
            page += &row(&[&format!("`{}`", key.name), &value, key.default, key.meaning]);
        }
    }
    page
}

fn metrics() -> String {
    let mut page = METRICS.to_owned() + "\n";
    page += &row(&["Name", "Kind", "Labels", "What it says"]);
    page += &row(&["---", "---", "---", "---"]);
    let (_, all) = Metrics::declare(std::sync::Arc::default());
    let mut values = Vec::new();
    for metric in all.describe() {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{}`", label.key)).collect();
        page += &row(&[&format!("`{}`", metric.name), metric.kind.as_str(), &labels.join(", "), metric.help]);
        values.extend(metric.labels.into_iter().map(|label| (metric.name.clone(), label)));
    }
    page += "\nValues of labels:\n\n";
    for (name, label) in values {
        let listed: Vec<_> = label.values.iter().map(|value| format!("`{value}`")).collect();
        writeln!(page, "- `{}` of `{name}`: {}", label.key, listed.join(", ")).unwrap();
    }
    page
}

#[test]
fn the_page_is_what_the_program_says_of_itself() {
    let text = format!("{HEAD}{}{}{}", flags(), keys(), metrics());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/sidecar.md");
    if std::env::var_os("EVANESCE_UPDATE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "run the test again with EVANESCE_UPDATE=1 and commit {}", path.display());
}
