// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Tokens live between republishes and nowhere else.

use std::time::Duration;

use tokio::time::advance;
use tonic::Code;

use crate::classes::EVERY;
use crate::ground::{FAR, Node, code, published, settle, until, with_token};

/// Before the first refresh, on the tests' own clock.
const SOON: &str = "2026-01-01T00:02:00Z";

#[tokio::test(start_paused = true)]
async fn a_volume_whose_token_expired_waits_for_the_next_one_and_is_due_with_it() {
    let node = Node::new().await;
    let pod = with_token(node.pod("payments", "pod-1"), SOON);
    node.publish(&pod).await.unwrap();
    node.backend.put("kv/db", &[("username", "app"), ("password", "second")]);
    let logins = node.backend.counts().logins;
    advance(EVERY).await;
    until("the refresh failed", || node.refreshed("unauthenticated", 1)).await;
    assert_eq!(node.backend.counts().logins, logins, "an expired token is not sent");
    node.assert_whole(&pod, "first");
    // Time stands still from here on.
    node.publish(&with_token(pod, FAR)).await.unwrap();
    until("the volume is refreshed", || node.refreshed("ok", 1)).await;
    node.assert_whole(&node.pod("payments", "pod-1"), "second");
}

/// Kubelet asks for tokens of 600 s, the shortest there are, and for new ones when four fifths have passed.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_a_minute_wrong_costs_no_refresh() {
    const LIFE: u64 = 600;
    const RENEWAL: u64 = 480;
    const SYNC: u64 = 60;
    for ahead in [-60, 60] {
        let node = Node::with_clock_ahead(ahead).await;
        for second in (0..3600).step_by(SYNC as usize) {
            let expires = second / RENEWAL * RENEWAL + LIFE;
            let expires = format!("2026-01-01T{:02}:{:02}:{:02}Z", expires / 3600, expires / 60 % 60, expires % 60);
            node.publish(&with_token(node.pod("payments", "pod-1"), &expires)).await.unwrap();
            advance(Duration::from_secs(SYNC)).await;
            settle().await;
        }
        until("an hour of refreshes", || node.refreshed("unchanged", 3600 / EVERY.as_secs())).await;
        assert!(node.refreshed("unauthenticated", 0), "with a clock that is {ahead} s ahead");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_uses_the_newest_token() {
    let node = Node::new().await;
    let pod = with_token(node.pod("payments", "pod-1"), SOON);
    node.publish(&pod).await.unwrap();
    node.publish(&with_token(pod, FAR)).await.unwrap();
    advance(EVERY).await;
    until("the volume is refreshed", || node.refreshed("unchanged", 1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_republish_without_tokens_takes_none_away() {
    let (node, pod) = published().await;
    let mut request = pod.request();
    request.secrets.clear();
    node.send(request).await.unwrap();
    advance(EVERY).await;
    until("the volume is refreshed", || node.refreshed("unchanged", 1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_republish_with_a_token_of_another_account_is_refused_and_changes_nothing() {
    let (node, pod) = published().await;
    let mut request = pod.request();
    // {"kubernetes.io":{"namespace":"other"}}
    let token = r#"{"fake":{"token":"e30.eyJrdWJlcm5ldGVzLmlvIjp7Im5hbWVzcGFjZSI6Im90aGVyIn19.c2ln","expirationTimestamp":"2130-01-01T00:00:00Z"}}"#;
    request.secrets.insert(evanesce_proto::kubelet::SERVICE_ACCOUNT_TOKENS.into(), token.into());
    assert_eq!(code(node.send(request).await), Code::Unauthenticated);
    advance(EVERY).await;
    until("the volume is refreshed", || node.refreshed("unchanged", 1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_nobody_waits_for_makes_nothing_due() {
    let (node, pod) = published().await;
    let before = node.backend.counts();
    node.publish(&pod).await.unwrap();
    settle().await;
    assert_eq!(node.backend.counts(), before);
}
