// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Ten minutes without a backend, and clocks that jump meanwhile: a number that grows, and nothing that breaks.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use evanesce_csi::kubernetes::pod_events::PodEvent;
use evanesce_engine::audit::Event;
use evanesce_engine::backend::BackendErrorKind;
use evanesce_engine::spec::volume::Refresh;
use evanesce_proto::kubelet::Publish;
use tokio::time::advance;
use tonic::Code;

use crate::classes::spec;
use crate::ground::{Node, code, read, settle};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// A retry's period with its jitter, after as long as the backend may be left alone before it is probed: who comes in between is
/// sent away once more.
const RECOVERED: Duration = Duration::from_secs(75 + 30);
const PODS: usize = 20;

async fn pass(time: Duration) {
    for _ in 0..time.as_secs() {
        advance(SECOND).await;
        settle().await;
    }
}

/// Every name, inode, size and time beneath the volume: what a watcher could notice.
fn sight(root: &Path) -> BTreeSet<(String, u64, u64, i64, i64)> {
    let mut seen = BTreeSet::new();
    let mut folders = vec![fs::canonicalize(root).unwrap()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let it = fs::symlink_metadata(&path).unwrap();
            seen.insert((path.display().to_string(), it.ino(), it.size(), it.ctime(), it.ctime_nsec()));
            if it.is_dir() {
                folders.push(path);
            }
        }
    }
    seen
}

/// What the pods' owners are told, with the pod.
fn told(events: &[Event]) -> Vec<(String, PodEvent)> {
    let told = events.iter().filter_map(PodEvent::of);
    told.map(|(subject, event)| (subject.workload.pod_uid.to_string(), event)).collect()
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_without_a_backend_are_a_number_and_no_incident() {
    let node = Node::new().await;
    let class = || {
        let mut class = spec(&["username kv/db username", "password kv/db password"]);
        class.refresh = Refresh { every: MINUTE, jitter_percent: 10 };
        class
    };
    node.classes.set("db", class());
    let pods: Vec<Publish> = (0..PODS).map(|number| node.pod("payments", &format!("pod-{number}"))).collect();
    for pod in &pods {
        node.publish(pod).await.unwrap();
    }
    pass(2 * MINUTE).await;
    let before: Vec<_> = pods.iter().map(|pod| sight(pod.target_path())).collect();
    node.backend.fail(BackendErrorKind::Unavailable, None);
    node.auditor.take();

    let mut stalest = 0.0;
    for minute in 1..=10 {
        pass(MINUTE).await;
        let now = node.gauge("volumes_stalest_seconds");
        assert!(minute < 3 || now >= stalest + 59.0, "minute {minute}: {stalest}, then {now}");
        stalest = now;
        for pod in &pods {
            assert_eq!(code(node.publish(pod).await), Code::Ok, "kubelet hears nothing of it");
        }
    }
    assert_eq!(node.gauge("volumes_stale"), PODS as f64);
    assert!(before.iter().zip(&pods).all(|(before, pod)| *before == sight(pod.target_path())), "a file changed");
    // The same again is a count on the event that is there: what differs would be another event.
    let said = told(&node.auditor.events());
    let different: std::collections::HashSet<_> = said.iter().collect();
    assert_eq!(different.len(), PODS, "each pod is told once: {different:?}");
    assert!(said.len() > 5 * PODS, "it was tried again all the time");

    node.backend.put("kv/db", &[("username", "app"), ("password", "second")]);
    node.backend.recover();
    pass(RECOVERED).await;
    assert_eq!(node.gauge("volumes_stale"), 0.0, "all are fresh within one period and its jitter, once it is probed");
    assert!(pods.iter().all(|pod| read(pod, "password").as_deref() == Some("second")));
}

/// A pod whose files come with a lease of an hour, which is prolonged or not.
async fn leased(prolongs: bool) -> Node {
    let node = Node::new().await;
    node.backend.lease("kv/db", HOUR);
    if prolongs {
        node.backend.prolong();
    }
    node.publish(&node.pod("payments", "pod-1")).await.unwrap();
    node
}

/// Whether the lease was prolonged or replaced since it was made.
fn seen_to(node: &Node, prolongs: bool) -> bool {
    let counts = node.backend.counts();
    if prolongs { counts.renewals >= 2 && counts.fetches == 1 } else { counts.fetches >= 2 }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_by_an_hour_has_no_lease_prolonged_or_replaced_too_late() {
    for prolongs in [true, false] {
        for step in [-3600, 3600] {
            let node = leased(prolongs).await;
            pass(5 * MINUTE).await;
            node.clock.ahead.store(step, Ordering::Relaxed);
            // Two thirds of the lease, less what is over; forward, the next look at the wall clock sees it.
            pass(if step > 0 { 36 * SECOND } else { 35 * MINUTE }).await;
            assert!(seen_to(&node, prolongs), "prolongs: {prolongs}, {step}");
        }
    }
}

/// The clock of deadlines stands still while a machine sleeps, and the wall's does not.
#[tokio::test(start_paused = true)]
async fn a_machine_that_slept_sees_to_its_leases_within_a_look_at_the_wall_clock() {
    for prolongs in [true, false] {
        // Less than two thirds of the lease; more, and less than the lease; more than the lease.
        for (slept, late) in [(30, false), (45, true), (180, true)] {
            let node = leased(prolongs).await;
            pass(MINUTE).await;
            node.clock.ahead.store(slept * 60, Ordering::Relaxed);
            pass(36 * SECOND).await;
            assert_eq!(seen_to(&node, prolongs), late, "prolongs: {prolongs}, slept {slept} minutes");
            if !late {
                pass(10 * MINUTE).await;
                assert!(seen_to(&node, prolongs), "the sleep counts: prolongs: {prolongs}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_away_when_the_machine_wakes_has_leases_seen_to_when_it_is_back() {
    for prolongs in [true, false] {
        let node = leased(prolongs).await;
        node.backend.fail(BackendErrorKind::Unavailable, None);
        node.clock.ahead.store(45 * 60, Ordering::Relaxed);
        pass(5 * MINUTE).await;
        assert_eq!(node.gauge("volumes_stale"), 1.0, "prolongs: {prolongs}");
        node.backend.recover();
        // A retry waits no longer than the period of the class and a quarter of it.
        pass(7 * MINUTE).await;
        assert_eq!(node.gauge("volumes_stale"), 0.0, "prolongs: {prolongs}, before the hour is over");
    }
}
