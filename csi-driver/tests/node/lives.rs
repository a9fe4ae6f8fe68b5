// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Secrets that end: when they are replaced, on either clock, and what is not asked for meanwhile.

use std::sync::atomic::Ordering;
use std::time::Duration;

use evanesce_engine::backend::BackendErrorKind;
use tokio::time::advance;

use crate::classes::{EVERY, spec};
use crate::ground::{Node, generations, leased, settle, until};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn a_lease_is_replaced_when_two_thirds_of_it_are_over() {
    for lease in [SECOND, 60 * SECOND, HOUR] {
        let (node, _pod) = leased(lease).await;
        for fetches in 1..4 {
            assert_eq!(node.backend.counts().fetches, fetches, "{lease:?}");
            advance(lease * 2 / 3 - SECOND / 10).await;
            settle().await;
            assert_eq!(node.backend.counts().fetches, fetches, "{lease:?}: early");
            advance(SECOND / 10 + Duration::from_millis(1)).await;
            until("it is replaced", || node.refreshed("unchanged", fetches)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn beside_what_ends_static_secrets_are_asked_for_their_version_alone() {
    let node = Node::new().await;
    node.backend.put("kv/leased", &[("password", "first")]);
    node.backend.lease("kv/leased", HOUR);
    node.classes.set("db", spec(&["username kv/db username", "password kv/leased password"]));
    node.publish(&node.pod("payments", "pod-1")).await.unwrap();
    let before = node.backend.counts();
    for round in 1..=7 {
        advance(EVERY).await;
        until("versions are asked", || node.refreshed("unchanged", round)).await;
        let now = node.backend.counts();
        assert_eq!((now.fetches, now.versions), (before.fetches, before.versions + round));
    }
    advance(EVERY).await;
    until("forty minutes are over", || node.backend.counts().fetches == before.fetches + 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_moves_no_lease_beyond_its_end() {
    for step in [-3600, 3600] {
        let (node, _pod) = leased(HOUR).await;
        node.clock.ahead.store(step, Ordering::Relaxed);
        // Forward, or a machine that slept: the look at the wall clock sees it.
        for seconds in [30, 6] {
            advance(seconds * SECOND).await;
            settle().await;
        }
        assert_eq!(node.backend.counts().fetches, if step > 0 { 2 } else { 1 }, "{step}");
        // Back: the other clock does not know of it.
        advance(HOUR * 2 / 3).await;
        until("it is replaced", || node.backend.counts().fetches >= 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_between_two_looks_at_versions_moves_no_lease() {
    let node = Node::new().await;
    node.backend.put("kv/leased", &[("password", "first")]);
    node.backend.lease("kv/leased", 33 * 60 * SECOND);
    node.classes.set("db", spec(&["username kv/db username", "password kv/leased password"]));
    node.publish(&node.pod("payments", "pod-1")).await.unwrap();
    let fetches = node.backend.counts().fetches;
    node.clock.ahead.store(-7200, Ordering::Relaxed);
    for round in 1..=4 {
        advance(EVERY).await;
        until("versions are asked", || node.refreshed("unchanged", round)).await;
    }
    advance(120 * SECOND).await;
    until("twenty-two minutes are over", || node.backend.counts().fetches > fetches).await;
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_fails_is_tried_again_before_the_end() {
    let (node, pod) = leased(12 * SECOND).await;
    // To prolong it, and to have another.
    for _ in 0..2 {
        node.backend.fail_next(BackendErrorKind::Unavailable, None);
    }
    advance(8 * SECOND).await;
    until("the replacement failed", || node.refreshed("unavailable", 1)).await;
    advance(3 * SECOND).await;
    until("the next try came in time", || node.refreshed("unchanged", 1)).await;
    assert_eq!(generations(&pod).1, "..g1");
}

#[tokio::test(start_paused = true)]
async fn a_static_role_is_read_after_its_change() {
    let node = Node::new().await;
    node.backend.rotate("kv/db", 60 * SECOND);
    node.publish(&node.pod("payments", "pod-1")).await.unwrap();
    let fetches = node.backend.counts().fetches;
    advance(60 * SECOND).await;
    settle().await;
    assert_eq!(node.backend.counts().fetches, fetches);
    node.backend.put("kv/db", &[("username", "app"), ("password", "changed")]);
    // A second for what the server rounds, and at most ten for the spread.
    advance(11 * SECOND).await;
    until("it is read", || node.backend.counts().fetches > fetches).await;
}
