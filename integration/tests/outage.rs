// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A backend that is away for too long, and what the plugin does about it that its class asked for: on real mounts, with
//! real deaths in between.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use evanesce_integration::gate::Fault;
use evanesce_integration::token_review::WorkloadName;
use evanesce_integration::world::{Gated, PASSWORD, PASSWORD_FILE, Setup, World, lively_class};
use evanesce_integration::{sight, wait};
use evanesce_proto::kubelet::Publish;

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
