// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce-csi`, the node plugin; see the library.

use std::process::ExitCode;

use evanesce_csi::Role;
use evanesce_runtime::alloc::ZeroOnFree;

#[global_allocator]
static ALLOCATOR: ZeroOnFree = ZeroOnFree;

fn main() -> ExitCode {
    // Under any other name a user gave the file, it is what a user starts.
    Role::of_this_process().unwrap_or(Role::Warden).run()
}
