// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The warden against the real kernel: mounts, paths, records, the journal, and the three processes of the built program.
//!
//! Needs root (or `unshare --user --map-root-user`, for all but the processes). Every test has a mount namespace of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod adoption;
mod credentials;
mod ground;
mod journal;
mod paths;
mod processes;
mod records;
mod supervision;
mod upgrade;
mod volumes;
