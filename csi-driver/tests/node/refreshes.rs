// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What a refresh does to a volume, and when one is due.

use std::time::Duration;

use evanesce_engine::audit::Event;
use evanesce_engine::backend::BackendErrorKind;
use evanesce_engine::error::Kind;
use tokio::time::advance;
use tonic::Code;

use crate::classes::{EVERY, spec};
use crate::fake_mounts::Call;
use crate::ground::{Node, VOLUME, code, generations, published, read, settle, until};

const SECOND: Duration = Duration::from_secs(1);
/// The longest that an edited class waits.
const EDITED: Duration = Duration::from_secs(5);

fn stale(node: &Node, volumes: u64) -> bool {
    node.counts(&format!("evanesce_volumes_stale{{}} {volumes}.0"))
}

#[tokio::test(start_paused = true)]
async fn a_changed_secret_is_shown_after_the_period_and_not_before() {
    let (node, pod) = published().await;
    node.backend.put("kv/db", &[("username", "app"), ("password", "second")]);
    advance(EVERY - SECOND).await;
    settle().await;
    node.assert_whole(&pod, "first");
    advance(SECOND).await;
    until("the new generation is shown", || node.refreshed("ok", 1)).await;
    node.assert_whole(&pod, "second");
    let events = node.auditor.take();
    assert!(matches!(events.last(), Some(Event::Refreshed { generation: 2, .. })), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn a_republish_brings_a_token_and_asks_no_backend() {
    let (node, pod) = published().await;
    let before = node.backend.counts();
    for _ in 0..3 {
        advance(EVERY / 4).await;
        node.publish(&pod).await.unwrap();
        settle().await;
    }
    assert_eq!(node.backend.counts(), before);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_changes_nothing_makes_no_generation() {
    let (node, pod) = published().await;
    // The version is the same: it is all that is asked.
    let fetches = node.backend.counts().fetches;
    advance(EVERY).await;
    until("the refresh is done", || node.refreshed("unchanged", 1)).await;
    assert_eq!(node.backend.counts().fetches, fetches);
    // The version is another one and the files are not.
    node.backend.put("kv/db", &[("username", "app"), ("password", "first"), ("unused", "x")]);
    advance(EVERY).await;
    until("the refresh is done", || node.refreshed("unchanged", 2)).await;
    assert!(node.backend.counts().fetches > fetches);
    assert_eq!(generations(&pod), (vec!["..g1".to_owned()], "..g1".to_owned()));
    assert!(!node.auditor.codes().contains(&"refresh"));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_keeps_the_files_counts_as_stale_and_lets_republishes_be_ok() {
    let (node, pod) = published().await;
    node.backend.fail(BackendErrorKind::Unavailable, None);
    advance(EVERY).await;
    until("the volume is stale", || stale(&node, 1)).await;
    assert!(node.refreshed("unavailable", 1));
    assert_eq!(node.auditor.codes().last(), Some(&"failed"));
    node.assert_whole(&pod, "first");
    assert_eq!(code(node.publish(&pod).await), Code::Ok);
    node.backend.recover();
    node.backend.put("kv/db", &[("username", "app"), ("password", "second")]);
    // The next try is soon, not after the whole period.
    advance(Duration::from_secs(13)).await;
    until("the volume is fresh", || stale(&node, 0)).await;
    node.assert_whole(&pod, "second");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_says_when_to_come_back_is_left_alone_until_then() {
    let (node, _pod) = published().await;
    node.backend.fail_next(BackendErrorKind::Throttled, Some(Duration::from_secs(1000)));
    advance(EVERY).await;
    until("the refresh failed", || node.refreshed("throttled", 1)).await;
    let asked = node.backend.counts();
    advance(Duration::from_secs(740)).await;
    settle().await;
    assert_eq!(node.backend.counts(), asked);
    advance(Duration::from_secs(520)).await;
    until("the backend is asked again", || node.refreshed("unchanged", 1)).await;
}

#[tokio::test(start_paused = true)]
async fn the_files_stay_when_the_secret_or_the_class_is_gone() {
    let (node, pod) = published().await;
    node.backend.delete("kv/db");
    advance(EVERY).await;
    until("the volume is stale", || node.refreshed("missing", 1)).await;
    node.assert_whole(&pod, "first");
    node.classes.remove("db");
    settle().await;
    advance(EDITED).await;
    until("the refresh failed again", || node.refreshed("missing", 2)).await;
    node.assert_whole(&pod, "first");
    assert_eq!(code(node.publish(&pod).await), Code::Ok);
    assert_eq!(code(node.unpublish(&pod).await), Code::Ok);
    assert!(stale(&node, 0), "a volume that is gone is not stale");
    node.assert_nothing_left(&pod);
}

#[tokio::test(start_paused = true)]
async fn an_edited_class_is_due_at_once() {
    let (node, pod) = published().await;
    node.classes.set("db", spec(&["username kv/db username", "secret kv/db password"]));
    settle().await;
    advance(EDITED).await;
    until("the edit is shown", || read(&pod, "secret").is_some()).await;
    until("its refresh is done", || node.refreshed("ok", 1)).await;
    assert_eq!(read(&pod, "password"), None);
}

#[tokio::test(start_paused = true)]
async fn an_edit_does_not_send_every_pod_to_the_backend_at_once() {
    let node = Node::new().await;
    for pod in 0..50 {
        node.publish(&node.pod("payments", &format!("pod-{pod}"))).await.unwrap();
    }
    let before = node.backend.counts().logins;
    node.classes.set("db", spec(&["username kv/db username"]));
    settle().await;
    // A tenth of the spread: five of fifty are due, and all fifty only if nothing spreads them.
    advance(EDITED / 10).await;
    settle().await;
    assert!(node.backend.counts().logins - before < 40);
    advance(EDITED).await;
    until("all are refreshed", || node.refreshed("ok", 50)).await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_comes_during_a_first_delivery_is_shown_soon() {
    let node = Node::new().await;
    let pod = node.pod("payments", "pod-1");
    node.mounts.hold(Call::Attach);
    let mut client = node.client();
    let request = pod.request();
    let call = tokio::spawn(async move { client.node_publish_volume(request).await });
    until("the delivery is half-way", || node.mounts.count(Call::Attach) == 1).await;
    node.classes.set("db", spec(&["secret kv/db password"]));
    settle().await;
    node.mounts.release(Call::Attach);
    call.await.unwrap().unwrap();
    assert!(read(&pod, "password").is_some());
    advance(EDITED).await;
    until("the edit is shown", || read(&pod, "secret").is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_comes_while_a_republish_holds_the_volume_is_shown_soon() {
    let (node, pod) = published().await;
    node.mounts.hold(Call::IsAttached);
    let mut client = node.client();
    let request = pod.request();
    let call = tokio::spawn(async move { client.node_publish_volume(request).await });
    until("the republish holds the volume", || node.mounts.count(Call::IsAttached) == 1).await;
    node.classes.set("db", spec(&["secret kv/db password"]));
    settle().await;
    node.mounts.release(Call::IsAttached);
    call.await.unwrap().unwrap();
    advance(EDITED).await;
    until("the edit is shown", || read(&pod, "secret").is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_comes_during_a_refresh_that_fails_is_shown_soon() {
    let (node, pod) = published().await;
    // Its next try by itself is farther than an edit's.
    node.backend.fail_next(BackendErrorKind::Denied, None);
    node.backend.hold();
    let logins = node.backend.counts().logins;
    advance(EVERY).await;
    until("the refresh has begun", || node.backend.counts().logins > logins).await;
    node.classes.set("db", spec(&["secret kv/db password"]));
    settle().await;
    node.backend.release();
    until("the refresh failed", || node.refreshed("refused", 1)).await;
    advance(EDITED).await;
    until("the edit is shown", || read(&pod, "secret").is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn the_previous_generation_stays_until_its_time_and_is_swept_then() {
    let (node, pod) = published().await;
    let held = std::fs::File::open(pod.target_path().join("..data/password")).unwrap();
    node.backend.put("kv/db", &[("username", "app"), ("password", "second")]);
    advance(EVERY).await;
    until("the new generation is shown", || node.refreshed("ok", 1)).await;
    let both = vec!["..g1".to_owned(), "..g2".to_owned()];
    assert_eq!(generations(&pod), (both.clone(), "..g2".to_owned()));
    advance(Duration::from_millis(9_900)).await;
    settle().await;
    assert_eq!(generations(&pod).0, both);
    advance(Duration::from_millis(100)).await;
    until("the previous generation is gone", || generations(&pod).0 == ["..g2"]).await;
    node.assert_whole(&pod, "second");
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_grew_makes_the_volume_larger() {
    let (node, pod) = published().await;
    assert_eq!(node.mounts.size(pod.volume_id()).0, VOLUME);
    let large = "x".repeat(VOLUME as usize);
    node.backend.put("kv/db", &[("username", "app"), ("password", &large)]);
    advance(EVERY).await;
    until("the new generation is shown", || node.refreshed("ok", 1)).await;
    let size = node.mounts.size(pod.volume_id()).0;
    assert!(size > 2 * VOLUME, "two generations do not fit into {size}");
    assert_eq!(node.plugin.budget.reserved(), size);
    node.assert_whole(&pod, &large);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_grew_too_large_keeps_the_old_generation() {
    let large = "x".repeat(VOLUME as usize);
    // Once the ceiling refuses, once the kernel does, once the class has a size of its own.
    for refusal in ["ceiling", "kernel", "class"] {
        let ceiling = if refusal == "ceiling" { 2 * VOLUME } else { 1 << 30 };
        let node = Node::with_limits(1 << 30, ceiling).await;
        if refusal == "class" {
            let mut class = spec(&["username kv/db username", "password kv/db password"]);
            class.size = Some(VOLUME);
            node.classes.set("db", class);
        }
        let pod = node.pod("payments", "pod-1");
        node.publish(&pod).await.unwrap();
        node.mounts.fail_next(Call::Resize, Kind::Exhausted);
        node.backend.put("kv/db", &[("username", "app"), ("password", &large)]);
        advance(EVERY).await;
        until("the refresh failed", || node.refreshed("exhausted", 1)).await;
        assert!(stale(&node, 1), "{refusal}");
        node.assert_whole(&pod, "first");
        assert_eq!(generations(&pod), (vec!["..g1".to_owned()], "..g1".to_owned()), "{refusal}");
        assert_eq!(node.plugin.budget.reserved(), VOLUME, "{refusal}");
        assert_eq!(code(node.publish(&pod).await), Code::Ok, "{refusal}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_whose_owners_are_refused_leaves_no_generation() {
    let (node, pod) = published().await;
    node.backend.put("kv/db", &[("username", "app"), ("password", "second")]);
    node.mounts.fail_next(Call::Own, Kind::Internal);
    advance(EVERY).await;
    until("the refresh failed", || node.refreshed("internal", 1)).await;
    node.assert_whole(&pod, "first");
    assert_eq!(generations(&pod), (vec!["..g1".to_owned()], "..g1".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_written_costs_the_pod_nothing() {
    let (node, pod) = published().await;
    node.backend.put("kv/db", &[("username", "app"), ("password", "second")]);
    node.mounts.fail_next(Call::PutRecord, Kind::Exhausted);
    advance(EVERY).await;
    until("the new generation is shown", || node.refreshed("ok", 1)).await;
    node.assert_whole(&pod, "second");
}
