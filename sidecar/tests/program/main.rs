// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The program as a user runs it: a real directory that the engine swaps, real processes, sockets and files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command_line;
mod config_file;
mod ending;
mod ground;
mod noticing;
mod telling;
