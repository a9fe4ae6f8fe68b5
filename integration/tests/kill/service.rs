// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What a death costs kubelet: a wait, or a start; and what a loop of deaths costs everybody.

use evanesce_integration::world::{PASSWORD, PASSWORD_FILE, Setup, World, lively_class};
use evanesce_integration::{kubelet, mounts, outage, sight, wait};
use serde_json::Value;

use crate::storm::say;

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_while_the_engine_half_is_away_waits_and_is_answered() {
    let mut world = World::recorded().await.unwrap();
    let engine = outage::of_engine(&world.plugin, &world.kubelet).await.expect("an answer, not an error");
    let warden = outage::of_warden(&mut world.plugin, &world.kubelet).await.unwrap();
    say(&format!("without service: {engine:?} after the engine half's death, {warden:?} after the warden's"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_kills_every_engine_half_is_named_and_left_alone_and_the_others_are_served() {
    let class = lively_class("lively", &[PASSWORD_FILE]);
    let world = Setup::default().class(&class).crash_points().log("info").recorder().await.unwrap();
    let pod = world.pod("payments", "app");
    let volume = world.volume(&pod, "lively");
    world.kubelet.publish(&volume).await.unwrap();
    world.plugin.crash_at("*adopt:opened").unwrap();
    wait::until_some("the engine half runs", || world.plugin.engine()).await.kill();

    wait::until_ready("the plugin is ready", async || {
        let is_ready = world.plugin.http("readyz").await.is_ok_and(|answer| answer.status().is_success());
        assert!(!is_ready || world.plugin.log().contains("left alone"), "ready in the middle of a crash loop");
        is_ready.then_some(())
    })
    .await;
    let log = world.plugin.log();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let deaths = lines.iter().filter(|line| line["message"].as_str().is_some_and(|text| text.contains("half ended")));
    let said: Vec<_> = deaths.map(|line| (line["deaths"].as_u64().unwrap(), line["wait"].as_str().unwrap())).collect();
    assert_eq!(said, [(1, "0ns"), (2, "100ms"), (3, "200ms"), (4, "400ms")]);
    let names_it = |line: &&Value| line["level"] == "ERROR" && line["volume"] == volume.volume_id();
    assert_eq!(lines.iter().filter(names_it).count(), 1, "one line names the volume");
    let metrics = world.plugin.metrics().await.unwrap();
    let restarts = metrics.lines().find(|line| line.starts_with("evanesce_restarts_total"));
    assert!(restarts.is_some_and(|line| line.ends_with(" 4")), "{restarts:?}");

    let status = world.kubelet.publish(&volume).await.expect_err("it would kill the engine half again");
    assert!(!kubelet::is_final(status.code()) && status.message().contains("left alone"), "{status}");
    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
    let other = world.volume(&world.pod("payments", "app"), "lively");
    world.kubelet.publish(&other).await.unwrap();
    assert_eq!(sight::text(other.target_path(), "password"), PASSWORD);
    for volume in [&volume, &other] {
        world.kubelet.unpublish(volume).await.unwrap();
    }
    assert_eq!(mounts::below(world.plugin.pods()), []);
}
