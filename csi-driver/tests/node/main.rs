// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The engine half as kubelet sees it, over gRPC and without root: the backend is in memory, mounts are links to folders,
//! and time stands still until a test moves it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod adoption;
mod ceilings;
mod classes;
mod failures;
mod fake_mounts;
mod ground;
mod raw;
mod refreshes;
mod requests;
mod staleness;
mod states;
mod tokens;
