// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! How many copies of what a process has in its memory: `evanesce debug memscan`, as a user runs it.

use std::fmt;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::binaries;
use crate::processes::Process;

/// How long after an answer memory may still hold what the answer was made of.
const CLEAN_WITHIN: Duration = Duration::from_secs(2);

/// What is in the memory of some processes.
#[derive(Debug, Deserialize)]
pub struct Scan {
    /// One entry for each.
    pub processes: Vec<Scanned>,
}

/// What is in the memory of one process.
#[derive(Debug, Deserialize)]
pub struct Scanned {
    /// Its name, `argv[0]`.
    pub name: String,
    /// Bytes that were read.
    pub bytes: usize,
    /// Copies and parts of copies.
    pub found: Vec<Found>,
    /// What could not be read.
    pub unread: Vec<Unread>,
}

/// A copy, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Found {
    /// Which of the canaries: the first is 1.
    pub secret: usize,
    /// How it is written.
    pub form: String,
    /// Whether it is all of it.
    pub whole: bool,
    /// Where.
    pub mapping: String,
    /// Where in it.
    pub address: String,
}

/// A mapping that could not be read.
#[derive(Debug, Clone, Deserialize)]
pub struct Unread {
    /// Its name.
    pub mapping: String,
    /// The reason, in one word.
    pub why: String,
}

impl Scan {
    /// Everything that was found, in all of them.
    #[must_use]
    pub fn found(&self) -> Vec<&Found> {
        self.processes.iter().flat_map(|process| &process.found).collect()
    }

    /// How often each canary is there as a whole, by its number less one.
    #[must_use]
    pub fn copies(&self, canaries: usize) -> Vec<usize> {
        let found = self.found();
        (1..=canaries).map(|secret| found.iter().filter(|it| it.whole && it.secret == secret).count()).collect()
    }

    /// Whether nothing was found, and nothing could hide but in `memfd_secret`.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.found().is_empty() && self.processes.iter().flat_map(|it| &it.unread).all(|it| it.why != "gap")
    }
}

impl fmt::Display for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for process in &self.processes {
            writeln!(f, "{}: {} bytes read", process.name, process.bytes)?;
            for Found { secret, form, whole, mapping, address } in &process.found {
                let what = if *whole { "copy" } else { "part" };
                writeln!(f, "  {what} of canary {secret} as {form} at {address} in {mapping}")?;
            }
            for Unread { mapping, why } in &process.unread {
                writeln!(f, "  not read: {mapping} ({why})")?;
            }
        }
        Ok(())
    }
}

/// Looks for every canary in the memory of every process.
///
/// # Errors
/// When the tool fails, as for a process that is gone.
pub fn scan(processes: &[Process], canaries: &[impl AsRef<str>]) -> Result<Scan> {
    let mut child = Command::new(binaries::evanesce()?)
        .args(["debug", "memscan", "--output", "json", "--lines"])
        .args(processes.iter().map(|process| process.pid().as_raw_nonzero().to_string()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the scanner")?;
    let lines: String = canaries.iter().map(|canary| format!("{}\n", canary.as_ref())).collect();
    child.stdin.take().context("the scanner reads")?.write_all(lines.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(
        matches!(output.status.code(), Some(0 | 3 | 4)),
        "the scanner failed: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Waits until none of the processes holds a canary: two seconds is all they have.
///
/// # Panics
/// When a look that began later than that finds something.
pub fn until_clean(when: &str, processes: &[Process], canaries: &[impl AsRef<str>]) {
    let scan = until(processes, canaries, Scan::is_clean);
    assert!(scan.is_clean(), "{when}:\n{scan}");
}

/// Looks until `good` holds, or for two seconds; the last look.
///
/// # Panics
/// When the scanner fails.
pub fn until(processes: &[Process], canaries: &[impl AsRef<str>], good: impl Fn(&Scan) -> bool) -> Scan {
    let end = Instant::now() + CLEAN_WITHIN;
    loop {
        let last = Instant::now() >= end;
        let scan = scan(processes, canaries).expect("memory can be scanned");
        if last || good(&scan) {
            return scan;
        }
    }
}
