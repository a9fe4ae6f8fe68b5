// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Many nodes that ask one backend: what it hears from all of them together, while it is well, while it is not, and when it
//! is back. Here time goes by itself whenever nobody has anything to do.

#![allow(clippy::print_stdout, reason = "a histogram is for people")]

use std::fs;
use std::path::Path;
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
const HOUR: Duration = Duration::from_secs(3600);

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
        Self::growing(size, backend, refresh, Duration::ZERO).await
    }

    /// The same, but the volumes of each node come one after the other, spread over `span`, which is over then.
    async fn growing(size: Size, backend: FakeBackend, refresh: Refresh, span: Duration) -> Self {
        backend.put("kv/db", &[("username", "app"), ("password", "first")]);
        let nodes = join_all((0..size.nodes).map(|_| async {
            let node = Node::asking(backend.clone()).await;
            let class = spec(&["username kv/db username", "password kv/db password"]);
            node.classes.set("db", evanesce_engine::spec::VolumeSpec { refresh, ..class });
            for volume in 0..size.volumes {
                // Even a sleep of no time lets a moment pass.
                if !span.is_zero() {
                    sleep(span / size.volumes).await;
                }
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

/// Between these lines, `docs/sizing.md` is written by the test below.
const BEGIN: &str = "<!-- requests: written by csi-driver/tests/node/fleet.rs -->\n";
const END: &str = "<!-- end of requests -->\n";

/// What 1,000 volumes of one secret ask in an hour in which nothing changes: logins, versions, reads.
async fn asked_in_an_hour(refresh: Refresh) -> [u64; 3] {
    let size = Size { nodes: 20, volumes: 50 };
    // As pods come: at any time. A tenth of a period is left free, in which the hour begins and ends.
    let backend = FakeBackend::new("store").with_kind("vault");
    let fleet = Fleet::growing(size, backend, refresh, refresh.every * 9 / 10).await;
    sleep(refresh.every + refresh.every / 20).await;
    let before = fleet.backend.counts();
    // Of a long period, several: where it is spread, one volume is asked for once more and another once less.
    let hours = (4 * refresh.every).as_secs().div_ceil(HOUR.as_secs());
    sleep(HOUR * u32::try_from(hours).unwrap()).await;
    let after = fleet.backend.counts();
    let Counts { renewals, .. } = after;
    assert_eq!(renewals, 0, "nothing was lent");
    let grown = |count: fn(&Counts) -> u64| (count(&after) - count(&before)) / hours;
    [grown(|counts| counts.logins), grown(|counts| counts.versions), grown(|counts| counts.fetches)]
}

#[tokio::test(start_paused = true)]
async fn a_thousand_volumes_ask_as_often_as_the_plan_and_the_page_about_sizes_say() {
    let mut table = String::from("| `refresh.every` | logins | version checks | reads | requests per hour |\n");
    table.push_str("| --- | ---: | ---: | ---: | ---: |\n");
    for (name, minutes) in [("1m", 1), ("5m", 5), ("15m", 15), ("1h", 60)] {
        let every = minutes * MINUTE;
        // As `evanesce plan` computes it: at every refresh a login and a version, and no read.
        let refreshes = 1000 * HOUR.as_secs() / every.as_secs();
        let exact = asked_in_an_hour(Refresh { every, jitter_percent: 0 }).await;
        let mut counted = vec![exact];
        // As a class has it that says nothing of it. Every minute would take half of the time here, and say no more.
        if minutes > 1 {
            counted.push(asked_in_an_hour(Refresh { every, jitter_percent: 10 }).await);
        }
        println!("every {name}, without and with jitter: {counted:?}");
        for [logins, versions, reads] in counted {
            for asked in [logins, versions] {
                assert!(asked.abs_diff(refreshes) * 50 <= refreshes, "every {name}: {asked}, not {refreshes}");
            }
            assert_eq!(reads, 0, "every {name}: read although it is what it was");
        }
        let [logins, versions, reads] = exact;
        let cells = [logins, versions, reads, logins + versions + reads].map(in_thousands).join(" | ");
        table.push_str(&format!("| `{name}` | {cells} |\n"));
    }
    print!("{table}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/sizing.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let counted = format!("{before}{BEGIN}\n{table}\n{END}{after}");
    if std::env::var_os("EVANESCE_UPDATE").is_some() {
        fs::write(&path, counted).unwrap();
        return;
    }
    assert!(page == counted, "run the test again with EVANESCE_UPDATE=1 and commit {}", path.display());
}

/// As `12,000`.
fn in_thousands(number: u64) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", in_thousands(number / 1000), number % 1000) }
}
