// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! References: the path that the policy saw is the path that is sent, and there is no other way in.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;

use evanesce_integration::recorder::{Misbehaviour, Recorder};
use evanesce_integration::world::{PASSWORD, Setup, World};
use evanesce_integration::{mounts, sight};
use serde_json::json;
use tonic::Code;

/// The whole secret at `reference`, as the `SecretVolume` `payments/NAME`.
fn class(name: &str, reference: &str) -> String {
    // What JSON may hold as it is and YAML may not.
    let reference = json!(reference).to_string().replace('\u{7f}', "\\x7f");
    format!(
        "apiVersion: evanesce.dev/v1alpha1
kind: SecretVolume
metadata: {{name: {name}, namespace: payments}}
spec:
  files:
    - {{path: file, from: {{backend: vault, secret: {reference}}}}}
"
    )
}

fn classes(references: &[&str]) -> String {
    references.iter().enumerate().fold(String::new(), |mut all, (number, reference)| {
        let separator = if number == 0 { "" } else { "---\n" };
        write!(all, "{separator}{}", class(&format!("c{number}"), reference)).unwrap();
        all
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_policy_saw_is_what_is_sent_to_the_letter() {
    let sent = [
        ("kv/payments/db", "/v1/kv/data/payments/db"),
        ("kv/payments/a+b=c,d:e!f@g~h", "/v1/kv/data/payments/a+b=c,d:e!f@g~h"),
        ("kv/payments/data/db", "/v1/kv/data/payments/data/db"),
        ("kv/payments/..db", "/v1/kv/data/payments/..db"),
        ("database/creds/app", "/v1/database/creds/app"),
    ];
    let references = sent.map(|(reference, _)| reference);
    let world = Setup::default()
        .allow("{namespaces: [payments], serviceAccounts: [app], secrets: [\"database/creds/*\"]}")
        .class(&classes(&references))
        .recorder()
        .await
        .unwrap();
    for (number, (reference, path)) in sent.into_iter().enumerate() {
        world
            .backend
            .answer(path.trim_start_matches("/v1/"), json!({"data": {"password": "x"}, "metadata": {"version": 1}}));
        let before = world.backend.reads().len();
        let volume = world.volume(&world.pod("payments", "app"), &format!("c{number}"));
        world.kubelet.publish(&volume).await.unwrap_or_else(|status| panic!("{reference}: {status}"));
        assert_eq!(world.backend.reads()[before..], [path], "{reference}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_version_is_an_argument_and_no_part_of_the_path() {
    let versioned = class("versioned", "kv/payments/db").replace("kv/payments/db\"", "kv/payments/db\", version: 3");
    let world = Setup::default().class(&versioned).recorder().await.unwrap();
    let data = json!({"data": {"password": "third"}, "metadata": {"version": 3}});
    world.backend.answer("kv/data/payments/db?version=3", data);
    let volume = world.volume(&world.pod("payments", "app"), "versioned");
    world.kubelet.publish(&volume).await.unwrap();
    assert_eq!(world.backend.reads(), ["/v1/kv/data/payments/db?version=3"]);
    assert_eq!(sight::text(volume.target_path(), "file"), r#"{"password":"third"}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_cannot_leave_its_allow_list() {
    let attacks = [
        "kv/payments/../other/db",
        "kv/payments/..",
        "kv/payments/./db",
        "../kv/payments/db",
        "kv//payments/db",
        "kv/payments//db",
        "/kv/payments/db",
        "kv/payments/db/",
        "kv/payments/%2e%2e/other",
        "kv/payments%2fdb",
        "kv/payments/db?version=1",
        "kv/payments/db?list=true",
        "kv/payments/db#fragment",
        "kv/payments/db\u{0}",
        "kv/payments/db\n",
        "kv/payments/d\u{7f}b",
        "kv/payments/d b",
        "kv/payments\\db",
        "kv/payments/*",
        "kv/payments/{namespace}",
        "kv/data/payments/db",
        "kv/data/data/payments/db",
        "kv/metadata/payments/db",
        "kv/other/db",
        "kv/paymentsx/db",
        "kv/payments",
        "KV/payments/db",
        "secret/payments/db",
        "v1/kv/payments/db",
        "sys/mounts",
        "auth/token/lookup-self",
        "identity/entity/id",
        "cubbyhole/response",
        "",
    ];
    let world = Setup::default().class(&classes(&attacks)).recorder().await.unwrap();
    for (number, attack) in attacks.iter().enumerate() {
        let volume = world.volume(&world.pod("payments", "app"), &format!("c{number}"));
        let status = world.kubelet.publish(&volume).await.expect_err(attack);
        let refused = [Code::InvalidArgument, Code::PermissionDenied];
        assert!(refused.contains(&status.code()), "{attack:?}: {status}");
        assert_eq!(world.backend.seen(), [], "{attack:?} was sent");
    }
    assert_eq!(mounts::below(world.plugin.pods()), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_own_paths_are_refused_unless_they_are_listed_by_name() {
    let own = ["sys/mounts", "auth/token/lookup-self", "identity/entity/id/app"];
    let everything = "{namespaces: [payments], serviceAccounts: [app], secrets: [\"*\"]}";
    let world = Setup::default().allow(everything).class(&classes(&own)).recorder().await.unwrap();
    for (number, reference) in own.iter().enumerate() {
        let volume = world.volume(&world.pod("payments", "app"), &format!("c{number}"));
        let status = world.kubelet.publish(&volume).await.expect_err(reference);
        assert_eq!(status.code(), Code::PermissionDenied, "{reference}: {status}");
    }
    assert_eq!(world.backend.seen(), []);

    let listed = "{namespaces: [payments], serviceAccounts: [app], secrets: [sys/mounts]}";
    let world = Setup::default().allow(listed).class(&classes(&own)).recorder().await.unwrap();
    world.backend.answer("sys/mounts", json!({"a": "b"}));
    world.kubelet.publish(&world.volume(&world.pod("payments", "app"), "c0")).await.unwrap();
    assert_eq!(world.backend.reads(), ["/v1/sys/mounts"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_leads_nowhere() {
    let world = World::recorded().await.unwrap();
    world.backend.put("kv", "other/db", &json!({"username": "other", "password": "of somebody else"}));
    for status in [301, 302, 303, 307, 308] {
        let headers = vec![("location", format!("{}/v1/kv/data/other/db", world.backend.address()))];
        world.backend.misbehave(Some(Misbehaviour { status, headers, body: String::new() }));
        let volume = world.volume(&world.pod("payments", "app"), "db");
        world.kubelet.publish(&volume).await.expect_err("a redirect is no answer");
    }
    let elsewhere = |path: &String| path.contains("other");
    assert!(!world.backend.reads().iter().any(elsewhere), "it was followed: {:?}", world.backend.reads());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_later_release_brings_is_refused_by_name() {
    let from = "from: {backend: vault, secret: kv/payments/db}";
    let file = format!("{{path: file, {from}}}");
    let later: [(&str, String, String); 6] = [
        ("readers", "readers: {samePodOnly: true}".into(), file.clone()),
        ("notify", "notify: {signal: HUP}".into(), file.clone()),
        ("template", String::new(), "{path: file, template: \"password={{ secret }}\"}".into()),
        ("optional", String::new(), format!("{{path: file, {from}, optional: true}}")),
        ("unknown", "unknown: 1".into(), file.clone()),
        ("defalt", String::new(), format!("{{path: file, {from}, defalt: x}}")),
    ];
    let mut yaml = String::new();
    for (number, (_, spec, file)) in later.iter().enumerate() {
        let separator = if number == 0 { "" } else { "---\n" };
        let spec = if spec.is_empty() { String::new() } else { format!("  {spec}\n") };
        write!(
            yaml,
            "{separator}apiVersion: evanesce.dev/v1alpha1
kind: SecretVolume
metadata: {{name: c{number}, namespace: payments}}
spec:
{spec}  files:
    - {file}
"
        )
        .unwrap();
    }
    let world = Setup::default().class(&yaml).recorder().await.unwrap();
    for (number, (key, ..)) in later.iter().enumerate() {
        let volume = world.volume(&world.pod("payments", "app"), &format!("c{number}"));
        let status = world.kubelet.publish(&volume).await.expect_err(key);
        assert_eq!(status.code(), Code::InvalidArgument, "{key}: {status}");
        assert!(status.message().contains(key), "{key} is not named: {status}");
    }
    assert_eq!(world.backend.seen(), []);
    good_neighbour(&world).await;
}

/// One class that is wrong takes no other with it, not even in the same file.
async fn good_neighbour(world: &World<Recorder>) {
    let volume = world.volume(&world.pod("payments", "app"), "db");
    world.kubelet.publish(&volume).await.unwrap();
    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
}
