// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! An engine half that starts on a node with volumes.

use std::time::Duration;

use evanesce_engine::clock::Clock as _;
use evanesce_engine::error::Kind;
use evanesce_proto::kubelet::Publish;
use tokio::time::advance;
use tonic::Code;

use crate::classes::{EVERY, spec};
use crate::fake_mounts::Call;
use crate::ground::{Node, VOLUME, code, generations, published, read, settle, until};

/// A node whose engine half was replaced by another one, shortly before its volume was due.
async fn restarted() -> (Node, Publish) {
    let (node, pod) = published().await;
    advance(EVERY - Duration::from_secs(30)).await;
    (node.restart().await, pod)
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_is_not_due_is_not_asked_for_after_a_restart() {
    let (node, pod) = published().await;
    let asked = node.backend.counts();
    advance(EVERY / 2).await;
    let node = node.restart().await;
    node.publish(&pod).await.unwrap();
    advance(EVERY / 4).await;
    settle().await;
    assert_eq!(node.backend.counts(), asked);
    advance(EVERY / 4).await;
    until("it is asked for when it would have been", || node.refreshed("unchanged", 1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_valid_is_kept_over_a_restart() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let node = Node::new().await;
    node.backend.expire("kv/db", node.clock.now() + DAY);
    let pod = node.pod("payments", "pod-1");
    node.publish(&pod).await.unwrap();
    let asked = node.backend.counts();
    for _ in 0..3 {
        advance(DAY / 6).await;
        settle().await;
    }
    let node = node.restart().await;
    node.publish(&pod).await.unwrap();
    settle().await;
    assert_eq!(node.backend.counts(), asked, "it is good for another twelve hours");
    node.backend.expire("kv/db", node.clock.now() + 2 * DAY);
    advance(DAY / 6 + Duration::from_secs(1)).await;
    until("two thirds of its life are over", || node.backend.counts().fetches > asked.fetches).await;
}

#[tokio::test(start_paused = true)]
async fn a_class_that_was_edited_meanwhile_is_asked_for_after_a_restart() {
    let (node, pod) = published().await;
    node.classes.set("db", spec(&["secret kv/db password"]));
    // No time passes for the first engine half to see it.
    let node = node.restart().await;
    node.publish(&pod).await.unwrap();
    until("the edit is shown", || read(&pod, "secret").is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_is_taken_over_shows_what_it_showed() {
    let (node, pod) = restarted().await;
    assert_eq!(node.plugin.volumes.live().len(), 1);
    node.assert_whole(&pod, "first");
    assert_eq!(generations(&pod), (vec!["..g1".to_owned()], "..g1".to_owned()));
    assert_eq!((node.mounts.count(Call::Make), node.mounts.count(Call::Attach)), (1, 1));
    assert_eq!(node.plugin.budget.reserved(), VOLUME);
    assert!(node.plugin.volumes.live()[0].tokens().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_first_republish_after_a_restart_refreshes() {
    let (node, pod) = restarted().await;
    node.backend.put("kv/db", &[("username", "app"), ("password", "second")]);
    settle().await;
    assert!(node.refreshed("unauthenticated", 0), "there is no token to try with");
    // Time stands still.
    node.publish(&pod).await.unwrap();
    until("the volume is refreshed", || node.refreshed("ok", 1)).await;
    node.assert_whole(&pod, "second");
    assert_eq!(generations(&pod).1, "..g2");
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_is_taken_over_and_has_not_changed_gets_no_generation() {
    let (node, pod) = restarted().await;
    node.publish(&pod).await.unwrap();
    until("the volume is refreshed", || node.refreshed("unchanged", 1)).await;
    assert_eq!(generations(&pod), (vec!["..g1".to_owned()], "..g1".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_is_taken_over_can_be_unpublished() {
    let (node, pod) = restarted().await;
    assert_eq!(code(node.unpublish(&pod).await), Code::Ok);
    node.assert_nothing_left(&pod);
    assert_eq!(node.auditor.codes(), ["unmount"]);
}

#[tokio::test(start_paused = true)]
async fn a_previous_generation_that_is_found_is_swept_in_its_time() {
    let (node, pod) = published().await;
    node.backend.put("kv/db", &[("username", "app"), ("password", "second")]);
    advance(EVERY).await;
    until("the new generation is shown", || node.refreshed("ok", 1)).await;
    let node = node.restart().await;
    assert_eq!(generations(&pod).0, ["..g1", "..g2"]);
    settle().await;
    advance(Duration::from_secs(60)).await;
    until("the previous generation is gone", || generations(&pod).0 == ["..g2"]).await;
    node.assert_whole(&pod, "second");
}

#[tokio::test(start_paused = true)]
async fn a_record_without_a_volume_is_dropped() {
    let (node, pod) = published().await;
    node.mounts.unmount(pod.target_path());
    let node = node.restart().await;
    node.assert_nothing_left(&pod);
    node.publish(&pod).await.unwrap();
    node.assert_whole(&pod, "first");
}

#[tokio::test(start_paused = true)]
async fn a_record_of_another_version_is_left_alone_with_its_volume() {
    let (node, pod) = published().await;
    let ours = node.mounts.records().into_values().next().unwrap();
    let theirs = String::from_utf8(ours).unwrap().replace("\"version\":1,", "\"version\":2,").into_bytes();
    node.mounts.set_record(pod.volume_id(), theirs.clone());
    let adopted = node.mounts.count(Call::Adopt);
    let node = node.restart().await;
    assert!(node.plugin.volumes.live().is_empty());
    assert_eq!(node.mounts.records().into_values().collect::<Vec<_>>(), [theirs.as_slice()]);
    assert_eq!((node.mounts.count(Call::Adopt), node.mounts.count(Call::Detach)), (adopted, 0));
    node.assert_whole(&pod, "first");
    // Not final to kubelet, in words for whoever reads the pod's events; nothing is touched.
    let status = node.publish(&pod).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("version 2 and this build reads 1"), "{status}");
    assert_eq!(node.mounts.records().into_values().collect::<Vec<_>>(), [theirs.as_slice()]);
    assert_eq!(code(node.unpublish(&pod).await), Code::Ok);
    node.assert_nothing_left(&pod);
    node.publish(&pod).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn records_that_are_none_do_not_keep_others_from_being_taken_over() {
    let (node, _) = published().await;
    for (id, record) in [("a-empty", ""), ("a-torn", "{\"version\":1,"), ("z-other", "null")] {
        node.mounts.set_record(id, record.into());
    }
    let node = node.restart().await;
    assert_eq!(node.plugin.volumes.live().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_first_publish_looks_for_a_lost_volume_only_where_there_may_be_one() {
    let (node, pod) = published().await;
    let other = node.pod("payments", "pod-2");
    assert_eq!(node.mounts.count(Call::Adopt), 0, "nothing was ever lost");
    let node = node.restart().await;
    node.publish(&other).await.unwrap();
    assert_eq!(node.mounts.count(Call::Adopt), 1, "all was taken over");

    // The record of one cannot be read, and the other cannot be taken over.
    node.mounts.set_record(pod.volume_id(), "null".into());
    node.mounts.fail_next(Call::Adopt, Kind::Internal);
    let node = node.restart().await;
    for pod in [&pod, &other] {
        node.publish(pod).await.unwrap();
        node.assert_whole(pod, "first");
    }
    assert_eq!(node.mounts.count(Call::Make), 2, "both were found where they are");
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_cannot_be_taken_over_is_left_to_its_pod_and_the_publish_says_so() {
    let (node, pod) = published().await;
    let data = std::path::Path::new(pod.target_path()).join("..data");
    std::fs::remove_file(&data).unwrap();
    std::os::unix::fs::symlink("elsewhere", &data).unwrap();
    let node = node.restart().await;
    let refused = node.publish(&pod).await.unwrap_err();
    assert!(refused.message().contains("cannot be taken over"), "{refused}");
    assert!(data.is_symlink(), "it was touched");
}

#[tokio::test(start_paused = true)]
async fn a_first_publish_that_could_not_be_undone_is_looked_for_by_the_next() {
    let (node, _) = published().await;
    let pod = node.pod("payments", "pod-2");
    node.mounts.fail_next(Call::Attach, Kind::Internal);
    node.mounts.fail_next(Call::Detach, Kind::Internal);
    node.publish(&pod).await.unwrap_err();
    node.publish(&pod).await.unwrap();
    assert_eq!(node.mounts.count(Call::Adopt), 1);
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_was_attached_and_never_remembered_is_refreshed_whole() {
    let (node, pod) = published().await;
    // What is written before the mount: everything but what the volume shows.
    let record = node.mounts.records().into_values().next().unwrap();
    let text = String::from_utf8(record).unwrap();
    let at = text.find(",\"before\":").unwrap();
    node.mounts.set_record(pod.volume_id(), format!("{},\"before\":null}}", &text[..at]).into_bytes());
    let node = node.restart().await;
    node.publish(&pod).await.unwrap();
    until("the volume is refreshed", || node.refreshed("ok", 1)).await;
    node.assert_whole(&pod, "first");
}

#[tokio::test(start_paused = true)]
async fn a_volume_whose_record_is_lost_or_damaged_is_taken_over_by_its_next_publish() {
    for damage in [Some("{\"version\":1,"), None] {
        let (node, pod) = published().await;
        match damage {
            Some(text) => node.mounts.set_record(pod.volume_id(), text.into()),
            None => node.mounts.remove_record(pod.volume_id()),
        }
        let node = node.restart().await;
        assert!(node.plugin.volumes.live().is_empty());
        node.backend.put("kv/db", &[("username", "app"), ("password", "second")]);
        node.publish(&pod).await.unwrap();
        until("the volume is refreshed", || node.refreshed("ok", 1)).await;
        node.assert_whole(&pod, "second");
        assert_eq!((node.mounts.count(Call::Make), node.mounts.count(Call::Attach)), (1, 1));
        // The engine half after this one finds a record again.
        let node = node.restart().await;
        assert_eq!(node.plugin.volumes.live().len(), 1);
    }
}
