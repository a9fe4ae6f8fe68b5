// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Words on the terminal: results on standard output, everything else on standard error, colours only where somebody
//! looks.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::args::Output;

/// Something is wrong.
pub(crate) const ERROR: Style = AnsiColor::Red.on_default().bold();
/// Something may be wrong.
pub(crate) const WARNING: Style = AnsiColor::Yellow.on_default().bold();
/// Something to know.
pub(crate) const NOTE: Style = AnsiColor::Cyan.on_default().bold();
/// All is well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Less important than the rest.
pub(crate) const FAINT: Style = Style::new().dimmed();

/// Text in a style.
pub(crate) fn styled(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// A line of the result.
pub(crate) fn say(line: impl Display) -> io::Result<()> {
    writeln!(anstream::stdout(), "{line}")
}

/// The terminal's last line, written over what it was. That nobody can see it is no reason to fail.
pub(crate) fn rewrite(line: &str) {
    let mut out = anstream::stdout();
    let _ = write!(out, "\r\x1b[K{line}").and_then(|()| out.flush());
}

/// The result for a program: one line of JSON.
pub(crate) fn say_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(io::stdout().write_all(&line)?)
}

/// A remark beside the result. That nobody can read it is no reason to fail.
pub(crate) fn remark(style: Style, word: &str, text: impl Display) {
    let _ = writeln!(anstream::stderr(), "{} {text}", styled(style, format_args!("{word}:")));
}

/// Says why the command failed.
pub(crate) fn failed(error: &anyhow::Error, output: Output) -> ExitCode {
    match output {
        Output::Text => remark(ERROR, "error", format_args!("{error:#}")),
        Output::Json => {
            let _ = say_json(&serde_json::json!({"ok": false, "error": format!("{error:#}")}));
        }
    }
    ExitCode::FAILURE
}
