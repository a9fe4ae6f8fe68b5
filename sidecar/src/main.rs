// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce-sidecar`; see the library.

use std::process::ExitCode;

use evanesce_runtime::alloc::ZeroOnFree;

#[global_allocator]
static ALLOCATOR: ZeroOnFree = ZeroOnFree;

fn main() -> ExitCode {
    evanesce_sidecar::main()
}
