// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Runs a program, and everything that it starts, on a kernel that lacks some system calls:
//! `without memfd_secret,fsopen -- PROGRAM ARGUMENT…`.
//!
//! A filter answers `ENOSYS` to them, as an older kernel does, so that the program needs no switch for its tests.

#![allow(clippy::print_stderr, reason = "a program for tests tells the test")]

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// The calls that tests do without, by name, with the kernel that brought each.
const CALLS: [(&str, libc::c_long); 13] = [
    ("open_tree", libc::SYS_open_tree),                             // 5.2
    ("move_mount", libc::SYS_move_mount),                           // 5.2
    ("fsopen", libc::SYS_fsopen),                                   // 5.2
    ("fsconfig", libc::SYS_fsconfig),                               // 5.2
    ("fsmount", libc::SYS_fsmount),                                 // 5.2
    ("fspick", libc::SYS_fspick),                                   // 5.2
    ("pidfd_open", libc::SYS_pidfd_open),                           // 5.3
    ("openat2", libc::SYS_openat2),                                 // 5.6
    ("close_range", libc::SYS_close_range),                         // 5.9
    ("mount_setattr", libc::SYS_mount_setattr),                     // 5.12
    ("landlock_create_ruleset", libc::SYS_landlock_create_ruleset), // 5.13
    ("memfd_secret", 447),                                          // 5.14; libc has no name for it everywhere
    ("statmount", 457),                                             // 6.8; the same
];

fn main() -> ExitCode {
    match run() {
        Err(error) => {
            eprintln!("without: {error:#}");
            ExitCode::FAILURE
        }
        Ok(never) => match never {},
    }
}

fn run() -> Result<std::convert::Infallible> {
    let mut arguments = std::env::args_os().skip(1);
    let calls = arguments.next().and_then(|calls| calls.into_string().ok()).context("which calls?")?;
    if arguments.next().is_none_or(|separator| separator != "--") {
        bail!("without CALL,… -- PROGRAM ARGUMENT…");
    }
    let program = arguments.next().context("which program?")?;
    seccompiler::apply_filter(&filter(&calls)?)?;
    let error = Command::new(&program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}

fn filter(calls: &str) -> Result<BpfProgram> {
    let number = |name: &str| {
        let found = CALLS.iter().find(|(known, _)| *known == name);
        found.map(|(_, number)| *number).with_context(|| format!("no call named {name} in the table: add it"))
    };
    let rules = calls.split(',').map(|name| Ok((number(name)?, Vec::new()))).collect::<Result<_>>()?;
    let missing = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, missing, std::env::consts::ARCH.try_into()?)?;
    Ok(filter.try_into()?)
}
