// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What is left in memory of secrets and tokens: nothing. `memory_scanner.rs` shows that it would be found.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicBool, Ordering};

use evanesce_integration::memory::{self, until_clean};
use evanesce_integration::processes::Process;
use evanesce_integration::recorder::Misbehaviour;
use evanesce_integration::token_review::{Claims, WorkloadName};
use evanesce_integration::world::{AUDIENCE, Setup, World, lively_class};
use evanesce_integration::{counts, sight, wait};
use evanesce_proto::kubelet::{Publish, TokensIn};
use serde_json::json;

const FILE: &str = "{path: password, from: {backend: vault, secret: kv/payments/canary, key: password}}";
const ALL: &str = "{path: all.json, from: {backend: vault, secret: kv/payments/canary}}";

/// The value of the secret in its `version`; no other has anything in common with it that a scanner would tell of.
fn value(version: u32) -> String {
    let words = (0..8).map(|word| {
        let number = u64::from(version * 8 + word + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!("{:07x}", number >> 36)
    });
    // Written differently in every form.
    words.collect::<Vec<_>>().join("/\"+?~")
}

/// A publish, and the part of its token that is secret and nobody else's.
fn publish<B>(world: &World<B>, pod: &WorkloadName, class: &str) -> (Publish, String) {
    let token = world.cluster.tokens().mint(&Claims::new(pod, AUDIENCE)).unwrap();
    let json = json!({AUDIENCE: {"token": token.token, "expirationTimestamp": token.expires}}).to_string();
    let signature = token.token.rsplit('.').next().unwrap().to_owned();
    (world.volume(pod, class).raw_tokens(json, TokensIn::Secrets), signature)
}

/// Looks into processes again and again until it is told to stop; how often it did.
fn watch(processes: Vec<Process>, canaries: &[String], stop: &AtomicBool) -> u32 {
    let mut looks = 0;
    while !stop.load(Ordering::Relaxed) {
        let scan = memory::scan(&processes, canaries).unwrap();
        assert!(scan.is_clean(), "the root half holds a secret:\n{scan}");
        looks += 1;
    }
    looks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_left_after_a_publish_after_refreshes_and_after_the_end() {
    const VOLUMES: usize = 5;
    let rounds = counts::ROTATIONS_SCANNED.get();
    let class = lively_class("canary", &[FILE, ALL]);
    let world = Setup::default().class(&class).openbao().await.unwrap();
    let put = async |version| {
        world.backend.admin().put("kv", "payments/canary", json!({"password": value(version)})).await.unwrap();
    };
    put(0).await;
    let all = world.plugin.processes();
    assert_eq!(all.len(), 3);
    let engine = world.plugin.engine().unwrap();
    let root_half: Vec<_> = all.iter().copied().filter(|process| *process != engine).collect();

    let pods: Vec<_> = (0..VOLUMES).map(|_| world.pod("payments", "app")).collect();
    let mut canaries: Vec<String> = (0..=rounds).map(value).collect();
    let mut volumes = Vec::new();
    for pod in &pods {
        let (volume, signature) = publish(&world, pod, "canary");
        world.kubelet.publish(&volume).await.unwrap();
        volumes.push(volume);
        canaries.push(signature);
    }
    canaries.extend(world.backend.tokens().unwrap());
    until_clean("after the publishes", &all, &canaries);

    let stop = AtomicBool::new(false);
    let looks = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(root_half, &canaries, &stop));
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                for version in 1..=rounds {
                    put(version).await;
                    for volume in &volumes {
                        let shown = || sight::text(volume.target_path(), "password") == value(version);
                        wait::until("the volume shows the new value", shown).await;
                    }
                }
            });
        });
        stop.store(true, Ordering::Relaxed);
        watcher.join().unwrap()
    });
    // On a busy machine a look takes as long as several rounds.
    assert!(looks >= 3, "the root half was looked into {looks} times");
    // Kubelet's newer tokens, and the logins of all these refreshes.
    for pod in &pods {
        let (volume, signature) = publish(&world, pod, "canary");
        world.kubelet.publish(&volume).await.unwrap();
        canaries.push(signature);
    }
    let tokens = world.backend.tokens().unwrap();
    assert!(tokens.len() >= rounds as usize, "the server made {} tokens", tokens.len());
    canaries.extend(tokens);
    until_clean("after the refreshes", &all, &canaries);

    for volume in &volumes {
        world.kubelet.unpublish(volume).await.unwrap();
    }
    until_clean("after the end", &all, &canaries);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_delivery_that_fails_with_the_secret_in_flight() {
    let tiny = lively_class("tiny", &["{path: big, from: {backend: vault, secret: kv/payments/big, key: password}}"]);
    let classes = [
        lively_class("canary", &[FILE, ALL]),
        lively_class("no-key", &[FILE, &FILE.replace("key: password", "key: absent").replace("path: ", "path: x/")]),
        tiny.replace("keepPrevious", "size: 16Ki\n  keepPrevious"),
        lively_class("keys", &["{path: dir, from: {backend: vault, secret: kv/payments/named}, allKeys: true}"]),
    ]
    .join("---\n");
    let world = Setup::default().class(&classes).recorder().await.unwrap();
    let backend = &world.backend;
    backend.put("kv", "payments/canary", &json!({"password": value(0)}));
    backend.put("kv", "payments/named", &json!({"../up": value(0)}));
    backend.put("kv", "payments/big", &json!({"password": value(0).repeat(2000)}));
    backend.give_token(&value(1));
    let all = world.plugin.processes();
    let mut canaries = vec![value(0), value(1)];
    let fail = async |class: &str, how: &str, canaries: &mut Vec<String>| {
        let (volume, signature) = publish(&world, &world.pod("payments", "app"), class);
        canaries.push(signature);
        let refused = world.kubelet.publish(&volume).await.expect_err(how);
        assert!(!refused.message().contains(&value(0)[..12]));
        until_clean(how, &all, canaries);
        if let Ok(sight::Sight::Files(_)) = sight::look(volume.target_path()) {
            panic!("{how}: files were left")
        }
    };
    fail("no-key", "a key is missing", &mut canaries).await;
    fail("tiny", "the volume is too small", &mut canaries).await;
    fail("keys", "a key is no file name", &mut canaries).await;

    let whole = json!({"data": {"data": {"password": value(0)}, "metadata": {"version": 1}}}).to_string();
    let answers = [
        (200, vec![("content-length", (whole.len() + 100).to_string())], whole.clone(), "the body breaks off"),
        (200, Vec::new(), whole[..whole.len() - 20].to_owned(), "the JSON breaks off"),
        (200, Vec::new(), format!("[{whole}]"), "the JSON is another"),
        (200, Vec::new(), whole.repeat(20_000), "the answer is too large"),
        (403, Vec::new(), whole.clone(), "the refusal quotes the secret"),
        (500, Vec::new(), whole.clone(), "the failure quotes the secret"),
        (307, vec![("location", format!("http://127.0.0.1:1/{}", value(0).replace('"', "%22")))], whole, "a redirect"),
    ];
    for (status, headers, body, how) in answers {
        backend.misbehave(Some(Misbehaviour { status, headers, body }));
        fail("canary", how, &mut canaries).await;
    }

    // A refresh that fails leaves as little.
    backend.misbehave(None);
    let (volume, signature) = publish(&world, &world.pod("payments", "app"), "canary");
    canaries.push(signature);
    world.kubelet.publish(&volume).await.unwrap();
    backend.misbehave(Some(Misbehaviour { status: 200, headers: Vec::new(), body: format!("[{:?}]", value(0)) }));
    wait::until("a refresh has failed", || world.plugin.log().contains("volume is stale")).await;
    until_clean("after a refresh that failed", &all, &canaries);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_memfd_secret_there_is_one_copy_of_what_is_kept_and_none_of_what_was() {
    let class = lively_class("canary", &[FILE, ALL]);
    let world = Setup::default().class(&class).without(&["memfd_secret"]).openbao().await.unwrap();
    let put = async |version| {
        world.backend.admin().put("kv", "payments/canary", json!({"password": value(version)})).await.unwrap();
    };
    let engine = [world.plugin.engine().unwrap()];
    assert!(world.plugin.metrics().await.unwrap().contains(r#"memory="locked""#), "the arena is another");
    put(0).await;
    let pods: Vec<_> = (0..3).map(|_| world.pod("payments", "app")).collect();
    let mut canaries = vec![value(0), value(1)];
    for round in 0..2 {
        put(round).await;
        for pod in &pods {
            let (volume, signature) = publish(&world, pod, "canary");
            world.kubelet.publish(&volume).await.unwrap();
            let shown = || sight::text(volume.target_path(), "password") == value(round);
            wait::until("the volume shows the new value", shown).await;
            canaries.push(signature);
        }
    }
    canaries.extend(world.backend.tokens().unwrap());
    // Two values, three tokens that were renewed, three that are kept, and the server's own.
    let mut expected = vec![0; canaries.len()];
    expected[5..8].fill(1);
    let exact = |scan: &memory::Scan| scan.copies(canaries.len()) == expected && scan.found().len() == 3;
    // An answer may be kept for some seconds too, once for each pod: no two have the same service account.
    let fits = |scan: &memory::Scan| {
        let copies = scan.copies(canaries.len());
        copies[0] == 0 && copies[1] <= pods.len() && copies[2..] == expected[2..]
    };
    let scan = memory::until(&engine, &canaries, fits);
    assert!(fits(&scan), "{scan}");
    wait::until("only the kept tokens are there", || exact(&memory::scan(&engine, &canaries).unwrap())).await;

    for pod in &pods {
        world.kubelet.unpublish(&publish(&world, pod, "canary").0).await.unwrap();
    }
    until_clean("after the end", &engine, &canaries);
}
