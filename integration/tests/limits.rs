// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Memory: who asks for too much is refused, and nobody else suffers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;

use evanesce_integration::recorder::Recorder;
use evanesce_integration::sight;
use evanesce_integration::world::{PASSWORD, Setup, World};
use evanesce_proto::kubelet::Publish;
use serde_json::json;
use tonic::Code;

const EVERYBODY: &str = "{namespaces: [\"*\"], serviceAccounts: [\"*\"], secrets: [\"kv/*\"]}";

/// A class named `db` for each of these namespaces, whose volumes take a mebibyte.
fn classes(namespaces: &[&str]) -> String {
    let mut all = String::new();
    for (number, namespace) in namespaces.iter().enumerate() {
        let separator = if number == 0 { "" } else { "---\n" };
        write!(
            all,
            "{separator}apiVersion: evanesce.dev/v1alpha1
kind: SecretVolume
metadata: {{name: one, namespace: {namespace}}}
spec:
  refresh: {{every: 1s, jitter: 0%}}
  files:
    - {{path: password, from: {{backend: vault, secret: kv/{namespace}/db, key: password}}}}
"
        )
        .unwrap();
    }
    all
}

async fn world(arguments: &[&str], namespaces: &[&str]) -> World<Recorder> {
    let setup = Setup::default().allow(EVERYBODY).class(&classes(namespaces));
    let setup = arguments.iter().fold(setup, |setup, argument| setup.argument(argument));
    let world = setup.recorder().await.unwrap();
    for namespace in namespaces {
        world.backend.put("kv", &format!("{namespace}/db"), &json!({"password": PASSWORD}));
    }
    world
}

async fn published(world: &World<Recorder>, namespace: &str) -> Publish {
    let volume = world.volume(&world.pod(namespace, "app"), "one");
    world.kubelet.publish(&volume).await.unwrap_or_else(|status| panic!("{namespace}: {status}"));
    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
    volume
}

async fn exhausted(world: &World<Recorder>, namespace: &str) {
    let volume = world.volume(&world.pod(namespace, "app"), "one");
    let status = world.kubelet.publish(&volume).await.expect_err("there is no room");
    assert_eq!(status.code(), Code::ResourceExhausted, "{namespace}: {status}");
    assert_eq!(sight::look(volume.target_path()).unwrap(), sight::Sight::Absent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_at_its_ceiling_is_refused_and_the_others_are_not() {
    let mut world = world(&["--namespace-tmpfs-limit=2Mi"], &["greedy", "modest"]).await;
    let first = published(&world, "greedy").await;
    let second = published(&world, "greedy").await;
    exhausted(&world, "greedy").await;
    published(&world, "modest").await;
    // The next engine half counts what it takes over.
    world.plugin.kill_engine().await.unwrap();
    exhausted(&world, "greedy").await;
    // Those who have a volume keep it, and hear OK.
    world.kubelet.publish(&second).await.unwrap();
    assert_eq!(sight::text(second.target_path(), "password"), PASSWORD);

    world.kubelet.unpublish(&first).await.unwrap();
    published(&world, "greedy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_has_a_ceiling_for_all_together_that_outlives_the_engine_half() {
    let mut world = world(&["--node-tmpfs-limit=3Mi"], &["first", "second"]).await;
    published(&world, "first").await;
    published(&world, "second").await;
    let last = published(&world, "first").await;
    exhausted(&world, "second").await;

    world.plugin.kill_engine().await.unwrap();
    exhausted(&world, "second").await;
    world.kubelet.unpublish(&last).await.unwrap();
    published(&world, "second").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_may_not_grow_keeps_its_files() {
    let world = world(&["--namespace-tmpfs-limit=1Mi"], &["greedy"]).await;
    let volume = published(&world, "greedy").await;
    world.backend.put("kv", "greedy/db", &json!({"password": "x".repeat(700 << 10)}));
    let stale = || world.plugin.log().contains("volume is stale");
    evanesce_integration::wait::until("the refresh has failed", stale).await;
    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
    world.kubelet.publish(&volume).await.unwrap();
}
