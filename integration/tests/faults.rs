// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What breaks around the plugin, one row each: a first publish fails fast, is tried again by kubelet and leaves nothing; a
//! running pod keeps its files, is said to be stale, and is fresh by itself once what was broken is mended.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use evanesce_integration::gate::Fault;
use evanesce_integration::world::{Gated, PASSWORD, PASSWORD_FILE, Setup, World, lively_class};
use evanesce_integration::{kubelet, mounts, sight, wait};
use evanesce_proto::kubelet::Publish;
use serde_json::json;
use tonic::Code;

/// The default of `--first-delivery-timeout`, with something for a busy machine; kubelet waits for two minutes.
const FAST: Duration = Duration::from_secs(30);

/// What is wrong with a server, and what kubelet hears of a first publish.
fn faults() -> Vec<(&'static str, Fault, Code)> {
    use Code::{DeadlineExceeded, Unavailable};
    vec![
        ("down", Fault::Down, Unavailable),
        ("takes connections and says nothing", Fault::Mute, DeadlineExceeded),
        ("never answers", Fault::Silent, DeadlineExceeded),
        ("closes in the middle of an answer", Fault::broken(), Unavailable),
        ("429", Fault::status(429, "retry-after: 1\r\n"), Unavailable),
        ("500", Fault::status(500, ""), Unavailable),
        ("garbage", Fault::body(b"{\"auth\": canary"), Unavailable),
        ("five mebibytes", Fault::body(&five_mebibytes()), Unavailable),
        ("an expired certificate", Fault::Expired, Unavailable),
        ("a certificate for another name", Fault::OtherName, Unavailable),
        ("a certificate of nobody's", Fault::UnknownAuthority, Unavailable),
        ("a standby's redirect", Fault::status(307, "location: https://elsewhere.example/v1/canary\r\n"), Unavailable),
        ("a secondary for disasters", Fault::status(472, ""), Unavailable),
        ("a standby for performance", Fault::status(473, ""), Unavailable),
        ("sealed", Fault::status(503, ""), Unavailable),
    ]
}

/// A login and a secret in one, and nothing is wrong with them but their size.
fn five_mebibytes() -> Vec<u8> {
    let answer = json!({
        "auth": {"client_token": "canary", "accessor": "canary", "policies": [], "token_policies": [], "metadata": {},
            "lease_duration": 600, "renewable": true, "entity_id": "", "token_type": "service", "orphan": true},
        "data": {"data": {"password": "canary"}, "metadata": {"version": 1}},
        "warnings": ["x".repeat(5 << 20)],
    });
    answer.to_string().into_bytes()
}

/// A sample of a metric without labels.
async fn metric(world: &World<Gated>, name: &str) -> String {
    let metrics = world.plugin.metrics().await.unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("evanesce_{name}"))).unwrap_or_default();
    line.trim().trim_end_matches(".0").to_owned()
}

async fn until_stale(world: &World<Gated>, volumes: &str) {
    let what = format!("{volumes} volumes are stale");
    wait::until_ready(&what, async || (metric(world, "volumes_stale{}").await == volumes).then_some(())).await;
}

fn said(world: &World<Gated>, words: &str) -> usize {
    world.plugin.log().lines().filter(|line| line.contains(words)).count()
}

fn records(world: &World<Gated>) -> Vec<PathBuf> {
    let entries = fs::read_dir(world.plugin.state()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect()
}

async fn published(world: &World<Gated>, class: &str) -> Publish {
    let volume = world.volume(&world.pod("payments", "app"), class);
    wait::until_ready("the volume is published", async || world.kubelet.publish(&volume).await.ok()).await;
    volume
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_publish_fails_fast_for_kubelet_to_try_again_and_leaves_nothing() {
    let world = Setup::default().log("debug").gated(1).await.unwrap();
    for (name, fault, code) in faults() {
        world.backend.gates[0].set(fault).await;
        let volume = world.volume(&world.pod("payments", "app"), "db");
        let answer = tokio::time::timeout(FAST, world.kubelet.publish(&volume)).await.expect(name);
        let status = answer.expect_err(name);
        assert_eq!(status.code(), code, "{name}: {status}");
        assert!(!kubelet::is_final(status.code()), "{name}");
        assert!(status.message().contains("backend vault") && !status.message().contains("127.0.0.1"), "{status}");
        assert!(mounts::at(volume.target_path()).is_empty(), "{name}: a mount is left");
        assert!(!volume.target_path().exists(), "{name}: a directory is left");
        assert_eq!(records(&world), Vec::<PathBuf>::new(), "{name}: a record is left");
        // And its retry, once it is mended, is whole.
        world.backend.gates[0].set(Fault::None).await;
        world.kubelet.publish(&volume).await.expect(name);
        assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD, "{name}");
        world.kubelet.unpublish(&volume).await.unwrap();
    }
    assert!(!world.plugin.log().contains("canary"), "the log quotes a server");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_keeps_the_files_says_stale_and_recovers_by_itself() {
    let class = lively_class("lively", &[PASSWORD_FILE]);
    let world = Setup::default().class(&class).log("info").gated(1).await.unwrap();
    let volume = published(&world, "lively").await;
    let mount = mounts::at(volume.target_path());
    let mut password = PASSWORD.to_owned();
    for (number, (name, fault, _)) in faults().into_iter().enumerate() {
        let (events, lines) = (failures(&world), said(&world, "volume is stale"));
        world.backend.gates[0].set(fault).await;
        until_stale(&world, "1").await;
        // This kubelet takes the mount away on a final error.
        world.kubelet.publish(&volume).await.expect(name);
        assert_eq!(sight::text(volume.target_path(), "password"), password, "{name}");
        assert_eq!(mounts::at(volume.target_path()), mount, "{name}");
        let address = world.backend.gates[0].address().to_string();
        wait::until("the log names the server", || said(&world, "volume is stale") > lines).await;
        assert!(world.plugin.log().lines().rfind(|line| line.contains("volume is stale")).unwrap().contains(&address));
        wait::until("the audit has it", || failures(&world) > events).await;

        password = format!("password {number}");
        world.backend.recorder.put("kv", "payments/db", &json!({"password": password, "username": "app"}));
        world.backend.gates[0].set(Fault::None).await;
        let shown = || sight::text(volume.target_path(), "password") == password;
        wait::until(&format!("it is fresh again after: {name}"), shown).await;
        until_stale(&world, "0").await;
    }
    assert!(!world.plugin.log().contains("canary"), "the log quotes a server");
}

/// How many events of a delivery that failed the audit has.
fn failures(world: &World<Gated>) -> usize {
    let failed = |event: &serde_json::Value| event["status"] == "Failure";
    world.plugin.audit().iter().filter(|event| failed(event)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_address_is_asked_and_the_failing_one_is_named_to_the_operator() {
    let world = Setup::default().log("info").gated(2).await.unwrap();
    // Those are answers, which the other address would give too.
    let faults = faults().into_iter().filter(|(name, ..)| !["429", "garbage", "five mebibytes"].contains(name));
    for (turn, (name, fault, _)) in faults.enumerate() {
        // The other one answered last time, and is asked first now.
        let (first, passed) = (turn % 2, metric_sum(&world).await);
        world.backend.gates[first].set(fault).await;
        let volume = world.volume(&world.pod("payments", "app"), "db");
        tokio::time::timeout(FAST, world.kubelet.publish(&volume)).await.expect(name).expect(name);
        assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD, "{name}");
        let address = world.backend.gates[first].address().to_string();
        let named = |line: &str| line.contains("another one is asked first now") && line.contains(&address);
        wait::until("the log names the address", || world.plugin.log().lines().any(named)).await;
        assert_eq!(metric_sum(&world).await, passed + 1, "turn {turn}: {name}");
        world.backend.gates[first].set(Fault::None).await;
        world.kubelet.unpublish(&volume).await.unwrap();
    }
}

async fn metric_sum(world: &World<Gated>) -> u64 {
    let metrics = world.plugin.metrics().await.unwrap();
    let samples = metrics.lines().filter(|line| line.starts_with("evanesce_backend_addresses_passed_over{"));
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_that_becomes_nonsense_is_said_once_and_mends_by_itself() {
    let world = Setup::default().log("info").gated(1).await.unwrap();
    let class = lively_class("edited", &[PASSWORD_FILE]);
    world.classes("edited.yaml", &class).unwrap();
    let volume = published(&world, "edited").await;
    let nonsense = class.replace("  files:", "  files: nonsense\n  more:");
    for broken in [Some("apiVersion: [".to_owned()), Some(nonsense), None] {
        let lines = said(&world, "volume is stale");
        match &broken {
            Some(text) => world.classes("edited.yaml", text).unwrap(),
            None => fs::remove_file(world.plugin.classes().join("edited.yaml")).unwrap(),
        }
        until_stale(&world, "1").await;
        let tries = || async { failed_refreshes(&world).await };
        let before = tries().await;
        wait::until_ready("it was tried again and again", async || (tries().await >= before + 3).then_some(())).await;
        assert_eq!(said(&world, "volume is stale"), lines + 1, "{broken:?}");
        world.kubelet.publish(&volume).await.unwrap();
        assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD, "{broken:?}");
        world.classes("edited.yaml", &class).unwrap();
        until_stale(&world, "0").await;
    }
}

async fn failed_refreshes(world: &World<Gated>) -> u64 {
    let metrics = world.plugin.metrics().await.unwrap();
    let failed = |line: &&str| {
        line.starts_with("evanesce_refreshes_total{") && !line.contains("\"ok\"") && !line.contains("\"unchanged\"")
    };
    metrics.lines().filter(failed).map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_and_files_that_vanish_cost_running_pods_nothing_and_may_come_back() {
    let class = lively_class("lively", &[PASSWORD_FILE]);
    let world = Setup::default().class(&class).log("info").gated(1).await.unwrap();
    let volume = published(&world, "lively").await;
    // A credentials file.
    let (file, away) = (world.plugin.credentials().join("ca.pem"), world.plugin.credentials().join("away"));
    fs::rename(&file, &away).unwrap();
    until_stale(&world, "1").await;
    world.kubelet.publish(&volume).await.unwrap();
    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
    fs::rename(&away, &file).unwrap();
    until_stale(&world, "0").await;
    // The folder of classes: what it held counts on. It is in the engine half's own root, so it cannot be taken away, but
    // it can be closed.
    let mode = |mode| fs::set_permissions(world.plugin.classes(), fs::Permissions::from_mode(mode)).unwrap();
    let problems = async |wanted: &str| (metric(&world, "class_problems{}").await == wanted).then_some(());
    mode(0o700);
    wait::until_ready("the folder is missed", async || problems("1").await).await;
    world.backend.recorder.put("kv", "payments/db", &json!({"password": "new", "username": "app"}));
    wait::until("refreshes go on", || sight::text(volume.target_path(), "password") == "new").await;
    mode(0o755);
    wait::until_ready("the folder is read again", async || problems("0").await).await;
    assert_eq!(said(&world, "cannot read the folder of classes"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_full_keeps_its_files_until_there_is_room() {
    let class = lively_class("lively", &[PASSWORD_FILE]);
    let world = Setup::default().class(&class).log("info").gated(1).await.unwrap();
    let volume = published(&world, "lively").await;
    // By way of the engine half's own descriptor: the pod's view is read-only.
    let process = world.plugin.engine().unwrap();
    let descriptors = fs::read_dir(format!("/proc/{}/fd", process.pid().as_raw_nonzero())).unwrap();
    let roots = descriptors.map(|entry| entry.unwrap().path()).filter(|path| path.join("..data").exists());
    let root = roots.last().expect("the volume's root is open in the engine half");
    let filler = root.join("..filler");
    let filled = fs::write(&filler, vec![0; 2 << 20]).unwrap_err();
    assert_eq!(filled.kind(), std::io::ErrorKind::StorageFull);
    let grown = "x".repeat(100_000);
    world.backend.recorder.put("kv", "payments/db", &json!({"password": grown, "username": "app"}));
    until_stale(&world, "1").await;
    wait::until("the log says why", || said(&world, "the volume is too small for its files") == 1).await;
    let generations = || {
        let entries = fs::read_dir(volume.target_path()).unwrap().map(|entry| entry.unwrap().file_name());
        entries.filter(|name| name.to_string_lossy().starts_with("..g")).count()
    };
    wait::until("nothing is left of what did not fit", || generations() == 1).await;
    world.kubelet.publish(&volume).await.unwrap();
    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
    fs::remove_file(filler).unwrap();
    wait::until("there is room again", || sight::text(volume.target_path(), "password") == grown).await;
    until_stale(&world, "0").await;
}
