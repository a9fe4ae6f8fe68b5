// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Pods that start while their backend is away: with what their service account was told on this node, or not at all.

use std::sync::atomic::Ordering;
use std::time::Duration;

use evanesce_engine::audit::{Event, Source};
use evanesce_engine::backend::BackendErrorKind;
use evanesce_engine::spec::volume::{MaxStale, OnStale};
use evanesce_proto::kubelet::Publish;
use tokio::time::advance;
use tonic::Code;

use crate::accounts::{pod, pod_with, token};
use crate::classes::{EVERY, spec};
use crate::ground::{FAR, Node, code, settle, until};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(600);
const FILES: [&str; 2] = ["username kv/db username", "password kv/db password"];

/// A node whose class wants answers remembered, or not, with a pod that was told.
async fn told(grace: Option<Duration>) -> Node {
    let node = Node::new().await;
    node.classes.limits.lock().unwrap().offline_grace = grace;
    node.publish(&pod(&node, "pod-1")).await.unwrap();
    node
}

async fn outage() -> Node {
    let node = told(Some(GRACE)).await;
    advance(MINUTE).await;
    node.backend.fail(BackendErrorKind::Unavailable, None);
    node
}

async fn starts(node: &Node, pod: &Publish) -> Code {
    code(node.publish(pod).await)
}

fn offline(node: &Node) -> Vec<Duration> {
    let offline = |event| if let Event::Offline { age, .. } = event { Some(age) } else { None };
    node.auditor.events().into_iter().filter_map(offline).collect()
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_an_account_that_was_told_starts_while_the_backend_is_away_and_every_such_answer_is_audited() {
    let node = outage().await;
    node.auditor.take();
    let second = pod(&node, "pod-2");
    assert_eq!(starts(&node, &second).await, Code::Ok);
    node.assert_whole(&second, "first");
    assert_eq!(offline(&node), [MINUTE]);
    let events = node.auditor.events();
    let sources: Vec<_> = events
        .iter()
        .filter_map(|event| if let Event::Fetched { source, .. } = event { Some(*source) } else { None })
        .collect();
    assert_eq!(sources, [Source::Remembered]);
    // It is as old as its answer, and tried again soon.
    let listed = node.listed().await;
    let volume = listed.iter().find(|it| it.pod_uid == "pod-2").unwrap();
    assert_eq!((volume.fresh_ago.unwrap().seconds, volume.failures), (60, 1));
    assert!(volume.next_refresh_in.unwrap().seconds <= 13, "{volume:?}");
    node.backend.put("kv/db", &[("username", "app"), ("password", "second")]);
    node.backend.recover();
    advance(13 * SECOND).await;
    until("it is fresh", || crate::ground::read(&second, "password").as_deref() == Some("second")).await;
}

#[tokio::test(start_paused = true)]
async fn without_the_classs_word_nothing_is_remembered() {
    let node = told(None).await;
    advance(MINUTE).await;
    node.backend.fail(BackendErrorKind::Unavailable, None);
    // Nor what was told before the class said so.
    node.classes.limits.lock().unwrap().offline_grace = Some(GRACE);
    assert_eq!(starts(&node, &pod(&node, "pod-2")).await, Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn what_was_told_longer_ago_than_the_grace_starts_no_pod() {
    let node = told(Some(GRACE)).await;
    node.backend.fail(BackendErrorKind::Unavailable, None);
    advance(GRACE - SECOND).await;
    assert_eq!(starts(&node, &pod(&node, "pod-2")).await, Code::Ok);
    advance(SECOND).await;
    assert_eq!(starts(&node, &pod(&node, "pod-3")).await, Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn what_was_told_before_the_machine_slept_for_longer_than_the_grace_starts_no_pod() {
    let node = outage().await;
    node.clock.ahead.store(600, Ordering::Relaxed);
    assert_eq!(starts(&node, &pod(&node, "pod-2")).await, Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_never_taken_for_another_identitys() {
    let node = outage().await;
    let other = pod_with(&node, "pod-2", "other", &token("other", "sa-2", "web-0", "pod-2"), FAR);
    assert_eq!(starts(&node, &other).await, Code::Unavailable, "another account");
    let again = pod_with(&node, "pod-3", "app", &token("app", "sa-9", "web-0", "pod-3"), FAR);
    assert_eq!(starts(&node, &again).await, Code::Unavailable, "an account that was made again");
    let nobody = pod_with(&node, "pod-4", "app", "t0ken", FAR);
    assert_eq!(starts(&node, &nobody).await, Code::Unavailable, "a token that does not name the account's uid");
    assert!(offline(&node).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_expired_or_somebody_elses_starts_no_pod() {
    let node = outage().await;
    let expired = pod_with(&node, "pod-2", "app", &token("app", "sa-1", "web-0", "pod-2"), "2025-12-31T00:00:00Z");
    assert_ne!(starts(&node, &expired).await, Code::Ok);
    let stolen = pod_with(&node, "pod-3", "other", &token("app", "sa-1", "web-0", "pod-1"), FAR);
    assert_ne!(starts(&node, &stolen).await, Code::Ok);
    assert!(offline(&node).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_reference_that_the_identity_was_not_told_starts_no_pod() {
    let node = outage().await;
    node.classes.set("db", spec(&[FILES[0], "password kv/other password"]));
    assert_eq!(starts(&node, &pod(&node, "pod-2")).await, Code::Unavailable);
    assert!(offline(&node).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_a_backend_answers_counts_whatever_it_is() {
    for (kind, answer) in [
        (BackendErrorKind::Denied, Code::PermissionDenied),
        (BackendErrorKind::NotFound, Code::NotFound),
        (BackendErrorKind::Unauthenticated, Code::Unauthenticated),
        (BackendErrorKind::Throttled, Code::Unavailable),
        (BackendErrorKind::Malformed, Code::Unavailable),
        (BackendErrorKind::Credential, Code::Unavailable),
    ] {
        let node = told(Some(GRACE)).await;
        advance(MINUTE).await;
        node.backend.fail(kind, None);
        assert_eq!(starts(&node, &pod(&node, "pod-2")).await, answer, "{kind:?}");
        assert!(offline(&node).is_empty(), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_denial_has_all_of_its_identitys_answers_forgotten_at_once() {
    for (kind, forgotten) in [(BackendErrorKind::Denied, true), (BackendErrorKind::Throttled, false)] {
        let node = told(Some(GRACE)).await;
        node.backend.put("kv/more", &[("password", "more")]);
        advance(MINUTE).await;
        // Another question of the same identity, at its login.
        node.classes.set("db", spec(&["password kv/more password"]));
        node.backend.fail_next(kind, None);
        assert_ne!(starts(&node, &pod(&node, "pod-2")).await, Code::Ok);
        node.classes.set("db", spec(&FILES));
        node.backend.fail(BackendErrorKind::Unavailable, None);
        let third = starts(&node, &pod(&node, "pod-3")).await;
        assert_eq!(third, if forgotten { Code::Unavailable } else { Code::Ok }, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_lent_or_ends_by_itself_starts_no_pod() {
    let node = Node::new().await;
    node.classes.limits.lock().unwrap().offline_grace = Some(GRACE);
    node.backend.expire("kv/db", std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600 + 86_400));
    node.backend.call_shareable("kv/db");
    node.publish(&pod(&node, "pod-1")).await.unwrap();
    advance(MINUTE).await;
    node.backend.fail(BackendErrorKind::Unavailable, None);
    assert_eq!(starts(&node, &pod(&node, "pod-2")).await, Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn refreshes_prove_access_anew_by_reading_so_that_the_grace_counts_from_the_last_of_them() {
    let node = told(Some(GRACE)).await;
    for round in 1..=6 {
        advance(EVERY + SECOND).await;
        until("it is refreshed", || node.refreshed("unchanged", round)).await;
    }
    assert!(node.backend.counts().fetches >= 4, "a version proves no right to read: {:?}", node.backend.counts());
    node.backend.fail(BackendErrorKind::Unavailable, None);
    advance(EVERY).await;
    settle().await;
    assert_eq!(starts(&node, &pod(&node, "pod-2")).await, Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_for_a_pod_that_runs_is_too_old_for_one_that_starts() {
    let node = outage().await;
    let mut class = spec(&FILES);
    class.max_stale = Some(MaxStale { after: EVERY + SECOND, then: OnStale::Remove });
    node.classes.set("db", class);
    assert_eq!(starts(&node, &pod(&node, "pod-2")).await, Code::Ok);
    advance(EVERY).await;
    assert_eq!(starts(&node, &pod(&node, "pod-3")).await, Code::Unavailable);
}

/// The node of these tests remembers 64 answers, of 8 KiB at most.
#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_not_remembered_and_the_oldest_make_room() {
    for (crowd, size, answer) in [(62, 10, Code::Ok), (64, 10, Code::Unavailable), (0, 9000, Code::Unavailable)] {
        let node = Node::new().await;
        node.classes.limits.lock().unwrap().offline_grace = Some(GRACE);
        node.backend.put("kv/db", &[("username", "app"), ("password", &"x".repeat(size))]);
        node.publish(&pod(&node, "pod-1")).await.unwrap();
        for number in 0..crowd {
            let path = format!("kv/{number}");
            node.backend.put(&path, &[("password", "another")]);
            node.classes.set("other", spec(&[&format!("password {path} password")]));
            let other = pod(&node, &format!("other-{number}")).attribute("secretVolume", "other");
            node.publish(&other).await.unwrap();
        }
        node.backend.fail(BackendErrorKind::Unavailable, None);
        advance(MINUTE).await;
        assert_eq!(starts(&node, &pod(&node, "pod-2")).await, answer, "{crowd} others, {size} bytes");
    }
}
