// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Which classes are asked for, what is known of them, and what an outage changes: nothing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use evanesce_csi::engine_half::metrics::Metrics;
use evanesce_csi::kubernetes::classes::KubernetesClasses;
use evanesce_engine::class_source::{ClassSource as _, Lookup};
use evanesce_engine::names::{BackendName, Namespace, VolumeClassName};
use serde_json::{Value, json};

use crate::fake_api::{FakeApi, Mood, until};

const VOLUMES: &str = "/apis/evanesce.dev/v1alpha1/namespaces/payments/secretvolumes";
const BACKENDS: &str = "/apis/evanesce.dev/v1alpha1/secretbackends";

fn volume(every: &str) -> Value {
    json!({
        "apiVersion": "evanesce.dev/v1alpha1", "kind": "SecretVolume",
        "metadata": { "name": "db", "namespace": "payments", "uid": "1", "generation": 1, "managedFields": [] },
        "spec": {
            "refresh": { "every": every },
            "files": [{ "path": "password", "from": { "backend": "vault", "secret": "kv/payments/db", "key": "password" } }],
        },
    })
}

fn backend() -> Value {
    json!({
        "apiVersion": "evanesce.dev/v1alpha1", "kind": "SecretBackend", "metadata": { "name": "vault" },
        "spec": {
            "vault": { "address": "https://vault.example:8200", "auth": { "kubernetes": { "role": "app" } } },
            "allow": [{ "namespaces": ["payments"], "serviceAccounts": ["*"], "secrets": ["kv/payments/*"] }],
        },
    })
}

fn source(api: &FakeApi) -> KubernetesClasses {
    KubernetesClasses::new(api.client(), Arc::new(Metrics::declare().0))
}

/// What a lookup of the volume says, in a word.
fn says(classes: &KubernetesClasses) -> String {
    match classes.volume(&Namespace::parse("payments").unwrap(), &VolumeClassName::parse("db").unwrap()) {
        Lookup::Found(class) => format!("every {:?}", class.spec.refresh.every),
        Lookup::Absent(_) => "absent".to_owned(),
        Lookup::Broken(why) => format!("broken: {why}"),
        Lookup::NotKnownYet(why) => format!("not known yet: {why}"),
    }
}

async fn until_says(classes: &KubernetesClasses, text: &str) {
    until(text, || says(classes).contains(text)).await;
}

fn lists(api: &FakeApi) -> usize {
    api.requests().iter().filter(|request| !request.contains("watch=true")).count()
}

#[tokio::test(start_paused = true)]
async fn a_class_is_watched_by_its_name_once_it_is_asked_for_and_no_other_is() {
    let api = FakeApi::new();
    api.put(VOLUMES, "db", volume("5m"));
    api.put(VOLUMES, "other", volume("5m"));
    api.put(BACKENDS, "vault", backend());
    let classes = source(&api);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(api.requests(), [""; 0], "nothing is asked before somebody asks");

    assert!(says(&classes).starts_with("not known yet"));
    until_says(&classes, "every 300s").await;
    until("the backend", || matches!(classes.backend(&BackendName::parse("vault").unwrap()), Lookup::Found(_))).await;
    until("two watches", || api.open_watches() == 2).await;
    for request in api.requests() {
        let named =
            |path: &str, name: &str| request.contains(path) && request.contains(&format!("metadata.name%3D{name}"));
        assert!(named(VOLUMES, "db") || named(BACKENDS, "vault"), "{request}");
    }
    assert_eq!(classes.counts().volumes + classes.counts().backends, 2);
}

#[tokio::test(start_paused = true)]
async fn an_edit_a_deletion_and_a_typing_error_are_known_without_asking() {
    let api = FakeApi::new();
    api.put(VOLUMES, "db", volume("5m"));
    let classes = source(&api);
    until_says(&classes, "every 300s").await;
    until("the watch", || api.open_watches() == 1).await;
    let (asked, before) = (api.requests().len(), *classes.changes().borrow());

    api.put(VOLUMES, "db", volume("1m"));
    until_says(&classes, "every 60s").await;
    assert!(*classes.changes().borrow() > before);
    let mut wrong = volume("1m");
    wrong["spec"]["fils"] = json!([]);
    api.put(VOLUMES, "db", wrong);
    until_says(&classes, "broken: spec: unknown key `fils`: did you mean `files`?").await;
    assert_eq!(classes.counts().problems, 1);
    api.delete(VOLUMES, "db");
    until_says(&classes, "absent").await;
    api.put(VOLUMES, "db", volume("2m"));
    until_says(&classes, "every 120s").await;
    assert_eq!(api.requests().len(), asked);
}

#[tokio::test(start_paused = true)]
async fn an_outage_changes_nothing_and_the_watch_resumes_where_it_broke_off() {
    let api = FakeApi::new();
    api.put(VOLUMES, "db", volume("5m"));
    let classes = source(&api);
    until_says(&classes, "every 300s").await;
    until("the watch", || api.open_watches() == 1).await;
    assert_eq!(lists(&api), 1);

    api.set(Mood::Refuses(503));
    api.break_off();
    let begun = api.requests().len();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(says(&classes), "every 300s");
    let tries = api.requests().len() - begun;
    assert!((2..=400).contains(&tries), "an hour of tries at most half a minute apart, and not much more: {tries}");

    api.set(Mood::Answers);
    until("the watch again", || api.open_watches() == 1).await;
    api.put(VOLUMES, "db", volume("1m"));
    until_says(&classes, "every 60s").await;
    assert_eq!(lists(&api), 1, "what is known is not listed again: {:?}", api.requests());
}

#[tokio::test(start_paused = true)]
async fn a_place_that_the_server_has_forgotten_is_listed_once() {
    let api = FakeApi::new();
    api.put(VOLUMES, "db", volume("5m"));
    let classes = source(&api);
    until_says(&classes, "every 300s").await;
    until("the watch", || api.open_watches() == 1).await;
    api.fail_watches(410);
    api.put(VOLUMES, "db", volume("1m"));
    until_says(&classes, "every 60s").await;
    assert_eq!(lists(&api), 2);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_first_answer_hears_why_there_is_none() {
    for (code, says_so) in [(403, "`rbac.create`"), (404, "`crds.install`"), (500, "does not answer")] {
        let api = FakeApi::new();
        api.set(Mood::Refuses(code));
        api.put(VOLUMES, "db", volume("5m"));
        let classes = source(&api);
        until_says(&classes, says_so).await;
        api.set(Mood::Answers);
        until_says(&classes, "every 300s").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_asked_again() {
    let api = FakeApi::new();
    api.put(VOLUMES, "db", volume("5m"));
    api.set(Mood::Silent);
    let classes = source(&api);
    assert!(says(&classes).contains("has not answered"));
    until("the question", || api.requests().len() == 1).await;
    api.set(Mood::Answers);
    until_says(&classes, "every 300s").await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_watched_any_more_when_the_source_goes() {
    let api = FakeApi::new();
    let classes = source(&api);
    until_says(&classes, "absent").await;
    until("the watch", || api.open_watches() == 1).await;
    drop(classes);
    until("its end", || api.open_watches() == 0).await;
}
