// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The engine half as kubelet sees it, over gRPC and without root: the backend is in memory, mounts are links to folders,
//! and time stands still until a test moves it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accounts;
mod adoption;
mod ceilings;
mod classes;
mod failures;
mod fake_mounts;
mod fleet;
mod ground;
mod health;
mod late_classes;
mod leases;
mod lent;
mod listing;
mod lives;
mod odd_leases;
mod offline;
mod outages;
mod raw;
mod refreshes;
mod requests;
mod schedules;
mod shared_leases;
mod staleness;
mod states;
mod stepped;
mod storm;
mod tokens;
mod too_stale;

#[path = "../../../integration/src/counts.rs"]
#[allow(dead_code, unreachable_pub, reason = "the one table of counts; its other rows are for other tests")]
mod counts;

#[path = "../../../integration/src/chance.rs"]
#[allow(dead_code, unreachable_pub, reason = "the one source of repeatable chance")]
mod chance;
