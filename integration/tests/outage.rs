// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A backend that is away for too long, and what the plugin does about it that its class asked for: on real mounts, with
//! real deaths in between.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use evanesce_integration::gate::Fault;
use evanesce_integration::openbao::OpenBao;
use evanesce_integration::token_review::WorkloadName;
use evanesce_integration::world::{Gated, PASSWORD, PASSWORD_FILE, Setup, World, lively_class};
use evanesce_integration::{sight, wait};
use evanesce_proto::kubelet::Publish;
use serde_json::json;

/// How long the real outage is; the class asks every second.
const OUTAGE: Duration = Duration::from_secs(60);

/// What [`lively_class`] says of the volume, to which a test adds.
const KEEP: &str = "  keepPrevious: 2s\n";

fn lively_with(name: &str, spec: &str) -> String {
    lively_class(name, &[PASSWORD_FILE]).replace(KEEP, &format!("{KEEP}  {spec}\n"))
}

fn audited(world: &World<Gated>, code: &str) -> usize {
    world.plugin.audit().iter().filter(|line| line["metadata"]["event_code"] == code).count()
}

fn marked(volume: &Publish) -> bool {
    volume.target_path().join("..data/..stale").exists()
}

fn shows_password(volume: &Publish) -> bool {
    volume.target_path().join("password").exists()
}

/// How long ago the volume that is stale for the longest was fresh, in seconds.
async fn stalest(world: &World<OpenBao>) -> f64 {
    let metrics = world.plugin.metrics().await.unwrap();
    let value = metrics.lines().find_map(|line| line.strip_prefix("evanesce_volumes_stalest_seconds{} "));
    value.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_without_openbao_changes_no_file_ends_no_process_and_is_told_once_for_each_volume() {
    let class = lively_class("lively", &[PASSWORD_FILE]);
    let mut world = Setup::default().class(&class).limits("{timeout: 2s}").log("info").openbao().await.unwrap();
    let volumes: Vec<_> = (0..3).map(|_| world.volume(&world.pod("payments", "app"), "lively")).collect();
    for volume in &volumes {
        world.kubelet.publish(volume).await.unwrap();
    }
    let shown = || volumes.iter().map(|volume| sight::shown(volume.target_path()).unwrap()).collect::<Vec<_>>();
    let (before, processes) = (shown(), world.plugin.processes());
    let told = |world: &World<OpenBao>, what: &str| world.plugin.log().matches(what).count();

    world.backend.freeze();
    let begun = Instant::now();
    let mut stale = Vec::new();
    while begun.elapsed() < OUTAGE {
        for volume in &volumes {
            assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
        }
        stale.push(stalest(&world).await);
        wait::a_moment().await;
    }
    assert_eq!((shown(), world.plugin.processes()), (before.clone(), processes));
    assert!(stale.is_sorted() && stale.last() > Some(&50.0), "staleness is a number that grows: {:?}", stale.last());
    assert_eq!(told(&world, "\"volume is stale: its pod keeps the last good files\""), 3, "{}", world.plugin.log());

    world.backend.thaw();
    let rotated = json!({"username": "app", "password": "rotated"});
    world.backend.admin().put("kv", "payments/db", rotated).await.unwrap();
    // A backend that failed is probed twice a minute, and whoever was held back comes when it has answered.
    let fresh = async || {
        let news = |volume: &Publish| sight::text(volume.target_path(), "password") == "rotated";
        volumes.iter().all(news).then_some(())
    };
    wait::until_ready_within(Duration::from_secs(45), "every pod sees what is new", fresh).await;
    wait::until_ready("nothing is stale any more", async || (stalest(&world).await == 0.0).then_some(())).await;
    assert_eq!(told(&world, "\"volume is fresh again\""), 3, "{}", world.plugin.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_too_old_go_stay_away_over_deaths_of_both_halves_and_come_back_with_the_backend() {
    let class = lively_with("lively", "maxStale: 4s\n  onStale: remove");
    let mut world = Setup::default().class(&class).gated(1).await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "lively");
    wait::until_ready("the volume is published", async || world.kubelet.publish(&volume).await.ok()).await;
    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
    assert!(!marked(&volume));

    world.backend.gates[0].set(Fault::Down).await;
    wait::until("the files are gone", || !shows_password(&volume)).await;
    assert!(marked(&volume), "one swap takes the files and brings the mark");
    wait::until("the audit has it", || audited(&world, "too_stale") == 1).await;

    world.plugin.kill_engine().await.unwrap();
    world.kubelet.publish(&volume).await.unwrap();
    wait::until("the next engine half says it too", || audited(&world, "too_stale") == 2).await;
    assert!(marked(&volume) && !shows_password(&volume));
    world.plugin.kill_and_restart().await.unwrap();
    world.kubelet.publish(&volume).await.unwrap();
    wait::until("the next plugin says it too", || audited(&world, "too_stale") == 3).await;
    assert!(marked(&volume) && !shows_password(&volume));

    world.backend.gates[0].set(Fault::None).await;
    wait::until("the files are back", || shows_password(&volume)).await;
    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
    assert!(!marked(&volume));
    wait::until("the audit has it", || audited(&world, "fresh_again") == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_starts_from_the_nodes_memory_while_the_backend_is_away_and_no_longer_once_it_said_no() {
    let world = Setup::default().limits("{offlineGrace: 10m, reuse: 0s, timeout: 2s}").gated(1).await.unwrap();
    let account = world.pod("payments", "app");
    let publish = async |pod: &WorkloadName| {
        let volume = world.volume(pod, "db");
        (world.kubelet.publish(&volume).await, volume)
    };
    publish(&account).await.0.unwrap();
    for fault in [Fault::Down, Fault::Mute] {
        world.backend.gates[0].set(fault).await;
        let before = audited(&world, "offline");
        let (started, volume) = publish(&account.sibling("app-1")).await;
        started.unwrap();
        assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
        wait::until("the audit has it", || audited(&world, "offline") == before + 1).await;
        publish(&world.pod("payments", "app")).await.0.expect_err("an account that was made again was told nothing");
    }
    let metrics = world.plugin.metrics().await.unwrap();
    assert!(metrics.contains("evanesce_answers_total{backend=\"vault\",source=\"remembered\"} 2"), "{metrics}");

    // A server that says no is heard, also when it is gone again.
    world.backend.gates[0].set(Fault::status(403, "")).await;
    wait::until_ready("the refusal is heard", async || {
        let refused = publish(&account.sibling("app-2")).await.0.expect_err("a refusal");
        (refused.code() == tonic::Code::PermissionDenied || refused.code() == tonic::Code::Unauthenticated)
            .then_some(())
    })
    .await;
    world.backend.gates[0].set(Fault::Down).await;
    publish(&account.sibling("app-3")).await.0.expect_err("it was forgotten");
}
