// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Readers of a volume that is refreshed without pause, on a real tmpfs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "the measured rate is what a reader of the test's output looks for")]

mod ground;
mod numbers;
mod pairs;

#[path = "../../../integration/src/counts.rs"]
#[allow(dead_code, unreachable_pub, reason = "the one table of counts; its other rows are for other tests")]
mod counts;

#[path = "../../../integration/src/chance.rs"]
#[allow(dead_code, unreachable_pub, reason = "the one source of repeatable chance")]
mod chance;
