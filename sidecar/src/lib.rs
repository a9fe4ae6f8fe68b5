// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce-sidecar` runs beside one application and tells it when its secrets have changed.
//!
//! So far in one way, *attached*: the node plugin keeps a volume, this program mounts it too, looks which set of files is
//! shown, and tells the application. It needs no credential, opens no secret, and knows nothing that the application may
//! not know.
//!
//! From a change to the application, one file per step: [`notice`] rings, [`sight`] looks, a [`source`] hands on what is
//! seen, the [`teller`] decides when and how often, a [`hook`] does it. [`config`] says what is to be done and
//! [`config_file`] follows the file that says it; [`metrics`] and [`standing`] are what can be asked; [`mod@run`] puts it
//! together.

pub mod args;
pub mod check;
pub mod config;
pub mod config_file;
pub mod hook;
pub mod metrics;
pub mod notice;
pub mod run;
pub mod sight;
pub mod source;
pub mod standing;
pub mod teller;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use evanesce_runtime::{alloc, harden, telemetry};

use crate::args::{Args, Command};

/// Threads that wait for the kernel in a task's stead: for the name of a host.
const BLOCKING: usize = 2;

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Run(run) => begin(run),
        Command::Check(check) => check::run(&check.config),
    };
    done.unwrap_or_else(|wrong| {
        // Before there is a log, and in one line after it. Nothing is left to do where it cannot be said.
        let _ = writeln!(std::io::stderr(), "evanesce-sidecar: {wrong}");
        ExitCode::FAILURE
    })
}

fn begin(args: args::Run) -> Result<ExitCode, String> {
    harden::harden_process().map_err(|error| error.to_string())?;
    harden::no_new_privs().map_err(|error| error.to_string())?;
    alloc::few_heaps();
    telemetry::init(args.log_format, &args.log).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(BLOCKING)
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(run::run(args))?;
    // A hook that is still in the middle of something is ended with its tasks; a name that is looked up is not waited for.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}
