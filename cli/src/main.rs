// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce`, the command-line tool: see a demonstration, check classes, list a node's volumes and what
//! is lent to them, refresh them, draw what they will ask, make keys, seal and unseal
//! secrets, look into memory.

mod args;
mod check;
mod columns;
mod debug;
mod demo;
mod input;
mod keygen;
mod leases;
mod node;
mod output;
mod plan;
mod refresh;
mod seal;
mod socket;
mod uninstall_check;
mod unseal;
mod volumes;

use std::process::ExitCode;

use clap::Parser as _;
use evanesce_csi::Role;
use evanesce_runtime::alloc::ZeroOnFree;

use args::{Args, Command};

#[global_allocator]
static ALLOCATOR: ZeroOnFree = ZeroOnFree;

fn main() -> ExitCode {
    // The node plugin starts its own file again, under other names; a program that embeds it is that file.
    if let Some(role) = Role::of_this_process() {
        return role.run();
    }
    let Args { output, command } = Args::parse();
    let done = match command {
        Command::Demo(args) => demo::run(&args, output),
        Command::Check(args) => check::run(&args, output),
        Command::Volumes(args) => volumes::run(&args, output),
        Command::Leases(args) => leases::run(&args, output),
        Command::Refresh(args) => refresh::run(&args, output),
        Command::Plan(args) => plan::run(&args, output),
        Command::Keygen(args) => secretly(|| keygen::run(&args, output)),
        Command::Seal(args) => secretly(|| seal::run(&args, output)),
        Command::Unseal(args) => secretly(|| unseal::run(&args)),
        Command::Debug(args) => secretly(|| debug::run(&args, output)),
        Command::UninstallCheck(args) => uninstall_check::run(&args, output),
    };
    done.unwrap_or_else(|error| output::failed(&error, output))
}

/// For commands that hold secrets: no core dump, no debugger.
fn secretly(work: impl FnOnce() -> anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    evanesce_runtime::harden::harden_process()?;
    work()
}
