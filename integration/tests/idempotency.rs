// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Publishing and unpublishing again, at once, and in each other's way.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use evanesce_integration::plugin::Plugin;
use evanesce_integration::sight;
use evanesce_integration::world::{PASSWORD, PASSWORD_FILE, Setup, World, lively_class};
use evanesce_integration::{counts, mounts, wait};
use evanesce_proto::kubelet::Publish;
use tonic::{Code, Status};

/// For what has to happen although somebody else is being waited for, who takes far longer.
const AT_ONCE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_publish_changes_nothing_and_asks_nobody() {
    let world = World::recorded().await.unwrap();
    let pod = world.pod("payments", "app");
    let volume = world.volume(&pod, "db");
    world.kubelet.publish(&volume).await.unwrap();
    let (mount, asked) = (mounts::at(volume.target_path()), world.backend.seen());
    assert_eq!(mount.len(), 1);

    for _ in 0..10 {
        // Each with another token, as kubelet renews it.
        world.kubelet.publish(&world.volume(&pod, "db")).await.unwrap();
    }
    assert_eq!(mounts::at(volume.target_path()), mount);
    assert_eq!(world.backend.seen(), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_second_to_a_first_delivery_is_aborted_and_there_is_one_mount() {
    let world = World::recorded().await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "db");
    world.backend.hang(true);
    let first = background_publish(&world, &volume);
    wait::until("the first delivery waits for the backend", || !world.backend.seen().is_empty()).await;

    for _ in 0..counts::CONCURRENT_PUBLISHES.get() {
        let status = at_once(world.kubelet.call_publish(volume.request())).await.unwrap_err();
        assert_eq!(status.code(), Code::Aborted, "{status}");
    }
    let status = at_once(world.kubelet.call_unpublish(volume.unpublish())).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status}");

    world.backend.hang(false);
    first.await.unwrap().unwrap();
    assert_eq!(mounts::at(volume.target_path()).len(), 1);
    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_at_the_same_moment_make_one_mount() {
    let world = World::recorded().await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "db");
    let all: Vec<_> = (0..counts::CONCURRENT_PUBLISHES.get()).map(|_| background_publish(&world, &volume)).collect();
    let mut published = 0;
    for one in all {
        match one.await.unwrap() {
            Ok(()) => published += 1,
            Err(status) => assert_eq!(status.code(), Code::Aborted, "{status}"),
        }
    }
    assert!(published > 0);
    assert_eq!(mounts::at(volume.target_path()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_republish_answers_at_once_while_a_refresh_waits_for_the_backend() {
    let (world, volume) = refreshing_world().await;
    at_once(world.kubelet.publish(&volume)).await.unwrap();
    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
    world.backend.hang(false);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpublish_goes_on_while_a_refresh_waits_for_the_backend() {
    let (world, volume) = refreshing_world().await;
    at_once(world.kubelet.unpublish(&volume)).await.unwrap();
    assert_nothing_left(&world.plugin, &volume);
    wait::until("the refresh is audited as cancelled", || {
        world.plugin.audit().iter().any(|event| event["status_code"] == "cancelled")
    })
    .await;
    world.backend.hang(false);
}

#[tokio::test(flavor = "multi_thread")]
async fn unpublish_leaves_nothing_and_may_be_repeated() {
    let world = World::recorded().await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "db");
    world.kubelet.publish(&volume).await.unwrap();
    assert!(records(world.plugin.state()).iter().any(|record| record.contains(volume.volume_id())));

    for _ in 0..3 {
        world.kubelet.unpublish(&volume).await.unwrap();
        assert_nothing_left(&world.plugin, &volume);
    }
    // A volume that never was is gone too.
    world.kubelet.unpublish(&world.volume(&world.pod("payments", "app"), "db")).await.unwrap();

    // And the name is free again.
    world.kubelet.publish(&volume).await.unwrap();
    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpublish_removes_a_directory_that_has_no_mount() {
    let world = World::recorded().await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "db");
    fs::create_dir_all(volume.target_path()).unwrap();
    world.kubelet.unpublish(&volume).await.unwrap();
    assert_nothing_left(&world.plugin, &volume);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_volume_with_other_parameters_exists_already() {
    let class = lively_class("other", &[PASSWORD_FILE]);
    let world = Setup::default().class(&class).recorder().await.unwrap();
    let pod = world.pod("payments", "app");
    let volume = world.volume(&pod, "db");
    world.kubelet.publish(&volume).await.unwrap();
    for (what, other) in [("group", world.volume(&pod, "db").mount_group(7)), ("class", world.volume(&pod, "other"))] {
        let status = world.kubelet.call_publish(other.request()).await.unwrap_err();
        assert_eq!(status.code(), Code::AlreadyExists, "another {what}: {status}");
    }
    assert_eq!(mounts::at(volume.target_path()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_a_failed_first_publish_is_never_ok_without_the_files() {
    let mut world = Setup::default().argument("--first-delivery-timeout=1s").openbao().await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "db");
    world.backend.freeze();
    for attempt in ["first", "second", "third"] {
        let status = world.kubelet.publish(&volume).await.unwrap_err();
        let may_retry = [Code::DeadlineExceeded, Code::Unavailable];
        assert!(may_retry.contains(&status.code()), "the {attempt} attempt: {status}");
        assert!(mounts::at(volume.target_path()).is_empty());
        assert_eq!(sight::look(volume.target_path()).unwrap(), sight::Sight::Absent);
    }
    world.backend.thaw();
    wait::until_ready("a publish succeeds", async || world.kubelet.publish(&volume).await.ok()).await;
    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
}

/// A published volume whose refresh waits for a backend that does not answer.
async fn refreshing_world() -> (World<evanesce_integration::recorder::Recorder>, Publish) {
    let class = lively_class("lively", &[PASSWORD_FILE]);
    let world = Setup::default().class(&class).recorder().await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "lively");
    world.kubelet.publish(&volume).await.unwrap();
    world.backend.hang(true);
    let before = world.backend.seen().len();
    wait::until("a refresh waits for the backend", || world.backend.seen().len() > before).await;
    (world, volume)
}

fn background_publish<B>(world: &World<B>, volume: &Publish) -> tokio::task::JoinHandle<Result<(), Status>> {
    fs::create_dir_all(volume.target_path().parent().unwrap()).unwrap();
    let (kubelet, request) = (world.kubelet.clone(), volume.request());
    tokio::spawn(async move { kubelet.call_publish(request).await })
}

async fn at_once<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(AT_ONCE, call).await.expect("an answer at once")
}

fn assert_nothing_left(plugin: &Plugin, volume: &Publish) {
    let target = volume.target_path();
    assert_eq!(mounts::below(plugin.pods()), [], "a mount is left");
    assert!(!target.exists(), "the directory is left");
    // Kubelet removed what is its own, which succeeds only when we left nothing in it.
    assert!(!target.parent().unwrap().exists(), "something is left beside the target");
    let records = records(plugin.state());
    assert!(!records.iter().any(|record| record.contains(volume.volume_id())), "a record is left: {records:?}");
}

/// The paths of everything below the state directory.
fn records(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(records(&path));
        }
        found.push(path.to_string_lossy().into_owned());
    }
    found
}
