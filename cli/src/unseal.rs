// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce unseal`: what was sealed, to standard output and nowhere else.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use evanesce_engine::backend::sealed::{self, Identities};

use crate::args::Unseal;
use crate::input;
use crate::output::{WARNING, remark};

/// Runs the command.
pub(crate) fn run(args: &Unseal) -> anyhow::Result<ExitCode> {
    let mut identities = Vec::new();
    for path in &args.identities {
        let file = input::read_identity(path)?;
        identities.push(Identities::parse(file.expose()).with_context(|| path.display().to_string())?);
    }
    let identities = identities.into_iter().collect();
    let file = input::read(&args.input)?;
    let text = sealed::unseal(file.expose(), &identities).with_context(|| args.input.display().to_string())?;
    if io::stdout().is_terminal() {
        remark(WARNING, "warning", "secrets on a terminal stay in its scroll-back");
    }
    let mut out = io::stdout().lock();
    out.write_all(text.expose())?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
