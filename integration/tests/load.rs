// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A node that starts full, with a backend that is far away: every pod gets its volume, the queue can be seen, and
//! memory has a bound.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use evanesce_integration::cgroup::Cgroup;
use evanesce_integration::many;
use evanesce_integration::openbao::OpenBao;
use evanesce_integration::slow_link::SlowLink;
use evanesce_integration::world::{self, Setup, World, vault_class};
use evanesce_integration::{counts, sight, wait};
use evanesce_proto::kubelet::Publish;
use tokio::task::JoinSet;

const SECRETS: usize = 10;
const LATENCY: Duration = Duration::from_millis(100);
/// What the engine half may take at most, whatever is under way: so much to begin with, and so much for each volume.
const ENGINE: u64 = 48 << 20;
const ENGINE_PER_VOLUME: u64 = 256 << 10;
/// What ten small files take on a tmpfs: a page for each and for each folder and link, twice over.
const TMPFS_PER_VOLUME: u64 = 128 << 10;
/// What the kernel itself takes for a volume: a superblock, two mounts, and some thirty inodes with their entries.
const KERNEL_PER_VOLUME: u64 = 128 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_starts_with_a_backend_that_is_far_away() {
    let count = counts::LOADED_VOLUMES.get() as usize;
    let near = SlowLink::near().await.unwrap();
    let cgroup = Cgroup::new().expect("a cgroup of the memory controller: its hierarchy has to be writable");
    let world = world(count, near.local_addr().unwrap().port(), &cgroup).await;
    let link = SlowLink::start(near, world.backend.socket(), LATENCY).unwrap();
    world.classes("load.yaml", &classes(&world, &link)).unwrap();
    wait::until_ready("the class is known", async || {
        world.kubelet.publish(&world.volume(&world.pod("payments", "probe"), "load")).await.ok()
    })
    .await;

    let engine = world.plugin.engine().unwrap();
    let anonymous = || engine.memory("RssAnon").unwrap();
    let idle = anonymous();
    let charge = || cgroup.charge().unwrap();
    let (charged_idle, mut charged_most) = (charge(), 0);
    let begun = Instant::now();
    let volume = |number| Arc::new(world.volume(&world.pod("payments", &format!("app-{number}")), "load"));
    let volumes: Vec<Arc<Publish>> = (0..count).map(volume).collect();
    let mut publishes = JoinSet::new();
    for volume in &volumes {
        let volume = Arc::clone(volume);
        let kubelet = world.kubelet.clone();
        publishes.spawn(async move { (begun.elapsed(), kubelet.publish(&volume).await, begun.elapsed()) });
    }
    let (mut longest_queue, mut most_under_way, mut most) = (0.0, 0.0, idle);
    let mut done = Vec::new();
    while !publishes.is_empty() {
        let metrics = world.plugin.metrics().await.unwrap();
        longest_queue = f64::max(longest_queue, requests(&metrics, "waiting"));
        most_under_way = f64::max(most_under_way, requests(&metrics, "under_way"));
        most = most.max(anonymous());
        charged_most = charged_most.max(charge());
        while let Some(published) = publishes.try_join_next() {
            let (from, result, to) = published.unwrap();
            result.unwrap_or_else(|status| panic!("after {:?}: {status}", to - from));
            done.push(to - from);
        }
        wait::a_moment().await;
    }
    let wall = begun.elapsed();
    for volume in &volumes {
        for number in 0..SECRETS {
            assert_eq!(sight::text(volume.target_path(), &many::file(number)), format!("v{number}"));
        }
    }
    let mut tmpfs = 0;
    for volume in &volumes {
        let stats = world.kubelet.stats(volume).await.unwrap();
        tmpfs += stats.usage.iter().find(|usage| usage.unit == 1).unwrap().used.cast_unsigned();
    }
    done.sort();
    report(&format!(
        "{count} volumes × {SECRETS} secrets, {LATENCY:?} away: wall {wall:?}, p50 {:?}, longest {:?}\n\
         waiting {longest_queue}, under way {most_under_way}; RssAnon of the engine half {} KiB idle, {} KiB at most, {} KiB after; \
         tmpfs {} KiB; the cgroup's charge {} KiB idle, {} KiB at most, {} KiB after",
        done[done.len() / 2],
        done[done.len() - 1],
        idle >> 10,
        most >> 10,
        anonymous() >> 10,
        tmpfs >> 10,
        charged_idle >> 10,
        charged_most >> 10,
        charge() >> 10,
    ));
    assert!(longest_queue > 0.0, "nobody was seen waiting");
    assert!(most_under_way > 0.0 && most_under_way <= 64.0, "{most_under_way} requests under way");
    let per_volume = |bytes: u64| bytes * count as u64;
    assert!(most <= ENGINE + per_volume(ENGINE_PER_VOLUME), "the engine half took {most} bytes");
    assert!(tmpfs <= per_volume(TMPFS_PER_VOLUME), "the volumes took {tmpfs} bytes");
    // Written pages stay with who wrote them, so this holds the volumes too.
    let most = charged_idle + ENGINE + per_volume(ENGINE_PER_VOLUME + TMPFS_PER_VOLUME + KERNEL_PER_VOLUME);
    assert!(charged_most >= charged_idle + tmpfs / 2, "the charge of {charged_most} bytes does not hold the volumes");
    assert!(charged_most <= most, "the cgroup was charged with {charged_most} bytes");
    let metrics = world.plugin.metrics().await.unwrap();
    assert_eq!((requests(&metrics, "waiting"), requests(&metrics, "under_way")), (0.0, 0.0));
}

async fn world(volumes: usize, port: u16, cgroup: &Cgroup) -> World<OpenBao> {
    let world = Setup::default()
        .under(cgroup.starter())
        .port(port)
        .log("info")
        .argument(&format!("--node-tmpfs-limit={}Mi", volumes + 8));
    let world = world.argument(&format!("--namespace-tmpfs-limit={}Mi", volumes + 8)).openbao().await.unwrap();
    world::let_in(&world.backend, "*").await.unwrap();
    many::fill(&world.backend, SECRETS, |number| format!("v{number}")).await.unwrap();
    world
}

/// A backend at the far end of the link, open to every service account of the namespace, and a class of ten secrets.
fn classes(world: &World<OpenBao>, link: &SlowLink) -> String {
    let backend = vault_class(&format!("https://{}", link.address()), Some(world.backend.authority_pem()));
    let backend = backend.replace("name: vault", "name: far").replace("[app]", "[\"*\"]");
    format!("{backend}---\n{}", many::class("load", "far", SECRETS))
}

fn requests(metrics: &str, stage: &str) -> f64 {
    let name = format!("evanesce_backend_requests{{backend=\"vault\",stage=\"{stage}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).expect("the gauge is there")
}

#[expect(clippy::print_stdout, reason = "figures for whoever reads the output")]
fn report(figures: &str) {
    println!("{figures}");
}
