// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce debug`: looks into running processes.

mod memscan;

use std::process::ExitCode;

use crate::args::{Debug, DebugCommand, Output};

/// Runs the command.
pub(crate) fn run(args: &Debug, output: Output) -> anyhow::Result<ExitCode> {
    match &args.command {
        DebugCommand::Memscan(args) => memscan::run(args, output),
    }
}
