// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What the operator is told of each volume, whatever it is doing.

use std::time::Duration;

use evanesce_engine::backend::BackendErrorKind;
use evanesce_engine::error::Kind;
use evanesce_proto::kubelet::Publish;
use evanesce_proto::node::{State, Volume};
use tokio::time::advance;
use tonic::Code;

use crate::classes::EVERY;
use crate::fake_mounts::Call;
use crate::ground::{Node, code, published, until};

/// The first retry, with all of its jitter.
const RETRY: Duration = Duration::from_secs(13);

/// The only volume there is.
async fn one(node: &Node) -> Volume {
    let mut listed = node.listed().await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    listed.remove(0)
}

fn ago(volume: &Volume) -> u64 {
    volume.fresh_ago.unwrap().seconds.cast_unsigned()
}

fn next(volume: &Volume) -> u64 {
    volume.next_refresh_in.unwrap().seconds.cast_unsigned()
}

fn error(volume: &Volume) -> (&str, &str) {
    volume.last_error.as_ref().map_or(("", ""), |error| (error.kind.as_str(), error.message.as_str()))
}

fn assert_is(volume: &Volume, pod: &Publish) {
    assert_eq!((volume.id.as_str(), volume.pod_uid.as_str()), (pod.volume_id(), "pod-1"));
    let whose = [&volume.namespace, &volume.pod, &volume.service_account, &volume.class];
    assert_eq!(whose, ["payments", "web-0", "app", "db"]);
}

#[tokio::test(start_paused = true)]
async fn a_live_volume_is_listed_with_its_pod_its_age_and_when_it_is_due() {
    let (node, pod) = published().await;
    let volume = one(&node).await;
    assert_is(&volume, &pod);
    assert_eq!((volume.state(), volume.generation, volume.failures), (State::Live, Some(1), 0));
    assert_eq!(volume.target_path, pod.target_path().to_str().unwrap());
    assert_eq!((ago(&volume), next(&volume), error(&volume)), (0, EVERY.as_secs(), ("", "")));

    advance(Duration::from_secs(100)).await;
    let volume = one(&node).await;
    assert_eq!((ago(&volume), next(&volume)), (100, EVERY.as_secs() - 100));

    node.backend.put("kv/db", &[("username", "app"), ("password", "second")]);
    advance(EVERY).await;
    until("it is refreshed", || node.refreshed("ok", 1)).await;
    let volume = one(&node).await;
    assert_eq!((ago(&volume), next(&volume), volume.generation), (0, EVERY.as_secs(), Some(2)));
}

#[tokio::test(start_paused = true)]
async fn a_stale_volume_is_listed_with_its_last_error_until_it_is_fresh() {
    let (node, pod) = published().await;
    node.backend.fail(BackendErrorKind::Unavailable, None);
    advance(EVERY).await;
    until("the refresh failed", || node.refreshed("unavailable", 1)).await;
    let volume = one(&node).await;
    assert_is(&volume, &pod);
    assert_eq!((volume.state(), volume.failures, ago(&volume)), (State::Stale, 1, EVERY.as_secs()));
    assert!(next(&volume) <= RETRY.as_secs(), "{volume:?}");
    let (kind, message) = error(&volume);
    assert!(kind == "unavailable" && message.contains("backend store cannot be reached"), "{volume:?}");
    advance(RETRY).await;
    until("it failed again", || node.refreshed("unavailable", 2)).await;
    assert_eq!(one(&node).await.failures, 2);

    node.backend.recover();
    advance(2 * RETRY).await;
    until("it is fresh", || node.refreshed("unchanged", 1)).await;
    let volume = one(&node).await;
    assert_eq!((volume.state(), volume.failures, error(&volume)), (State::Live, 0, ("", "")));
}

#[tokio::test(start_paused = true)]
async fn a_listing_waits_for_no_refresh() {
    let (node, _pod) = published().await;
    node.backend.hold();
    let logins = node.backend.counts().logins;
    advance(EVERY).await;
    until("the refresh has begun", || node.backend.counts().logins > logins).await;
    // A test that waited would let the paused time run to the refresh's end.
    let volume = one(&node).await;
    assert_eq!((volume.state(), volume.generation, next(&volume)), (State::Live, Some(1), 0));
    assert_eq!(ago(&volume), EVERY.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_volume_on_its_way_in_or_out_is_listed_as_that() {
    let node = Node::new().await;
    let pod = node.pod("payments", "pod-1");
    let of = async |state: State| {
        let volume = one(&node).await;
        assert_is(&volume, &pod);
        assert_eq!((volume.state(), volume.next_refresh_in.is_some()), (state, state == State::Live));
        volume
    };
    node.mounts.hold(Call::Attach);
    let publish = node.publish(&pod);
    let meanwhile = async {
        until("it is being delivered", || node.mounts.count(Call::Attach) == 1).await;
        assert_eq!(of(State::Delivering).await.generation, None);
        node.mounts.release(Call::Attach);
    };
    let (published, ()) = tokio::join!(publish, meanwhile);
    published.unwrap();
    of(State::Live).await;

    // Kubelet tries again later; until then the reason is there to see.
    node.mounts.fail_next(Call::Detach, Kind::Internal);
    assert_eq!(code(node.unpublish(&pod).await), Code::Internal);
    assert_eq!(error(&of(State::Leaving).await), ("internal", "the fake was told to fail: Detach"));
    node.unpublish(&pod).await.unwrap();
    assert!(node.listed().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_volume_of_another_version_is_listed_as_left_alone_and_why() {
    let (node, pod) = published().await;
    let ours = node.mounts.records().into_values().next().unwrap();
    let theirs = String::from_utf8(ours).unwrap().replace("\"version\":1,", "\"version\":2,").into_bytes();
    node.mounts.set_record(pod.volume_id(), theirs);
    let node = node.restart().await;
    let volume = one(&node).await;
    assert_eq!((volume.id.as_str(), volume.state(), volume.generation), (pod.volume_id(), State::LeftAlone, None));
    let (kind, message) = error(&volume);
    assert!(kind == "not_ready" && message.contains("version 2 and this build reads 1"), "{volume:?}");
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_is_taken_over_is_as_old_as_its_record_says() {
    let (node, pod) = published().await;
    advance(Duration::from_secs(100)).await;
    let node = node.restart().await;
    let volume = one(&node).await;
    assert_is(&volume, &pod);
    assert_eq!((volume.state(), volume.generation, ago(&volume)), (State::Live, Some(1), 100));
}

#[tokio::test(start_paused = true)]
async fn no_value_and_no_token_is_listed() {
    let (node, _pod) = published().await;
    node.backend.fail(BackendErrorKind::Unavailable, None);
    advance(EVERY).await;
    until("the refresh failed", || node.refreshed("unavailable", 1)).await;
    let listed = format!("{:?}", node.listed().await);
    assert!(listed.contains("web-0") && !listed.contains("t0ken") && !listed.contains("first"), "{listed}");
}
