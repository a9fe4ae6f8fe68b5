// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce-sidecar check`: what is wrong with a configuration file, before a pod finds out.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use crate::config::{Config, here};
use crate::config_file::{search_path, text};

/// Checks `path`, or standard input.
///
/// # Errors
/// The line to end with.
pub fn run(path: &Path) -> Result<ExitCode, String> {
    let (name, text) = if path == Path::new("-") {
        let mut text = String::new();
        let read = io::stdin().read_to_string(&mut text).map(|_| text);
        ("standard input".to_owned(), read.map_err(|error| format!("cannot be read: {error}")))
    } else {
        (path.display().to_string(), text(path))
    };
    let checked = text.and_then(|text| Config::parse(&text).map_err(|error| error.to_string()));
    let config = checked.map_err(|wrong| format!("{name}: {wrong}"))?;
    let mut said = String::new();
    for note in here::missing(&config, &search_path()) {
        said += &format!("{name}: note: {note}\n");
    }
    let hooks: usize = config.volumes.iter().map(|volume| volume.hooks.len()).sum();
    said += &format!("{name}: nothing is wrong: volumes {}, hooks {hooks}\n", config.volumes.len());
    io::stdout().write_all(said.as_bytes()).map_err(|error| format!("standard output: {error}"))?;
    Ok(ExitCode::SUCCESS)
}
