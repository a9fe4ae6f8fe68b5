// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The half without privileges: talks to kubelet and to secret stores, sees secrets, may do nothing else.

use std::process::ExitCode;

use evanesce_runtime::telemetry;

use crate::confine;
use crate::role::{self, Role};
use crate::warden_client::{Start, WardenClient};

/// The engine half's process; its argument is the launcher's pid, its standard input the channel to the warden.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            role::complain(Role::Engine, &error);
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let launcher = std::env::args().nth(1).ok_or("started by hand: start evanesce-csi")?.parse()?;
    confine::engine_half(launcher)?;
    let start = Start::from_stdin()?;
    telemetry::init(start.config.log_format.into(), &start.config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let warden = WardenClient::new(start.channel)?;
        tokio::select! {
            () = warden.draining() => {}
            () = warden.gone() => {}
        }
        Ok(())
    })
}
