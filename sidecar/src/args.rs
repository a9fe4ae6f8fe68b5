// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The command line. Every flag of `run` is an environment variable too; every refusal names the flag and the cure.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use evanesce_runtime::telemetry::{LogFormat, TelemetryError};

/// Tells the application beside it that its secrets have changed: by a signal, a request, a program or a touched file.
#[derive(Debug, Parser)]
#[command(
    name = "evanesce-sidecar",
    version,
    after_help = "Exit codes:\n  \
        0  it was asked to end (SIGTERM, SIGINT) and did; for check: nothing is wrong\n  \
        1  it could not start or go on; for check: something is wrong\n  \
        2  the command line is wrong"
)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Until SIGTERM.
    Run(Run),
    /// Once.
    Check(Check),
}

/// Watch the volumes and tell the application, until SIGTERM
#[derive(Debug, clap::Args)]
pub struct Run {
    /// The configuration file; read again when it changes
    #[arg(long, env = "EVANESCE_SIDECAR_CONFIG", default_value = "/etc/evanesce/sidecar.yaml", value_name = "FILE")]
    pub config: PathBuf,

    /// Where to serve `/metrics`, `/readyz` and `/livez`; `none` turns them off
    #[arg(long, env = "EVANESCE_SIDECAR_HTTP_ADDRESS", default_value = "127.0.0.1:9812", value_parser = http_address, value_name = "ADDRESS")]
    pub http_address: HttpAddress,

    /// How long hooks that run may go on after SIGTERM (`20s`, `500ms`, `2m`); less than the pod's
    /// `terminationGracePeriodSeconds`
    #[arg(long, env = "EVANESCE_SIDECAR_GRACE", default_value = "20s", value_parser = duration, value_name = "DURATION")]
    pub grace: Duration,

    /// What to log: `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,evanesce_sidecar=debug`
    #[arg(long, env = "EVANESCE_SIDECAR_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,

    /// How to log: `human`, `json`, or `auto`, which is human at a terminal
    #[arg(long, env = "EVANESCE_SIDECAR_LOG_FORMAT", default_value = "auto", value_parser = log_format, value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// Say what is wrong with a configuration file
///
/// Programs that its hooks run are looked for here too; what is missing is a note and no error, because the file may be
/// meant for another image.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// The file, or `-` for standard input
    #[arg(value_name = "FILE")]
    pub config: PathBuf,
}

/// Where to serve metrics and health, if anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpAddress(pub Option<SocketAddr>);

fn http_address(text: &str) -> Result<HttpAddress, String> {
    match text {
        "none" => Ok(HttpAddress(None)),
        other => other
            .parse()
            .map(|address| HttpAddress(Some(address)))
            .map_err(|_| "write an address and a port, such as 127.0.0.1:9812 or 0.0.0.0:9812, or `none`".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 3] = [("ms", 1), ("s", 1_000), ("m", 60_000)];
    UNITS
        .iter()
        .find_map(|(suffix, unit)| text.strip_suffix(suffix)?.parse::<u64>().ok()?.checked_mul(*unit))
        .filter(|milliseconds| *milliseconds <= 3_600_000)
        .map(Duration::from_millis)
        .ok_or_else(|| "write a whole number with ms, s or m, up to 60m, such as 20s".to_owned())
}

fn log_format(text: &str) -> Result<LogFormat, TelemetryError> {
    text.parse()
}
