// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `kill -9` at any moment, under publishes, refreshes and unpublishes against a real OpenBao: the plugin comes back,
//! running pods' files are whole, and nothing leaks. A run that failed is repeated with `EVANESCE_SEED`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod leaks;
mod pods;
mod service;
mod steps;
mod storm;

use storm::Victim;

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_half_may_die_at_any_moment() {
    storm::run(Victim::Engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_warden_may_die_at_any_moment() {
    storm::run(Victim::Warden).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_halves_may_die_at_any_moment() {
    storm::run(Victim::Both).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_launcher_may_die_at_any_moment() {
    storm::run(Victim::Launcher).await;
}
