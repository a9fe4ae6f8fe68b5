// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce-csi` that can be made to end at any named step: for tests alone; see `evanesce_engine::crash`.

use std::process::ExitCode;

use evanesce_csi::Role;

fn main() -> ExitCode {
    Role::of_this_process().unwrap_or(Role::Warden).run()
}
