// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce refresh`, the built program, beside the real plugin; and what is asked without it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use evanesce_integration::plugin::Plugin;
use evanesce_integration::recorder::Misbehaviour;
use evanesce_integration::world::{PASSWORD, World};
use evanesce_integration::{binaries, sight, wait};
use serde_json::{Value, json};

/// The command's exit code and its JSON.
fn refresh(plugin: &Plugin, arguments: &[&str]) -> (i32, Value) {
    let output = plugin.refresh(&[&["--output", "json"], arguments].concat()).unwrap();
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_due_in_an_hour_is_refreshed_now() {
    let world = World::recorded().await.unwrap();
    let (ours, other) =
        (world.volume(&world.pod("payments", "app"), "db"), world.volume(&world.pod("payments", "app"), "db"));
    for volume in [&ours, &other] {
        world.kubelet.publish(volume).await.unwrap();
    }
    world.backend.put("kv", "payments/db", &json!({"password": "rotated", "username": "app"}));

    let (code, said) = refresh(&world.plugin, &["--volume", ours.volume_id()]);
    assert_eq!((code, &said["ok"]), (0, &json!(true)), "{said}");
    let came = &said["volumes"][0];
    assert_eq!((&came["outcome"], &came["generation"]), (&json!("replaced"), &json!(2)), "{said}");
    // It waited: nothing is left to wait for here.
    assert_eq!(sight::text(ours.target_path(), "password"), "rotated");
    assert_eq!(sight::text(other.target_path(), "password"), PASSWORD, "nobody asked for this one");

    let (code, said) = refresh(&world.plugin, &["--all"]);
    let outcomes: Vec<_> = said["volumes"].as_array().unwrap().iter().map(|it| it["outcome"].clone()).collect();
    assert!(code == 0 && outcomes.contains(&json!("replaced")) && outcomes.contains(&json!("unchanged")), "{said}");
    let text = String::from_utf8(world.plugin.refresh(&["--namespace", "payments"]).unwrap().stdout).unwrap();
    assert!(text.lines().count() == 2 && text.contains("payments/app-0  db") && text.contains("unchanged"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_refreshed_is_said_and_the_pod_keeps_its_files() {
    let world = World::recorded().await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "db");
    world.kubelet.publish(&volume).await.unwrap();
    for arguments in [["--volume", "absent"], ["--namespace", "elsewhere"], ["--pod", "absent"]] {
        let (code, said) = refresh(&world.plugin, &arguments);
        assert!(code == 3 && said["error"].as_str().unwrap().contains("evanesce volumes lists"), "{said}");
    }
    assert_eq!(world.plugin.refresh(&[]).unwrap().status.code(), Some(2), "none is not all");

    world.backend.misbehave(Some(Misbehaviour { status: 503, headers: Vec::new(), body: PASSWORD.into() }));
    let (code, said) = refresh(&world.plugin, &["--all"]);
    assert_eq!((code, &said["volumes"][0]["error"]["kind"]), (1, &json!("unavailable")), "{said}");
    assert!(!said.to_string().contains(PASSWORD));
    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);

    world.backend.misbehave(None);
    world.backend.put("kv", "payments/db", &json!({"password": "rotated", "username": "app"}));
    let (code, said) = refresh(&world.plugin, &["--all", "--wait", "0"]);
    assert_eq!((code, &said["volumes"][0]["outcome"]), (0, &json!("pending")), "{said}");
    wait::until("it is done all the same", || sight::text(volume.target_path(), "password") == "rotated").await;
}

#[test]
fn who_is_not_root_refreshes_nothing() {
    let mut command = Command::new(binaries::evanesce().unwrap());
    let output = command.env_clear().args(["refresh", "--all"]).uid(1000).gid(1000).output().unwrap();
    assert_eq!(output.status.code(), Some(77), "{output:?}");
}

/// The incumbent asks its backend at every republish.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_republishes_within_the_period_are_one_fetch() {
    let world = World::recorded().await.unwrap();
    let pod = world.pod("payments", "app");
    let volume = world.volume(&pod, "db");
    world.kubelet.publish(&volume).await.unwrap();
    let asked = world.backend.seen();
    for _ in 0..200 {
        world.kubelet.publish(&volume).await.unwrap();
    }
    assert_eq!(world.backend.seen(), asked, "its class says an hour");
    let reads = world.backend.reads();
    assert_eq!(reads.len(), 1, "{reads:?}");
}
