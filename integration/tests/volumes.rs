// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce volumes`, the built program, beside the real plugin.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use evanesce_integration::plugin::Plugin;
use evanesce_integration::recorder::Misbehaviour;
use evanesce_integration::token_review::Claims;
use evanesce_integration::world::{AUDIENCE, PASSWORD, PASSWORD_FILE, Setup, World, lively_class};
use evanesce_integration::{binaries, wait};
use evanesce_proto::kubelet::Publish;
use serde_json::{Value, json};

/// As many as four full nodes have.
const MANY: usize = 500;

/// The command's JSON.
fn listed(plugin: &Plugin, arguments: &[&str]) -> Value {
    let output = plugin.volumes(&[&["--output", "json"], arguments].concat()).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// This volume, as it is listed.
fn volume(plugin: &Plugin, volume: &Publish) -> Value {
    let listing = listed(plugin, &[]);
    let volumes = listing["volumes"].as_array().unwrap();
    volumes.iter().find(|it| it["volume"] == volume.volume_id()).expect("the volume is listed").clone()
}

/// Runs the command with nothing but these arguments.
fn run(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(binaries::evanesce().unwrap()).env_clear().arg("volumes").args(arguments).output();
    let output = output.unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_listed_through_rotation_outage_and_recovery() {
    let class = lively_class("lively", &[PASSWORD_FILE]);
    let world = Setup::default().class(&class).recorder().await.unwrap();
    let pod = world.pod("payments", "app");
    let claims = Claims::new(&pod, AUDIENCE);
    let token = world.cluster.tokens().mint(&claims).unwrap().token;
    let lively = world.volume_with(&pod, "lively", &claims);
    world.kubelet.publish(&lively).await.unwrap();
    let other = world.volume(&world.pod("payments", "app"), "db");
    world.kubelet.publish(&other).await.unwrap();

    let calm = volume(&world.plugin, &other);
    let expected = json!({
        "volume": other.volume_id(), "state": "live", "namespace": "payments", "pod": "app-0",
        "pod_uid": calm["pod_uid"], "service_account": "app", "class": "db", "target": other.target_path(),
        "generation": 1, "age_seconds": calm["age_seconds"], "next_refresh_seconds": calm["next_refresh_seconds"],
        "failures": 0, "last_error": null,
    });
    assert_eq!(calm, expected);
    let next = |volume: &Value| volume["next_refresh_seconds"].as_u64().unwrap();
    // An hour, by its class, and a tenth of jitter.
    assert!((3_000..4_000).contains(&next(&calm)), "{calm}");
    wait::until("the next refresh comes nearer", || next(&volume(&world.plugin, &other)) < next(&calm)).await;
    wait::until("it grows older", || volume(&world.plugin, &other)["age_seconds"].as_u64() > Some(0)).await;

    world.backend.put("kv", "payments/db", &json!({"password": "rotated", "username": "app"}));
    wait::until("the generation counts", || volume(&world.plugin, &lively)["generation"] == 2).await;

    world.backend.misbehave(Some(Misbehaviour { status: 503, headers: Vec::new(), body: PASSWORD.into() }));
    wait::until("it failed twice", || volume(&world.plugin, &lively)["failures"].as_u64() > Some(1)).await;
    let stale = volume(&world.plugin, &lively);
    assert_eq!((&stale["state"], &stale["last_error"]["kind"]), (&json!("stale"), &json!("unavailable")), "{stale}");
    assert!(stale["last_error"]["message"].as_str().unwrap().contains("backend vault"), "{stale}");
    let only = listed(&world.plugin, &["--stale", "--namespace", "payments"]);
    assert_eq!(only["volumes"].as_array().unwrap().len(), 1, "{only}");
    assert_eq!(listed(&world.plugin, &["--namespace", "elsewhere"])["volumes"], json!([]));

    let table = String::from_utf8(world.plugin.volumes(&[]).unwrap().stdout).unwrap();
    let lines: Vec<_> = table.lines().collect();
    let [head, _, sick, why, summary] = lines[..] else { panic!("{table}") };
    assert!(head.starts_with("NAMESPACE") && summary == "2 volumes, 1 not fresh", "{table}");
    assert!(sick.contains("lively  stale  2") && sick.ends_with(&lively.volume_id()[..16]), "{table}");
    assert!(why.starts_with("  unavailable (") && why.contains("backend vault"), "{table}");
    for secret in [PASSWORD, "rotated", &token, token.rsplit('.').next().unwrap()] {
        assert!(!table.contains(secret) && !listed(&world.plugin, &[]).to_string().contains(secret));
    }

    world.backend.misbehave(None);
    wait::until("the error is gone", || volume(&world.plugin, &lively)["last_error"].is_null()).await;
    assert_eq!(volume(&world.plugin, &lively)["state"], "live");
    world.kubelet.unpublish(&lively).await.unwrap();
    assert_eq!(listed(&world.plugin, &[])["volumes"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_outlives_an_engine_half_and_goes_with_the_warden() {
    let mut world = World::recorded().await.unwrap();
    let published = world.volume(&world.pod("payments", "app"), "db");
    world.kubelet.publish(&published).await.unwrap();
    let socket = world.plugin.admin_socket();
    let inode = || fs::symlink_metadata(&socket).unwrap().ino();
    let before = inode();
    world.plugin.kill_engine().await.unwrap();
    assert_eq!(volume(&world.plugin, &published)["generation"], 1);
    assert_eq!(inode(), before);

    // A killed one leaves it, and its successor takes its place.
    world.plugin.kill_and_restart().await.unwrap();
    assert_eq!(volume(&world.plugin, &published)["state"], "live");
    assert!(fs::symlink_metadata(&socket).unwrap().file_type().is_socket());
    assert!(world.plugin.terminate().await.success());
    assert!(!socket.exists(), "the socket is left");
    let output = world.plugin.volumes(&[]).unwrap();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_volumes_as_no_node_has_are_listed() {
    let world = Setup::default().log("info").argument("--namespace-tmpfs-limit=512Mi").recorder().await.unwrap();
    for number in 0..MANY {
        let pod = world.pod("payments", "app");
        let volume = world.volume(&pod, "db");
        world.kubelet.publish(&volume).await.unwrap_or_else(|status| panic!("volume {number}: {status}"));
    }
    assert_eq!(listed(&world.plugin, &[])["volumes"].as_array().unwrap().len(), MANY);
}

#[test]
fn who_is_not_root_is_told_so() {
    let mut command = Command::new(binaries::evanesce().unwrap());
    let output = command.env_clear().arg("volumes").uid(1000).gid(1000).output().unwrap();
    assert_eq!(output.status.code(), Some(77), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("only root may ask"), "{output:?}");
}

#[test]
fn where_no_plugin_runs_the_path_and_the_cure_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    for arguments in [vec!["--state-dir", path], vec!["--state-dir", path, "--driver-name", "other"]] {
        let (code, error) = run(&arguments);
        assert_eq!(code, 69, "{error}");
        assert!(error.contains(path) && error.contains("admin.sock") && error.contains("--state-dir"), "{error}");
    }
    let (code, error) = run(&["--state-dir", "/absent"]);
    assert_eq!((code, error.contains("/absent")), (69, true), "{error}");
    // What a killed plugin leaves.
    drop(listener(folder.path(), "one"));
    let (code, error) = run(&["--state-dir", path]);
    assert_eq!((code, error.contains("refused")), (69, true), "{error}");
    drop(listener(folder.path(), "two"));
    let (code, error) = run(&["--state-dir", path]);
    assert_eq!((code, error.contains("--driver-name")), (1, true), "{error}");
}

#[test]
fn a_plugin_that_hangs_is_waited_for_and_then_said_to_hang() {
    let folder = tempfile::tempdir().unwrap();
    let _hangs = listener(folder.path(), "driver");
    let (code, error) = run(&["--state-dir", folder.path().to_str().unwrap()]);
    assert_eq!((code, error.contains("did not answer for 5s")), (75, true), "{error}");
}

fn listener(state: &Path, driver: &str) -> UnixListener {
    fs::create_dir_all(state.join(driver)).unwrap();
    UnixListener::bind(state.join(driver).join("admin.sock")).unwrap()
}
