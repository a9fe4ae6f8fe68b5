// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Who may read what: refused in time, in words that help the one who asked and nobody else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use evanesce_integration::plugin::Plugin;
use evanesce_integration::token_review::{Claims, WorkloadName};
use evanesce_integration::world::{AUDIENCE, PASSWORD, Setup, World};
use evanesce_integration::{mounts, wait};
use evanesce_proto::kubelet::Publish;
use serde_json::Value;
use tonic::{Code, Status};

const EXTRA_CLASSES: &str = "apiVersion: evanesce.dev/v1alpha1
kind: SecretVolume
metadata: {name: db, namespace: other}
spec:
  files:
    - {path: password, from: {backend: vault, secret: kv/payments/db, key: password}}
---
apiVersion: evanesce.dev/v1alpha1
kind: SecretVolume
metadata: {name: beyond, namespace: payments}
spec:
  files:
    - {path: password, from: {backend: vault, secret: kv/elsewhere/db, key: password}}
---
apiVersion: evanesce.dev/v1alpha1
kind: SecretVolume
metadata: {name: absent-secret, namespace: payments}
spec:
  files:
    - {path: password, from: {backend: vault, secret: kv/payments/absent, key: password}}
---
apiVersion: evanesce.dev/v1alpha1
kind: SecretVolume
metadata: {name: absent-key, namespace: payments}
spec:
  files:
    - {path: password, from: {backend: vault, secret: kv/payments/db, key: absent}}
---
apiVersion: evanesce.dev/v1alpha1
kind: SecretVolume
metadata: {name: absent-backend, namespace: payments}
spec:
  files:
    - {path: password, from: {backend: absent, secret: kv/payments/db, key: password}}
";

#[tokio::test(flavor = "multi_thread")]
async fn whom_the_policy_does_not_name_is_refused_before_anybody_is_asked() {
    let world = Setup::default().class(EXTRA_CLASSES).recorder().await.unwrap();
    for (what, namespace, account, class) in [
        ("another service account", "payments", "stranger", "db"),
        ("the same service account of another namespace", "other", "app", "db"),
        ("a secret that is not on the list", "payments", "app", "beyond"),
    ] {
        let volume = world.volume(&world.pod(namespace, account), class);
        let status = refused(&world, &volume, Code::PermissionDenied, what).await;
        for helpful in [namespace, account, "spec.allow", "vault"] {
            assert!(status.message().contains(helpful), "{what}: nothing about {helpful} in {status}");
        }
        audited_as_failure(&world.plugin, &volume).await;
    }
    assert_eq!(world.backend.seen(), [], "the backend was asked for what the policy refuses");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_cannot_use_the_class_of_another_namespace() {
    let world = World::recorded().await.unwrap();
    let volume = world.volume(&world.pod("elsewhere", "app"), "db");
    let status = refused(&world, &volume, Code::NotFound, "a class of another namespace").await;
    assert!(status.message().contains("elsewhere/db"), "{status}");
    assert!(!status.message().contains("payments"), "it tells where such a class is: {status}");
    assert_eq!(world.backend.seen(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_openbao_does_not_take_gets_no_files() {
    let world = World::start().await.unwrap();
    let pod = world.pod("payments", "app");
    let wrong_audience = world.volume_with(&pod, "db", &Claims::new(&pod, "elsewhere"));
    let status = refused(&world, &wrong_audience, Code::Unauthenticated, "another audience").await;
    assert!(status.message().contains(AUDIENCE), "which audience is wanted: {status}");

    let expired = world.volume_with(&pod, "db", &Claims::new(&pod, AUDIENCE).expired());
    refused(&world, &expired, Code::Unauthenticated, "an expired token").await;

    // Kubelet says one thing and the token another.
    let other = WorkloadName { pod_uid: "0c1d2e3f-0000-4000-8000-000000000001".into(), ..pod.clone() };
    let stolen = world.volume_with(&pod, "db", &Claims::new(&other, AUDIENCE));
    refused(&world, &stolen, Code::Unauthenticated, "the token of another pod").await;

    world.kubelet.publish(&world.volume(&pod, "db")).await.expect("with its own token it is let in");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_openbao_refuses_is_refused_and_its_own_words_stay_with_the_operator() {
    // Our policy lets it pass; OpenBao's role does not.
    let world = Setup::default()
        .allow("{namespaces: [payments], serviceAccounts: [app], secrets: [\"kv/elsewhere/*\"]}")
        .class(EXTRA_CLASSES)
        .openbao()
        .await
        .unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "beyond");
    let status = refused(&world, &volume, Code::PermissionDenied, "a backend's 403").await;
    assert!(status.message().contains("kv/elsewhere/db"), "which secret: {status}");
    for secret in ["1 error occurred", "127.0.0.1", "hvs.", world.backend.admin().token()] {
        assert!(!status.message().contains(secret), "{secret:?} is none of the tenant's business: {status}");
    }
    audited_as_failure(&world.plugin, &volume).await;

    // The service account that OpenBao's role does not know, although the policy does.
    let world = Setup::default()
        .allow("{namespaces: [payments], serviceAccounts: [stranger], secrets: [\"kv/payments/*\"]}")
        .openbao()
        .await
        .unwrap();
    let volume = world.volume(&world.pod("payments", "stranger"), "db");
    let status = world.kubelet.publish(&volume).await.unwrap_err();
    assert!([Code::PermissionDenied, Code::Unauthenticated].contains(&status.code()), "{status}");
    assert!(!status.message().contains("service account name not authorized"), "OpenBao's own words: {status}");
    let asked: Vec<_> = world.backend.requests().unwrap().into_iter().map(|request| request.path).collect();
    assert_eq!(asked, ["auth/kubernetes/login"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_not_is_named_and_what_there_is_is_not() {
    let world = Setup::default().class(EXTRA_CLASSES).openbao().await.unwrap();
    for (class, named) in [
        ("absent-secret", "kv/payments/absent"),
        ("absent-key", "absent"),
        ("absent-backend", "absent"),
        ("none", "none"),
    ] {
        let volume = world.volume(&world.pod("payments", "app"), class);
        let status = refused(&world, &volume, Code::NotFound, class).await;
        assert!(status.message().contains(named), "{class}: {status}");
        assert!(!status.message().contains(PASSWORD), "{class}: {status}");
        audited_as_failure(&world.plugin, &volume).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_of_a_pods_life_is_audited() {
    let world = World::start().await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "db");
    world.kubelet.publish(&volume).await.unwrap();
    world.kubelet.unpublish(&volume).await.unwrap();

    let events = wait::until_some("four events of the volume", || {
        let events = events_of(&world.plugin, &volume);
        (events.len() >= 4).then_some(events)
    })
    .await;
    let text = events.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    for word in ["payments", "app", "kv/data/payments/db", "vault"] {
        assert!(text.contains(word), "nothing about {word}:\n{text}");
    }
    assert!(!text.contains(PASSWORD));
    assert!(events.iter().all(|event| !is_failure(event)), "{text}");
    // OCSF's own marks on every event: what class it is, when it was, and by which version of the schema.
    for event in &events {
        for field in ["class_uid", "category_uid", "activity_id", "type_uid", "severity_id", "time"] {
            assert!(event[field].is_u64(), "{field} is missing: {event}");
        }
        assert_eq!(event["metadata"]["version"], "1.8.0", "{event}");
    }
}

/// The publish is refused with this code, and nothing is there.
async fn refused<B>(world: &World<B>, volume: &Publish, code: Code, what: &str) -> Status {
    let status = world.kubelet.publish(volume).await.expect_err(what);
    assert_eq!(status.code(), code, "{what}: {status}");
    assert_eq!(mounts::below(world.plugin.pods()), [], "{what}");
    assert!(!volume.target_path().exists(), "{what}");
    status
}

fn events_of(plugin: &Plugin, volume: &Publish) -> Vec<Value> {
    let mentions = |event: &Value| event.to_string().contains(volume.volume_id());
    plugin.audit().into_iter().filter(mentions).collect()
}

/// Before the failure there may be steps that succeeded, such as a login.
async fn audited_as_failure(plugin: &Plugin, volume: &Publish) {
    wait::until("the failure is audited", || events_of(plugin, volume).last().is_some_and(is_failure)).await;
}

/// OCSF `status_id`: 1 is success, 2 failure.
fn is_failure(event: &Value) -> bool {
    event["status_id"] == 2
}
