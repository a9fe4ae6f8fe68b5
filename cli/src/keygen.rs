// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce keygen`: an identity in a file of its own, in the form that age's tools read.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use evanesce_engine::backend::sealed::new_identity;
use serde_json::json;

use crate::args::{Keygen, Output};
use crate::output::{NOTE, remark, say, say_json};

/// Runs the command.
pub(crate) fn run(args: &Keygen, output: Output) -> anyhow::Result<ExitCode> {
    let (identity, recipient) = new_identity();
    let head = format!("# recipient: {recipient}\n");
    let parts = [head.as_bytes(), identity.expose(), b"\n"];
    let Some(path) = &args.to else {
        if output == Output::Json {
            bail!("an identity is not printed as JSON: name a file with --to");
        }
        let mut out = io::stdout().lock();
        for part in parts {
            out.write_all(part)?;
        }
        out.flush()?;
        remark(NOTE, "recipient", recipient);
        return Ok(ExitCode::SUCCESS);
    };
    // Never over another: what is sealed for a lost identity is lost.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("{}: cannot be made anew; an identity is never overwritten", path.display()))?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()?;
    match output {
        Output::Text => say(recipient)?,
        Output::Json => say_json(&json!({"ok": true, "recipient": recipient, "identity_file": path}))?,
    }
    Ok(ExitCode::SUCCESS)
}
