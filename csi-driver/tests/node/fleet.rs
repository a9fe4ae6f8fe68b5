// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Many nodes that ask one backend: what it hears from all of them together, while it is well, while it is not, and when it
//! is back. Here time goes by itself whenever nobody has anything to do.

#![allow(clippy::print_stdout, reason = "a histogram is for people")]

use std::time::Duration;

use evanesce_engine::backend::BackendErrorKind;
use evanesce_engine::backend::fake::{Counts, FakeBackend};
use evanesce_engine::spec::volume::Refresh;
use futures_util::future::join_all;
use tokio::time::sleep;

use crate::classes::spec;
use crate::ground::Node;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Nodes with as many volumes each, which all come at once.
struct Fleet {
    nodes: Vec<Node>,
    backend: FakeBackend,
}

/// How many nodes, and how many volumes each has.
#[derive(Clone, Copy)]
struct Size {
    nodes: u32,
    volumes: u32,
}

impl Size {
    fn all(self) -> u64 {
        u64::from(self.nodes * self.volumes)
    }
}

impl Fleet {
    async fn new(size: Size, backend: FakeBackend, refresh: Refresh) -> Self {
        backend.put("kv/db", &[("username", "app"), ("password", "first")]);
        let nodes = join_all((0..size.nodes).map(|_| async {
            let node = Node::asking(backend.clone()).await;
            let class = spec(&["username kv/db username", "password kv/db password"]);
            node.classes.set("db", evanesce_engine::spec::VolumeSpec { refresh, ..class });
            for volume in 0..size.volumes {
                node.publish(&node.pod("payments", &format!("pod-{volume}"))).await.unwrap();
            }
            node
        }))
        .await;
        Self { nodes, backend }
    }

    /// By how much `count` grows in each of so many spans, one after the other.
    async fn watch(&self, spans: usize, span: Duration, count: impl Fn(&Self) -> u64) -> Vec<u64> {
        let mut grown = Vec::with_capacity(spans);
        for _ in 0..spans {
            let before = count(self);
            sleep(span).await;
            grown.push(count(self) - before);
        }
        grown
    }

    /// Everything that the backend was asked.
    fn requests(&self) -> u64 {
        let Counts { logins, fetches, versions, renewals, revocations, .. } = self.backend.counts();
        logins + fetches + versions + renewals + revocations
    }

    /// How many refreshes of all nodes ended in this way.
    fn refreshed(&self, outcome: &str) -> u64 {
        let sample = format!("evanesce_refreshes_total{{outcome=\"{outcome}\"}} ");
        let of = |node: &Node| {
            let metrics = node.metrics.encode();
            metrics.lines().find_map(|line| line.strip_prefix(&sample)?.parse::<u64>().ok()).unwrap_or_default()
        };
        self.nodes.iter().map(of).sum()
    }
}

/// A row for each span, `#` for each share of the largest.
fn draw(title: &str, span: Duration, heard: &[u64]) {
    let most = heard.iter().copied().max().unwrap_or_default().max(1);
    println!("{title}");
    for (place, requests) in heard.iter().enumerate() {
        let bar = "#".repeat(usize::try_from(60 * requests / most).unwrap());
        println!("{:>6}s {requests:>6} {bar}", place as u64 * span.as_secs());
    }
}

#[tokio::test(start_paused = true)]
async fn five_thousand_volumes_on_a_hundred_nodes_never_storm_a_backend_that_fails_nor_one_that_is_back() {
    let size = Size { nodes: 100, volumes: 50 };
    let lease = 50 * MINUTE;
    let backend = FakeBackend::new("store").with_kind("vault");
    backend.lease("kv/db", lease);
    backend.prolong();
    let fleet = Fleet::new(size, backend, Refresh { every: 5 * MINUTE, jitter_percent: 10 }).await;
    // All of them began together, and are due in the last tenth before two thirds of their lease.
    sleep(lease * 2 / 3 * 9 / 10 - SECOND).await;
    assert_eq!(fleet.backend.counts().renewals, 0);

    fleet.backend.fail(BackendErrorKind::Unavailable, None);
    let dead = fleet.watch(10, MINUTE, Fleet::requests).await;
    draw("requests in each minute in which the backend is gone", MINUTE, &dead);
    // Five that are borne, then a probe, then at most four a minute and node (decision 0022).
    let bound = |minute: usize| u64::from(size.nodes) * if minute == 0 { 5 + 6 } else { 4 };
    for (minute, heard) in dead.iter().enumerate() {
        assert!(*heard <= bound(minute), "{heard} requests in minute {minute}");
    }
    assert_eq!(fleet.backend.lent().len() as u64, size.all(), "something was lent anew, or given back");

    fleet.backend.recover();
    let back = fleet.watch(40, 10 * SECOND, Fleet::requests).await;
    draw("requests in each ten seconds since it is back", 10 * SECOND, &back);
    let (all, most) = (back.iter().sum::<u64>(), back.iter().copied().max().unwrap());
    // The login and the lease of each, once; and all of them before the first lease would have ended.
    assert!((2 * size.all()..=21 * size.all() / 10).contains(&all), "{all} requests");
    assert!(most <= all / 10, "{most} of {all} requests came within ten seconds");
    assert_eq!(fleet.backend.lent().len() as u64, size.all());
    assert_eq!(fleet.refreshed("ok"), 0, "a pod saw something of it");
}

#[tokio::test(start_paused = true)]
async fn after_the_rotation_of_a_static_role_its_volumes_ask_one_after_the_other() {
    let (size, hour) = (Size { nodes: 20, volumes: 10 }, 60 * MINUTE);
    let backend = FakeBackend::new("store").with_kind("vault");
    backend.rotate("kv/db", hour);
    let fleet = Fleet::new(size, backend, Refresh { every: 2 * hour, jitter_percent: 10 }).await;
    sleep(hour).await;
    let read = |fleet: &Fleet| fleet.refreshed("unchanged");
    assert_eq!(read(&fleet), 0, "asked before the rotation");
    let asked = fleet.watch(12, SECOND, read).await;
    draw("volumes that ask in each second after the rotation", SECOND, &asked);
    assert_eq!(asked.iter().sum::<u64>(), size.all());
    let most = asked.iter().copied().max().unwrap();
    assert!(most <= size.all() / 4, "{most} of {} volumes asked within one second", size.all());
}
