// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What is said of a volume that cannot be refreshed, and what a refresh that stops half-way leaves.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use evanesce_engine::backend::BackendErrorKind;
use evanesce_engine::error::Kind;
use evanesce_proto::kubelet::Publish;
use tokio::time::advance;
use tonic::Code;

use crate::classes::EVERY;
use crate::fake_mounts::Call;
use crate::ground::{code, generations, published, until};

/// The first retry, with all of its jitter.
const RETRY: Duration = Duration::from_secs(13);
/// As long as the class of these tests keeps what is not shown any more.
const KEEP: Duration = Duration::from_secs(10);

/// What a root directory of the pod looks like where the link cannot be swapped, or the names cannot be set.
enum Obstacle {
    BeforeTheSwap,
    AfterTheSwap,
}

fn obstruct(pod: &Publish, obstacle: Obstacle) -> PathBuf {
    // A folder stands where a link was to be made, or removed.
    let name = match obstacle {
        Obstacle::BeforeTheSwap => "..data_new",
        Obstacle::AfterTheSwap => "stray",
    };
    let folder = pod.target_path().join(name);
    fs::create_dir(&folder).unwrap();
    folder
}

#[tokio::test(start_paused = true)]
async fn how_stale_the_stalest_volume_is_counts_from_when_it_was_fresh() {
    let (node, _pod) = published().await;
    assert_eq!((node.gauge("volumes_stale"), node.gauge("volumes_stalest_seconds")), (0.0, 0.0));
    assert_eq!(node.gauge("last_refresh_timestamp_seconds"), 0.0);
    advance(EVERY).await;
    until("it is refreshed", || node.refreshed("unchanged", 1)).await;
    let refreshed = node.gauge("last_refresh_timestamp_seconds");
    assert!(refreshed > 1_767_225_600.0, "{refreshed}");
    node.backend.fail(BackendErrorKind::Unavailable, None);
    advance(EVERY).await;
    until("the volume is stale", || node.gauge("volumes_stale") == 1.0).await;
    let before = node.gauge("volumes_stalest_seconds");
    assert!(before >= EVERY.as_secs_f64(), "{before}");
    advance(RETRY).await;
    until("it failed again", || node.refreshed("unavailable", 2)).await;
    assert!(node.gauge("volumes_stalest_seconds") >= before + RETRY.as_secs_f64());
    assert_eq!(node.gauge("last_refresh_timestamp_seconds"), refreshed);
    node.backend.recover();
    advance(2 * RETRY).await;
    until("the volume is fresh", || node.gauge("volumes_stale") == 0.0).await;
    assert_eq!(node.gauge("volumes_stalest_seconds"), 0.0);
    assert!(node.gauge("last_refresh_timestamp_seconds") > refreshed);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_before_the_swap_leaves_no_generation_behind() {
    let (node, pod) = published().await;
    let obstacle = obstruct(&pod, Obstacle::BeforeTheSwap);
    node.backend.put("kv/db", &[("username", "app"), ("password", "second")]);
    advance(EVERY).await;
    until("the refresh failed", || node.refreshed("internal", 1)).await;
    node.assert_whole(&pod, "first");
    assert_eq!(generations(&pod), (vec!["..g1".to_owned()], "..g1".to_owned()));
    fs::remove_dir(obstacle).unwrap();
    advance(RETRY).await;
    until("the new generation is shown", || node.refreshed("ok", 1)).await;
    node.assert_whole(&pod, "second");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_after_the_swap_has_the_earlier_generation_swept_without_a_restart() {
    let (node, pod) = published().await;
    let obstacle = obstruct(&pod, Obstacle::AfterTheSwap);
    node.backend.put("kv/db", &[("username", "app"), ("password", "second")]);
    advance(EVERY).await;
    until("the refresh failed", || node.refreshed("internal", 1)).await;
    assert_eq!(generations(&pod), (vec!["..g1".to_owned(), "..g2".to_owned()], "..g2".to_owned()));
    advance(KEEP).await;
    until("the earlier generation is gone", || !generations(&pod).0.contains(&"..g1".to_owned())).await;
    fs::remove_dir(obstacle).unwrap();
    // It may have been tried again meanwhile, and waits for longer then.
    advance(EVERY).await;
    until("it is shown in full", || node.refreshed("ok", 1)).await;
    node.assert_whole(&pod, "second");
    advance(KEEP).await;
    until("one generation is left", || generations(&pod).0.len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_could_not_be_written_is_written_by_the_next_refresh() {
    let (node, pod) = published().await;
    node.backend.put("kv/db", &[("username", "app"), ("password", "second")]);
    node.mounts.fail_next(Call::PutRecord, Kind::Exhausted);
    let before = node.mounts.records();
    advance(EVERY).await;
    until("the new generation is shown", || node.refreshed("ok", 1)).await;
    assert_eq!(node.mounts.records(), before);
    advance(EVERY).await;
    until("the volume was asked for again", || node.refreshed("unchanged", 1)).await;
    assert_ne!(node.mounts.records(), before);
    node.assert_whole(&pod, "second");
}

/// The record tells of the first generation and the second is shown: to an engine half that believed it, a store that goes
/// back to the first would have nothing new.
#[tokio::test(start_paused = true)]
async fn a_record_of_what_is_not_shown_any_more_is_not_believed() {
    let (node, pod) = published().await;
    let old = node.mounts.records();
    node.backend.put("kv/db", &[("username", "app"), ("password", "second")]);
    advance(EVERY).await;
    until("the new generation is shown", || node.refreshed("ok", 1)).await;
    for (volume, record) in old {
        node.mounts.set_record(volume.as_str(), record);
    }
    let node = node.restart().await;
    node.backend.put("kv/db", &[("username", "app"), ("password", "first")]);
    assert_eq!(code(node.publish(&pod).await), Code::Ok);
    until("it is refreshed", || node.refreshed("ok", 1)).await;
    node.assert_whole(&pod, "first");
}
