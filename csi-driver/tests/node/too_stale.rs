// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The end of `maxStale`: what a pod sees of it, who hears of it, and that nobody who dies on the way changes it.

use std::time::Duration;

use evanesce_engine::audit::Event;
use evanesce_engine::backend::BackendErrorKind;
use evanesce_engine::spec::volume::{MaxStale, OnStale};
use evanesce_proto::kubelet::Publish;
use tokio::time::advance;
use tonic::Code;

use crate::classes::{EVERY, spec};
use crate::ground::{Node, code, generations, read, settle, until};

const STEP: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const FILES: [&str; 2] = ["username kv/db username", "password kv/db password"];

fn class(node: &Node, max_stale: Option<(Duration, OnStale)>) {
    let mut spec = spec(&FILES);
    spec.max_stale = max_stale.map(|(after, then)| MaxStale { after, then });
    node.classes.set("db", spec);
}

/// A pod whose backend is gone since its files were delivered.
async fn outage(then: OnStale) -> (Node, Publish) {
    let node = Node::new().await;
    class(&node, Some((HOUR, then)));
    let pod = node.pod("payments", "pod-1");
    node.publish(&pod).await.unwrap();
    node.backend.fail(BackendErrorKind::Unavailable, None);
    (node, pod)
}

/// Lets time go by, and everything that is due in it be done.
async fn pass(time: Duration) {
    for _ in 0..time.as_secs() / STEP.as_secs() {
        advance(STEP).await;
        settle().await;
    }
}

/// Whether the pod sees the mark.
fn marked(pod: &Publish) -> bool {
    pod.target_path().join("..data/..stale").exists()
}

/// Whether the pod sees both files: the names of those that come back are linked one after the other, after the swap.
fn has_files(pod: &Publish) -> bool {
    ["username", "password"].iter().all(|file| read(pod, file).is_some())
}

fn said(node: &Node) -> Vec<&'static str> {
    node.auditor.codes().into_iter().filter(|code| matches!(*code, "too_stale" | "fresh_again")).collect()
}

async fn until_too_stale(node: &Node, volumes: u64) {
    until("so many are too old", || node.counts(&format!("evanesce_volumes_too_stale{{}} {volumes}.0"))).await;
}

#[tokio::test(start_paused = true)]
async fn files_that_are_too_old_are_marked_and_stay_and_it_is_said_once_until_they_are_fresh() {
    let (node, pod) = outage(OnStale::Mark).await;
    pass(HOUR - STEP).await;
    assert!(!marked(&pod) && said(&node).is_empty(), "early");
    advance(STEP).await;
    until("they are marked", || marked(&pod)).await;
    until_too_stale(&node, 1).await;
    pass(2 * HOUR).await;
    assert!(marked(&pod));
    node.assert_whole(&pod, "first");
    assert_eq!(said(&node), ["too_stale"]);
    let events = node.auditor.events();
    let event = events.iter().find_map(|event| match event {
        Event::TooStale { limit, generation, message, .. } => Some((limit.then, *generation, message.as_str())),
        _ => None,
    });
    assert!(matches!(event, Some((OnStale::Mark, 1, message)) if message.contains("backend store")), "{event:?}");
    node.backend.recover();
    advance(2 * EVERY).await;
    until("the mark is gone", || !marked(&pod)).await;
    until_too_stale(&node, 0).await;
    node.assert_whole(&pod, "first");
    assert_eq!(generations(&pod), (vec!["..g1".to_owned()], "..g1".to_owned()), "nothing else changed");
    assert_eq!(said(&node), ["too_stale", "fresh_again"]);
}

#[tokio::test(start_paused = true)]
async fn files_that_are_too_old_are_removed_by_one_swap_and_come_back_by_one() {
    let (node, pod) = outage(OnStale::Remove).await;
    pass(HOUR - STEP).await;
    node.assert_whole(&pod, "first");
    advance(STEP).await;
    until("they are gone", || read(&pod, "password").is_none()).await;
    until_too_stale(&node, 1).await;
    assert!(marked(&pod) && read(&pod, "username").is_none());
    assert_eq!(generations(&pod).1, "..g2", "a generation of its own");
    pass(HOUR).await;
    assert_eq!(generations(&pod), (vec!["..g2".to_owned()], "..g2".to_owned()), "the old files are gone for good");
    assert_eq!(said(&node), ["too_stale"]);
    node.backend.recover();
    advance(2 * EVERY).await;
    until("they are back", || has_files(&pod)).await;
    node.assert_whole(&pod, "first");
    until_too_stale(&node, 0).await;
    assert!(!marked(&pod));
    assert_eq!(generations(&pod).1, "..g3");
    assert_eq!(said(&node), ["too_stale", "fresh_again"]);
}

#[tokio::test(start_paused = true)]
async fn the_swap_to_new_files_takes_the_mark_along() {
    let (node, pod) = outage(OnStale::Mark).await;
    pass(HOUR).await;
    until("they are marked", || marked(&pod)).await;
    node.backend.put("kv/db", &[("username", "app"), ("password", "second")]);
    node.backend.recover();
    advance(2 * EVERY).await;
    until("new files are shown", || read(&pod, "password").as_deref() == Some("second")).await;
    assert!(!marked(&pod), "no reader sees new files that are marked");
    until_too_stale(&node, 0).await;
}

#[tokio::test(start_paused = true)]
async fn without_max_stale_an_outage_of_days_changes_no_file() {
    let (node, pod) = outage(OnStale::Remove).await;
    class(&node, None);
    for _ in 0..3 * 24 * 12 {
        advance(EVERY).await;
        settle().await;
    }
    node.assert_whole(&pod, "first");
    assert!(!marked(&pod) && said(&node).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_is_refreshed_is_never_too_old() {
    let node = Node::new().await;
    class(&node, Some((EVERY + STEP, OnStale::Remove)));
    let pod = node.pod("payments", "pod-1");
    node.publish(&pod).await.unwrap();
    // One refresh in two fails, and its retry does not.
    for _ in 0..12 {
        node.backend.fail_next(BackendErrorKind::Unavailable, None);
        pass(EVERY + STEP).await;
    }
    node.assert_whole(&pod, "first");
    assert!(!marked(&pod));
}

#[tokio::test(start_paused = true)]
async fn how_old_files_are_is_not_forgotten_by_an_engine_half_that_starts() {
    let (node, pod) = outage(OnStale::Mark).await;
    pass(50 * MINUTE).await;
    let node = node.restart().await;
    assert_eq!(code(node.publish(&pod).await), Code::Ok);
    pass(9 * MINUTE).await;
    assert!(!marked(&pod));
    pass(MINUTE).await;
    until("they are marked an hour after they were fresh", || marked(&pod)).await;
}

#[tokio::test(start_paused = true)]
async fn a_mark_outlives_the_engine_half_that_set_it_and_not_the_outage() {
    for then in [OnStale::Mark, OnStale::Remove] {
        let (node, pod) = outage(then).await;
        pass(HOUR).await;
        until("they are marked", || marked(&pod)).await;
        let node = node.restart().await;
        assert!(node.counts("evanesce_volumes_too_stale{} 1.0"), "{then:?}");
        assert_eq!(code(node.publish(&pod).await), Code::Ok);
        pass(HOUR).await;
        assert!(marked(&pod), "{then:?}");
        assert_eq!(read(&pod, "password").is_some(), then == OnStale::Mark);
        assert_eq!(said(&node), ["too_stale"], "{then:?}: the next one says it too, once");
        node.backend.recover();
        advance(2 * EVERY).await;
        until("the mark is gone and the files are back", || !marked(&pod) && has_files(&pod)).await;
        node.assert_whole(&pod, "first");
        until_too_stale(&node, 0).await;
    }
}

/// Death between the swap to nothing and the record of it.
#[tokio::test(start_paused = true)]
async fn a_record_of_files_that_were_removed_is_not_believed() {
    let (node, pod) = outage(OnStale::Remove).await;
    let old = node.mounts.records();
    pass(HOUR).await;
    until("they are gone", || read(&pod, "password").is_none()).await;
    for (volume, record) in old {
        node.mounts.set_record(volume.as_str(), record);
    }
    let node = node.restart().await;
    node.backend.recover();
    assert_eq!(code(node.publish(&pod).await), Code::Ok);
    advance(2 * EVERY).await;
    until("they are back", || has_files(&pod)).await;
    node.assert_whole(&pod, "first");
    assert!(!marked(&pod));
}

#[tokio::test(start_paused = true)]
async fn what_is_lent_is_not_too_old_before_it_was_to_be_replaced() {
    let (node, pod) = {
        let node = Node::new().await;
        node.backend.lease("kv/db", 24 * HOUR);
        class(&node, Some((HOUR, OnStale::Mark)));
        let pod = node.pod("payments", "pod-1");
        node.publish(&pod).await.unwrap();
        (node, pod)
    };
    node.backend.fail(BackendErrorKind::Unavailable, None);
    for _ in 0..16 * 6 {
        advance(10 * MINUTE).await;
        settle().await;
    }
    until("it could not be replaced", || node.counts("evanesce_volumes_stale{} 1.0")).await;
    pass(50 * MINUTE).await;
    assert!(!marked(&pod), "two thirds of a day are over, and less than an hour");
    pass(11 * MINUTE).await;
    until("it is marked", || marked(&pod)).await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_the_class_counts_during_the_outage() {
    let (node, pod) = outage(OnStale::Mark).await;
    pass(30 * MINUTE).await;
    class(&node, Some((2 * HOUR, OnStale::Mark)));
    pass(80 * MINUTE).await;
    assert!(!marked(&pod), "it has two hours now");
    pass(10 * MINUTE).await;
    until("it is marked", || marked(&pod)).await;
    node.assert_whole(&pod, "first");
    class(&node, Some((2 * HOUR, OnStale::Remove)));
    pass(MINUTE).await;
    until("the files are gone", || read(&pod, "password").is_none()).await;
    assert_eq!(said(&node), ["too_stale", "too_stale"]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_ages_files_as_an_outage_does() {
    let (node, pod) = outage(OnStale::Remove).await;
    node.backend.recover();
    node.backend.deny("kv/db");
    pass(EVERY).await;
    // Versions may be asked for, and say nothing new; a new one has to be read.
    node.backend.put("kv/db", &[("username", "app"), ("password", "second")]);
    pass(HOUR + EVERY).await;
    until("they are gone", || read(&pod, "password").is_none()).await;
}
