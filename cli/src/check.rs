// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce check`: classes as the node plugin would read them, and held against each other.

mod classes;
mod report;
mod together;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

use anyhow::{Context as _, bail};
use evanesce_engine::class_dir::is_class_file;

use crate::args::{Check, Output};
use crate::input;
use classes::Findings;

/// Runs the command.
pub(crate) fn run(args: &Check, output: Output) -> anyhow::Result<ExitCode> {
    let mut findings = Findings::default();
    for path in files(&args.files)? {
        let text = input::read(&path)?;
        let name = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
        findings.read(&name, text.expose());
    }
    findings.check_names();
    together::check(&mut findings);
    match output {
        Output::Text => report::text(&findings)?,
        Output::Json => report::json(&findings)?,
    }
    Ok(if findings.ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The files that are meant: a folder stands for the files in it that the node plugin would read.
pub(crate) fn files(given: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in given {
        if path == Path::new("-") || !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let listed: io::Result<Vec<_>> = fs::read_dir(path).and_then(Iterator::collect);
        let mut inside: Vec<_> = listed
            .with_context(|| path.display().to_string())?
            .into_iter()
            .filter(|entry| is_class_file(&entry.file_name().to_string_lossy()))
            .map(|entry| entry.path())
            .collect();
        if inside.is_empty() {
            bail!("{}: no file in it ends in .yaml or .yml", path.display());
        }
        inside.sort();
        files.append(&mut inside);
    }
    Ok(files)
}
