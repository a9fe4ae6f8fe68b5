// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Leases that are not as they say, or not as a class takes them to be: the pod has what it needs, and nothing piles up.

use std::time::Duration;

use evanesce_engine::backend::BackendErrorKind;
use evanesce_engine::spec::VolumeSpec;
use tokio::time::advance;

use crate::classes::{EVERY, spec};
use crate::ground::{Node, leased, settle, until};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const LEASE: Duration = Duration::from_secs(600);
/// When a lease is prolonged or replaced.
const DUE: Duration = Duration::from_secs(400);

/// Lets what is given back come home.
async fn until_lent(node: &Node, groups: usize) {
    until(&format!("{groups} groups are lent"), || node.mounts.leases().len() == groups).await;
    assert_eq!(node.backend.lent().len(), groups);
}

#[tokio::test(start_paused = true)]
async fn an_overlap_that_is_longer_than_the_lease_is_cut_to_what_is_left_of_it() {
    let node = Node::new().await;
    node.backend.lease("kv/db", LEASE);
    let files = spec(&["username kv/db username", "password kv/db password"]);
    node.classes.set("db", VolumeSpec { overlap: HOUR, ..files });
    node.publish(&node.pod("payments", "pod-1")).await.unwrap();
    node.backend.put("kv/db", &[("username", "app"), ("password", "second")]);
    advance(DUE).await;
    until("it is replaced", || node.refreshed("ok", 1)).await;
    advance(LEASE - DUE - 2 * SECOND).await;
    settle().await;
    assert_eq!(node.backend.lent().len(), 2, "given back while it was good");
    advance(3 * SECOND).await;
    until_lent(&node, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_a_second_is_replaced_in_time_and_nothing_piles_up() {
    let (node, pod) = leased(SECOND).await;
    for round in 1..=60 {
        node.backend.put("kv/db", &[("username", "app"), ("password", &format!("password-{round}"))]);
        // Two thirds of its life, and what a timer rounds.
        advance(Duration::from_millis(668)).await;
        until("it is replaced", || node.refreshed("ok", round)).await;
        node.assert_whole(&pod, &format!("password-{round}"));
        settle().await;
        assert!(node.mounts.leases().len() <= 2, "{} groups", node.mounts.leases().len());
    }
    assert_eq!(node.backend.counts().fetches, 61);
}

#[tokio::test(start_paused = true)]
async fn a_lease_without_an_end_is_as_good_as_its_login() {
    let (node, pod) = leased(Duration::ZERO).await;
    for _ in 0..10 {
        advance(EVERY).await;
        settle().await;
    }
    assert_eq!(node.backend.counts().fetches, 1, "made anew at each period");
    node.backend.put("kv/db", &[("username", "app"), ("password", "second")]);
    // Two thirds of the login's day.
    advance(16 * HOUR).await;
    until("it is replaced", || node.refreshed("ok", 1)).await;
    node.assert_whole(&pod, "second");
    advance(VolumeSpec::DEFAULT_OVERLAP + SECOND).await;
    until_lent(&node, 1).await;
}

#[tokio::test(start_paused = true)]
async fn what_says_that_it_is_renewable_and_is_not_is_replaced() {
    for refusal in [BackendErrorKind::Denied, BackendErrorKind::Malformed] {
        let (node, pod) = leased(LEASE).await;
        node.backend.prolong();
        node.backend.refuse_renewals(refusal);
        for round in 1..=3 {
            node.backend.put("kv/db", &[("username", "app"), ("password", &format!("password-{round}"))]);
            advance(DUE).await;
            until("it is replaced", || node.refreshed("ok", round)).await;
            node.assert_whole(&pod, &format!("password-{round}"));
            advance(VolumeSpec::DEFAULT_OVERLAP + SECOND).await;
            until_lent(&node, 1).await;
        }
        assert_eq!(node.backend.counts().renewals, 6, "each is asked for once");
    }
}
