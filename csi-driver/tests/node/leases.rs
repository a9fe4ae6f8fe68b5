// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What is lent to volumes: written down first, prolonged, replaced with an overlap, and given back, whoever dies.

use std::time::Duration;

use evanesce_engine::audit::{Event, Outcome};
use evanesce_engine::backend::BackendErrorKind;
use evanesce_engine::error::Kind;
use evanesce_engine::lease::Cause;
use evanesce_engine::spec::VolumeSpec;
use tokio::time::advance;

use crate::classes::spec;
use crate::fake_mounts::Call;
use crate::ground::{Node, generations, leased, settle, until};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const LEASE: Duration = Duration::from_secs(600);
/// When a lease is prolonged or replaced.
const DUE: Duration = Duration::from_secs(400);

impl Node {
    /// A change at the backend, so that what is read anew shows.
    pub(crate) fn change(&self, password: &str) {
        self.backend.put("kv/db", &[("username", "app"), ("password", password)]);
    }

    /// How each login was ended, and why.
    pub(crate) fn revoked(&self) -> Vec<(Cause, bool)> {
        let revoked = |event| match event {
            Event::Revoked { cause, outcome, .. } => Some((cause, outcome == Outcome::Success)),
            _ => None,
        };
        self.auditor.events().into_iter().filter_map(revoked).collect()
    }

    pub(crate) fn assert_nothing_lent(&self) {
        assert!(self.backend.lent().is_empty(), "a lease is left: {:?}", self.backend.lent());
        assert!(self.mounts.leases().is_empty(), "the journal names what is given back");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lent_before_its_login_is_written_down() {
    let node = Node::new().await;
    node.backend.lease("kv/db", LEASE);
    let pod = node.pod("payments", "pod-1");
    node.mounts.fail_next(Call::PutLease, Kind::Exhausted);
    assert!(node.publish(&pod).await.is_err());
    assert_eq!((node.backend.counts().logins, node.backend.counts().fetches), (1, 0));
    node.publish(&pod).await.unwrap();
    assert_eq!((node.mounts.leases().len(), node.backend.lent().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn static_secrets_beside_it_have_a_login_that_lends_nothing() {
    let node = Node::new().await;
    node.backend.put("kv/leased", &[("password", "first")]);
    node.backend.lease("kv/leased", LEASE);
    node.classes.set("db", spec(&["username kv/db username", "password kv/leased password"]));
    node.publish(&node.pod("payments", "pod-1")).await.unwrap();
    assert_eq!(node.backend.counts().logins, 2);
    assert_eq!((node.mounts.leases().len(), node.backend.lent()), (1, vec!["kv/leased/2".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn what_can_be_prolonged_is_and_its_pod_sees_nothing_of_it() {
    let (node, pod) = leased(LEASE).await;
    node.backend.prolong();
    node.change("second");
    for round in 1..=20 {
        advance(DUE).await;
        until("it is prolonged", || node.refreshed("unchanged", round)).await;
        // The login and the lease.
        assert_eq!(node.backend.counts().renewals, 2 * round);
    }
    assert_eq!((node.backend.counts().logins, node.backend.counts().fetches), (1, 1));
    node.assert_whole(&pod, "first");
}

#[tokio::test(start_paused = true)]
async fn what_is_replaced_stays_valid_for_its_overlap_and_is_given_back_then() {
    let (node, pod) = leased(LEASE).await;
    let first = node.backend.lent();
    node.change("second");
    advance(DUE).await;
    until("it is replaced", || node.refreshed("ok", 1)).await;
    assert_eq!(generations(&pod).1, "..g2");
    assert_eq!((node.backend.lent().len(), node.mounts.leases().len()), (2, 2));
    advance(VolumeSpec::DEFAULT_OVERLAP - SECOND).await;
    settle().await;
    assert!(node.backend.lent().starts_with(&first), "given back before its overlap was over");
    advance(2 * SECOND).await;
    until("it is given back", || node.backend.lent().len() == 1).await;
    until("the journal knows", || node.mounts.leases().len() == 1).await;
    assert_ne!(node.backend.lent(), first);
    assert_eq!(node.revoked(), [(Cause::Replaced, true)]);
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_is_unpublished_gives_everything_back() {
    let (node, pod) = leased(LEASE).await;
    node.change("second");
    advance(DUE).await;
    until("it is replaced", || node.refreshed("ok", 1)).await;
    assert_eq!(generations(&pod).1, "..g2");
    node.unpublish(&pod).await.unwrap();
    until("everything is back", || node.backend.lent().is_empty() && node.mounts.leases().is_empty()).await;
    assert_eq!(node.revoked(), [(Cause::Unmounted, true); 2]);
    node.assert_nothing_left(&pod);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_fails_gives_back_what_it_was_lent() {
    for step in [Call::Make, Call::Own, Call::PutRecord, Call::Attach] {
        let node = Node::new().await;
        node.backend.lease("kv/db", LEASE);
        let pod = node.pod("payments", "pod-1");
        node.mounts.fail_next(step, Kind::Internal);
        assert!(node.publish(&pod).await.is_err());
        until("it is back", || node.revoked() == [(Cause::Undelivered, true)]).await;
        node.assert_nothing_lent();
    }
}

#[tokio::test(start_paused = true)]
async fn a_delivery_of_which_one_secret_fails_gives_back_what_the_others_lent() {
    let node = Node::new().await;
    node.backend.lease("kv/db", LEASE);
    node.classes.set("db", spec(&["username kv/db username", "password kv/missing password"]));
    assert!(node.publish(&node.pod("payments", "pod-1")).await.is_err());
    until("it is back", || node.revoked() == [(Cause::Undelivered, true)]).await;
    node.assert_nothing_lent();
}

#[tokio::test(start_paused = true)]
async fn a_login_that_lent_nothing_is_ended_at_once() {
    let (node, _pod) = leased(LEASE).await;
    // It calls itself leased and is not: what a path outside of KV may be.
    node.backend.lease_nothing("kv/db");
    advance(DUE).await;
    until("it is replaced", || node.refreshed("unchanged", 1)).await;
    until("it is back", || node.revoked().contains(&(Cause::Empty, true))).await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_half_that_starts_keeps_what_volumes_show_and_replaces_it_in_time() {
    let (node, pod) = leased(LEASE).await;
    node.change("second");
    let node = node.restart().await;
    settle().await;
    assert_eq!((node.backend.lent().len(), node.mounts.leases().len()), (1, 1), "what a pod uses was given back");
    // Prolonging needs a lease's id, which died with the other process.
    node.backend.prolong();
    node.publish(&pod).await.unwrap();
    advance(DUE).await;
    until("it is replaced", || node.refreshed("ok", 1)).await;
    assert_eq!(generations(&pod).1, "..g2");
    advance(VolumeSpec::DEFAULT_OVERLAP + SECOND).await;
    until("the old one is back", || node.backend.lent().len() == 1 && node.mounts.leases().len() == 1).await;
    assert_eq!(node.revoked(), [(Cause::Replaced, true)]);
}

#[tokio::test(start_paused = true)]
async fn an_engine_half_that_starts_gives_back_what_no_volume_shows() {
    let (node, pod) = leased(LEASE).await;
    // The record goes last, so this is what a death between the two leaves.
    node.mounts.unmount(pod.target_path());
    let node = node.restart().await;
    until("the orphan is back", || node.revoked() == [(Cause::Orphaned, true)]).await;
    node.assert_nothing_lent();
}

#[tokio::test(start_paused = true)]
async fn what_an_unknown_volume_may_show_is_kept_for_as_long_as_kubelet_may_tell_of_it() {
    let (node, pod) = leased(LEASE).await;
    node.mounts.set_record(pod.volume_id(), b"damaged".to_vec());
    let node = node.restart().await;
    advance(600 * SECOND - SECOND).await;
    settle().await;
    assert_eq!((node.backend.lent().len(), node.revoked().len()), (1, 0));
    advance(2 * SECOND).await;
    until("the orphan is back", || node.revoked() == [(Cause::Orphaned, true)]).await;
    node.assert_nothing_lent();
}

#[tokio::test(start_paused = true)]
async fn an_orphan_that_was_prolonged_is_not_given_up_when_its_first_end_has_passed() {
    let node = Node::new().await;
    node.backend.lease("kv/db", 12 * HOUR);
    node.backend.prolong();
    let pod = node.pod("payments", "pod-1");
    node.publish(&pod).await.unwrap();
    // The login was good for a day.
    for round in 1..=4 {
        advance(8 * HOUR).await;
        until("it is prolonged", || node.refreshed("unchanged", round)).await;
    }
    node.mounts.unmount(pod.target_path());
    node.backend.fail(BackendErrorKind::Unavailable, None);
    let node = node.restart().await;
    advance(60 * SECOND).await;
    settle().await;
    assert!(node.backend.counts().revocations > 0 && node.revoked().is_empty(), "given up: {:?}", node.revoked());
    node.backend.recover();
    advance(120 * SECOND).await;
    until("the orphan is back", || node.revoked() == [(Cause::Orphaned, true)]).await;
    node.assert_nothing_lent();
}

#[tokio::test(start_paused = true)]
async fn what_was_lent_before_a_boot_is_said_to_be_lost() {
    let (node, _pod) = leased(LEASE).await;
    let node = node.boot().await;
    assert!(node.auditor.events().contains(&Event::LeasesLost { groups: 1 }));
    assert!(node.mounts.leases().is_empty());
}

#[tokio::test(start_paused = true)]
async fn kubelet_does_not_wait_for_a_backend_that_is_away_and_it_hears_of_it_later() {
    let (node, pod) = leased(LEASE).await;
    node.backend.fail(BackendErrorKind::Unavailable, None);
    node.unpublish(&pod).await.unwrap();
    node.assert_nothing_left(&pod);
    for _ in 0..10 {
        advance(60 * SECOND).await;
        settle().await;
    }
    assert_eq!((node.mounts.leases().len(), node.revoked().len()), (1, 0));
    // In ten minutes as often as the longest wait says, and what the breaker lets through.
    assert!(node.backend.counts().revocations <= 20, "{:?}", node.backend.counts());
    node.backend.recover();
    advance(120 * SECOND).await;
    until("it is back", || node.backend.lent().is_empty() && node.mounts.leases().is_empty()).await;
    assert_eq!(node.revoked(), [(Cause::Unmounted, true)]);
}

#[tokio::test(start_paused = true)]
async fn a_login_that_may_not_end_itself_is_tried_once_and_told() {
    let (node, pod) = leased(LEASE).await;
    node.backend.refuse_revocations();
    node.unpublish(&pod).await.unwrap();
    until("it is told", || node.revoked() == [(Cause::Unmounted, false)]).await;
    assert_eq!(node.backend.counts().revocations, 1);
    assert!(node.mounts.leases().is_empty());
}
