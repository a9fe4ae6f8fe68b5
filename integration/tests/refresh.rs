// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Refreshes: a running pod gets what is new, and keeps what it has when there is nothing to get.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, io};

use evanesce_integration::recorder::{Misbehaviour, Recorder};
use evanesce_integration::token_review::Claims;
use evanesce_integration::world::{AUDIENCE, PASSWORD, PASSWORD_FILE, Setup, World, lively_class};
use evanesce_integration::{counts, mounts, sight, wait};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_reaches_the_pod_without_kubelet() {
    let class = lively_class("lively", &[PASSWORD_FILE]);
    let world = Setup::default().class(&class).openbao().await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "lively");
    world.kubelet.publish(&volume).await.unwrap();
    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);

    world.backend.admin().put("kv", "payments/db", json!({"password": "new", "username": "app"})).await.unwrap();
    wait::until("the new password is there", || sight::text(volume.target_path(), "password") == "new").await;
    assert_eq!(mounts::at(volume.target_path()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_republish_before_the_deadline_asks_the_backend_nothing() {
    let world = World::recorded().await.unwrap();
    let pod = world.pod("payments", "app");
    world.kubelet.publish(&world.volume(&pod, "db")).await.unwrap();
    world.backend.put("kv", "payments/db", &json!({"password": "new", "username": "app"}));
    let asked = world.backend.seen();
    for _ in 0..10 {
        world.kubelet.publish(&world.volume(&pod, "db")).await.unwrap();
    }
    assert_eq!(world.backend.seen(), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_secret_is_asked_for_and_changes_nothing() {
    let class = lively_class("lively", &[PASSWORD_FILE]);
    let world = Setup::default().class(&class).recorder().await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "lively");
    world.kubelet.publish(&volume).await.unwrap();
    let shown = sight::shown(volume.target_path()).unwrap();
    let asked = |what: &str| world.backend.reads().iter().filter(|read| read.contains(what)).count();
    wait::until("its version was asked for twice", || asked("/metadata/") >= 2).await;
    assert_eq!((sight::shown(volume.target_path()).unwrap(), asked("/data/")), (shown, 1), "it is read once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_class_is_due_at_once() {
    // Due in an hour, but for the edit.
    let class = |file: &str| {
        format!(
            "apiVersion: evanesce.dev/v1alpha1
kind: SecretVolume
metadata: {{name: edited, namespace: payments}}
spec:
  refresh: {{every: 1h}}
  files: [{file}]
"
        )
    };
    let world = World::recorded().await.unwrap();
    world.classes("edited.yaml", &class(PASSWORD_FILE)).unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "edited");
    wait::until_ready("the class is known", async || world.kubelet.publish(&volume).await.ok()).await;

    world.classes("edited.yaml", &class(&PASSWORD_FILE.replace("path: password", "path: renamed"))).unwrap();
    let target = volume.target_path();
    wait::until("the file has its new name", || target.join("renamed").exists()).await;
    assert_eq!(sight::text(target, "renamed"), PASSWORD);
    assert!(!target.join("password").exists(), "the old name is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_fails_keeps_the_files_and_kubelet_hears_ok() {
    let class = lively_class("lively", &[PASSWORD_FILE]);
    let world = Setup::default().class(&class).recorder().await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "lively");
    world.kubelet.publish(&volume).await.unwrap();
    let mount = mounts::at(volume.target_path());

    let refusals = [(403, "permission denied"), (404, "{\"errors\":[]}"), (500, "broken"), (200, "no JSON"), (429, "")];
    for (status, body) in refusals {
        world.backend.misbehave(Some(Misbehaviour { status, headers: Vec::new(), body: body.into() }));
        let asked = world.backend.reads().len();
        wait::until("a refresh has failed", || world.backend.reads().len() > asked).await;
        // This kubelet takes the mount away on a final error.
        world.kubelet.publish(&volume).await.unwrap();
        assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD, "after {status}");
    }
    assert_eq!(mounts::at(volume.target_path()), mount);

    world.backend.misbehave(None);
    world.backend.put("kv", "payments/db", &json!({"password": "new", "username": "app"}));
    wait::until("the backend's recovery is noticed", || sight::text(volume.target_path(), "password") == "new").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_pod_keeps_its_files_when_its_class_or_its_token_is_gone() {
    let world = World::recorded().await.unwrap();
    world.classes("gone.yaml", &lively_class("gone", &[PASSWORD_FILE])).unwrap();
    let pod = world.pod("payments", "app");
    let volume = world.volume(&pod, "gone");
    wait::until_ready("the class is known", async || world.kubelet.publish(&volume).await.ok()).await;
    let mount = mounts::at(volume.target_path());

    fs::remove_file(world.plugin.classes().join("gone.yaml")).unwrap();
    wait::until("a refresh has failed", || world.plugin.log().contains("volume is stale")).await;
    world.kubelet.publish(&volume).await.unwrap();
    let expired = world.volume_with(&pod, "gone", &Claims::new(&pod, AUDIENCE).expired());
    world.kubelet.publish(&expired).await.unwrap();
    assert_eq!(mounts::at(volume.target_path()), mount);
    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_previous_generation_stays_for_keep_previous_and_then_goes() {
    let class = lively_class("lively", &[PASSWORD_FILE]);
    let world = Setup::default().class(&class).recorder().await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "lively");
    world.kubelet.publish(&volume).await.unwrap();
    let target = volume.target_path();
    let previous = target.join(sight::shown(target).unwrap());

    world.backend.put("kv", "payments/db", &json!({"password": "new", "username": "app"}));
    wait::until("the new password is there", || sight::text(target, "password") == "new").await;
    // The class says two seconds; half of them is safely within, however late the swap was noticed.
    let stays = || fs::read_to_string(previous.join("password")).is_ok_and(|old| old == PASSWORD);
    wait::holds_for(Duration::from_secs(1), "the previous generation stays", stays).await;
    wait::until("the previous generation is gone", || !previous.exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grown_secret_resizes_the_volume() {
    let class = lively_class("lively", &[PASSWORD_FILE]);
    let world = Setup::default().class(&class).recorder().await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "lively");
    world.kubelet.publish(&volume).await.unwrap();
    let size = || mounts::at(volume.target_path())[0].value("size").unwrap().to_owned();
    assert_eq!(size(), "1024k");

    let grown = "x".repeat(700 << 10);
    world.backend.put("kv", "payments/db", &json!({"password": grown, "username": "app"}));
    wait::until("the grown secret is there", || sight::text(volume.target_path(), "password") == grown).await;
    let kilobytes: u64 = size().strip_suffix('k').unwrap().parse().unwrap();
    assert!(kilobytes >= 1400, "two generations of 700 KiB do not fit into {kilobytes} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_outgrows_a_fixed_size_leaves_the_old_files() {
    let class = lively_class("fixed", &[PASSWORD_FILE]).replace("  keepPrevious: 2s\n", "  size: 64Ki\n");
    let world = Setup::default().class(&class).recorder().await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "fixed");
    world.kubelet.publish(&volume).await.unwrap();
    assert_eq!(mounts::at(volume.target_path())[0].value("size"), Some("64k"));

    world.backend.put("kv", "payments/db", &json!({"password": "x".repeat(60 << 10), "username": "app"}));
    let failed = || world.plugin.log().contains("volume is stale");
    wait::until("the refresh has failed", failed).await;
    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
    world.kubelet.publish(&volume).await.unwrap();
}

/// The files of one generation are made of one secret whose two values are always equal. Whoever reads them beneath one
/// open of `..data`, or from the one combined file, must find them equal; whoever opens two paths may not, and how often
/// is printed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_one_generation_never_see_a_mixture() {
    const VOLUMES: u64 = 50;
    let class = lively_class(
        "pair",
        &[
            "{path: one, from: {backend: vault, secret: kv/payments/pair, key: one}}",
            "{path: two, from: {backend: vault, secret: kv/payments/pair, key: two}}",
            "{path: both.json, from: {backend: vault, secret: kv/payments/pair}}",
        ],
    );
    let world = Setup::default().class(&class).log("info").recorder().await.unwrap();
    put_pair(&world.backend, 0);
    let mut targets = Vec::new();
    for _ in 0..VOLUMES {
        let volume = world.volume(&world.pod("payments", "app"), "pair");
        world.kubelet.publish(&volume).await.unwrap();
        targets.push(volume.target_path().to_owned());
    }
    let tally = Arc::new(Tally::default());
    let readers = [Reading::OneGeneration, Reading::OneFile, Reading::TwoOpens].map(|how| {
        let (targets, tally) = (targets.clone(), Arc::clone(&tally));
        std::thread::spawn(move || read(how, &targets, &tally))
    });

    let wanted = u64::from(counts::REFRESHES.get());
    let (mut number, mut swaps, mut shown) = (0, 0, targets.iter().map(|_| PathBuf::new()).collect::<Vec<_>>());
    while swaps < wanted {
        number += 1;
        put_pair(&world.backend, number);
        let before = swaps;
        wait::until("volumes are refreshed", || {
            for (target, shown) in targets.iter().zip(&mut shown) {
                let now = sight::shown(target).unwrap();
                if *shown != now {
                    *shown = now;
                    swaps += 1;
                }
            }
            swaps >= before + VOLUMES
        })
        .await;
    }
    tally.stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().unwrap();
    }
    tally.print(swaps);
    assert_eq!(tally.safe_mixed.load(Ordering::Relaxed), 0);
    assert!(tally.safe.load(Ordering::Relaxed) > wanted, "the readers hardly looked");
}

fn put_pair(backend: &Recorder, number: u64) {
    let value = format!("{number:08}");
    backend.put("kv", "payments/pair", &json!({"one": value, "two": value}));
}

#[derive(Clone, Copy)]
enum Reading {
    OneFile,
    OneGeneration,
    TwoOpens,
}

#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    safe: AtomicU64,
    safe_mixed: AtomicU64,
    two_opens: AtomicU64,
    two_opens_mixed: AtomicU64,
}

impl Tally {
    #[expect(clippy::print_stdout, reason = "a figure that the documentation quotes")]
    fn print(&self, swaps: u64) {
        let [safe, pairs, mixed] =
            [&self.safe, &self.two_opens, &self.two_opens_mixed].map(|count| count.load(Ordering::Relaxed));
        println!("{swaps} swaps: {safe} safe reads, none mixed; {pairs} pairs of opens, {mixed} mixed");
    }
}

fn read(how: Reading, targets: &[PathBuf], tally: &Tally) {
    let (reads, mixed) = match how {
        Reading::TwoOpens => (&tally.two_opens, &tally.two_opens_mixed),
        Reading::OneFile | Reading::OneGeneration => (&tally.safe, &tally.safe_mixed),
    };
    for target in targets.iter().cycle() {
        if tally.stop.load(Ordering::Relaxed) {
            return;
        }
        // A reader that cannot read has met an incomplete set, which is as bad as a mixed one.
        let equal = values(how, target).map(|(one, two)| one == two).unwrap_or(false);
        reads.fetch_add(1, Ordering::Relaxed);
        mixed.fetch_add(u64::from(!equal), Ordering::Relaxed);
    }
}

fn values(how: Reading, target: &std::path::Path) -> io::Result<(String, String)> {
    match how {
        Reading::OneFile => {
            let whole: Value = serde_json::from_slice(&fs::read(target.join("both.json"))?)?;
            Ok((whole["one"].to_string(), whole["two"].to_string()))
        }
        Reading::OneGeneration => {
            let files = sight::generation(target)?;
            let file = |name: &str| {
                let bytes = files.get(name).ok_or(io::ErrorKind::NotFound)?;
                Ok::<_, io::Error>(String::from_utf8_lossy(bytes).into_owned())
            };
            Ok((file("one")?, file("two")?))
        }
        Reading::TwoOpens => Ok((fs::read_to_string(target.join("one"))?, fs::read_to_string(target.join("two"))?)),
    }
}
