// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce debug memscan`: how many copies of a secret are in the memory of a process.
//!
//! [`forms`] writes the secret in every way in which it may lie there, [`process`] reads the memory of another process
//! as root can, [`search`] finds the one in the other. The process is not stopped, and nothing is written to it.

mod forms;
mod process;
mod report;
mod search;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use evanesce_engine::secret::SecretBytes;

use self::process::{Process, Unread};
use self::search::{Found, Search};
use crate::args::{Memscan, Output};
use crate::input;

/// A shorter secret is found by chance.
const SHORTEST: usize = 8;

/// What one process holds.
struct Scan {
    pid: u32,
    name: String,
    mappings: usize,
    bytes: usize,
    /// With the name of the mapping.
    found: Vec<(String, Found)>,
    unread: Vec<Unread>,
}

/// Runs the command.
pub(crate) fn run(args: &Memscan, output: Output) -> anyhow::Result<ExitCode> {
    let secrets = secrets(args)?;
    let search = Search::new(secrets.iter().map(SecretBytes::expose))?;
    let scans = args.pids.iter().map(|pid| scan(*pid, &search)).collect::<anyhow::Result<Vec<_>>>()?;
    match output {
        Output::Text => report::text(&scans)?,
        Output::Json => report::json(&scans)?,
    }
    Ok(if scans.iter().any(|scan| !scan.found.is_empty()) {
        ExitCode::from(3)
    } else if scans.iter().flat_map(|scan| &scan.unread).any(|unread| unread.is_a_gap()) {
        ExitCode::from(4)
    } else {
        ExitCode::SUCCESS
    })
}

/// Never from the command line, which everybody on the machine can read.
fn secrets(args: &Memscan) -> anyhow::Result<Vec<SecretBytes>> {
    let mut secrets = Vec::new();
    let from: &[_] = if args.secrets.is_empty() { &["-".into()] } else { &args.secrets };
    for path in from {
        let text = input::read(path)?;
        let name = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
        let before = secrets.len();
        if args.lines {
            let lines = text.expose().split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            secrets.extend(lines.map(SecretBytes::from));
        } else {
            secrets.push(SecretBytes::from(text.expose().strip_suffix(b"\n").unwrap_or(text.expose())));
        }
        if secrets.len() == before || secrets.iter().any(|secret| secret.len() < SHORTEST) {
            bail!("{name}: a secret of less than {SHORTEST} bytes would be found by chance");
        }
    }
    Ok(secrets)
}

fn scan(pid: u32, search: &Search) -> anyhow::Result<Scan> {
    let process = Process::open(pid).with_context(|| {
        format!("process {pid} cannot be looked into; this takes root with CAP_SYS_PTRACE, as outside of containers")
    })?;
    let mut scan = Scan { pid, name: process.name(), mappings: 0, bytes: 0, found: Vec::new(), unread: Vec::new() };
    for mapping in process.mappings()? {
        scan.mappings += 1;
        let read = process.read(&mapping, |address, bytes| {
            scan.bytes += bytes.len();
            let found = search.run(address, bytes);
            scan.found.extend(found.into_iter().map(|found| (mapping.name.clone(), found)));
        });
        scan.unread.extend(read.with_context(|| format!("process {pid}: {}", mapping.name))?);
    }
    // What went away while it was being read has nothing any more.
    let now = process.mappings()?;
    scan.unread.retain(|unread| now.iter().any(|mapping| mapping.overlaps(&unread.mapping)));
    Ok(scan)
}
