// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Deaths and rebirths: of the engine half, of the warden, of kubelet.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evanesce_integration::world::{PASSWORD, PASSWORD_FILE, Setup, World, lively_class};
use evanesce_integration::{counts, mounts, sight, wait};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_outlives_the_engine_half_and_is_refreshed_by_the_next() {
    let mut world = lively_world().await;
    let pod = world.pod("payments", "app");
    let volume = world.volume(&pod, "lively");
    world.kubelet.publish(&volume).await.unwrap();
    let mount = mounts::at(volume.target_path());

    for round in 0..counts::ENGINE_KILLS.get() {
        world.plugin.kill_engine().await.unwrap();
        // Kubelet's next sync brings the token, which died with the engine half.
        world.kubelet.publish(&world.volume(&pod, "lively")).await.unwrap();
        assert_eq!(mounts::at(volume.target_path()), mount);
        let new = format!("after death {round}");
        world.backend.put("kv", "payments/db", &json!({"password": new}));
        wait::until("the adopted volume is refreshed", || sight::text(volume.target_path(), "password") == new).await;
    }
    world.kubelet.unpublish(&volume).await.unwrap();
    assert_eq!(mounts::below(world.plugin.pods()), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_outlives_the_warden_and_is_refreshed_by_the_next() {
    let mut world = lively_world().await;
    let pod = world.pod("payments", "app");
    let volume = world.volume(&pod, "lively");
    world.kubelet.publish(&volume).await.unwrap();
    let mount = mounts::at(volume.target_path());

    world.plugin.kill_and_restart().await.unwrap();
    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
    world.kubelet.publish(&world.volume(&pod, "lively")).await.unwrap();
    assert_eq!(mounts::at(volume.target_path()), mount);
    world.backend.put("kv", "payments/db", &json!({"password": "after the death"}));
    let text = || sight::text(volume.target_path(), "password");
    wait::until("the adopted volume is refreshed", || text() == "after the death").await;
    world.kubelet.unpublish(&volume).await.unwrap();
    assert_eq!(mounts::below(world.plugin.pods()), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_volume_can_be_unpublished_first_of_all() {
    let mut world = lively_world().await;
    let volume = world.volume(&world.pod("payments", "app"), "lively");
    world.kubelet.publish(&volume).await.unwrap();
    world.plugin.kill_and_restart().await.unwrap();
    world.kubelet.unpublish(&volume).await.unwrap();
    assert_eq!(mounts::below(world.plugin.pods()), []);
    assert!(!volume.target_path().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_volume_is_ok_for_kubelet_while_the_backend_is_away() {
    let mut world = lively_world().await;
    let pod = world.pod("payments", "app");
    let volume = world.volume(&pod, "lively");
    world.kubelet.publish(&volume).await.unwrap();
    world.backend.hang(true);
    world.plugin.kill_engine().await.unwrap();
    for _ in 0..3 {
        let republish = world.volume(&pod, "lively");
        let answer = tokio::time::timeout(Duration::from_secs(5), world.kubelet.publish(&republish)).await;
        answer.expect("an answer at once").unwrap();
    }
    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
    world.backend.hang(false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_nobody_can_read_is_written_anew_by_the_next_publish() {
    let mut world = lively_world().await;
    let pod = world.pod("payments", "app");
    let volume = world.volume(&pod, "lively");
    world.kubelet.publish(&volume).await.unwrap();
    let mount = mounts::at(volume.target_path());
    let record = record(world.plugin.state(), volume.volume_id()).expect("the volume has a record");
    fs::write(record, "neither ours nor JSON").unwrap();
    world.plugin.kill_engine().await.unwrap();

    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
    // What the record held, kubelet's request says again.
    world.kubelet.publish(&world.volume(&pod, "lively")).await.unwrap();
    world.plugin.kill_engine().await.unwrap();
    world.backend.put("kv", "payments/db", &json!({"password": "later"}));
    world.kubelet.publish(&world.volume(&pod, "lively")).await.unwrap();
    wait::until("the volume is refreshed", || sight::text(volume.target_path(), "password") == "later").await;
    assert_eq!(mounts::at(volume.target_path()), mount);
    world.kubelet.unpublish(&volume).await.unwrap();
    assert_eq!(mounts::below(world.plugin.pods()), []);
    assert!(!volume.target_path().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_dies_with_the_engine_half_is_made_whole_by_the_next() {
    let mut world = lively_world().await;
    let volume = world.volume(&world.pod("payments", "app"), "lively");
    world.backend.hang(true);
    let (kubelet, request) = (world.kubelet.clone(), volume.request());
    fs::create_dir_all(volume.target_path().parent().unwrap()).unwrap();
    let publish = tokio::spawn(async move { kubelet.call_publish(request).await });
    wait::until("the first delivery waits for the backend", || !world.backend.seen().is_empty()).await;
    world.plugin.kill_engine().await.unwrap();
    publish.await.unwrap().expect_err("nobody is left to answer");
    assert!(mounts::at(volume.target_path()).is_empty());

    world.backend.hang(false);
    world.kubelet.publish(&volume).await.unwrap();
    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
    assert_eq!(mounts::at(volume.target_path()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_plugin_takes_its_sockets_and_leaves_the_volumes() {
    let mut world = lively_world().await;
    let volume = world.volume(&world.pod("payments", "app"), "lively");
    world.kubelet.publish(&volume).await.unwrap();

    let status = world.plugin.terminate().await;
    assert!(status.success(), "it was asked to end, and ended with {status}");
    for socket in [world.plugin.csi_socket(), &world.plugin.registration_socket()] {
        assert!(!socket.exists(), "{} is left", socket.display());
    }
    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);

    world.plugin.restart().await.unwrap();
    world.kubelet.publish(&volume).await.unwrap();
    assert_eq!(mounts::at(volume.target_path()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_went_away_behind_our_back_is_made_again() {
    let world = lively_world().await;
    let pod = world.pod("payments", "app");
    let volume = world.volume(&pod, "lively");
    world.kubelet.publish(&volume).await.unwrap();
    rustix::mount::unmount(volume.target_path(), rustix::mount::UnmountFlags::DETACH).unwrap();

    world.kubelet.publish(&world.volume(&pod, "lively")).await.unwrap();
    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
    assert_eq!(mounts::at(volume.target_path()).len(), 1);
}

async fn lively_world() -> World<evanesce_integration::recorder::Recorder> {
    Setup::default().class(&lively_class("lively", &[PASSWORD_FILE])).recorder().await.unwrap()
}

/// The file below the state directory that is named after the volume.
fn record(directory: &Path, volume: &str) -> Option<PathBuf> {
    fs::read_dir(directory).unwrap().flatten().find_map(|entry| {
        let path = entry.path();
        if path.is_dir() { record(&path, volume) } else { path.to_string_lossy().contains(volume).then_some(path) }
    })
}
