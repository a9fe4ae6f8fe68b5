// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A pod with a secret of AWS: what it gets, what a refresh asks, and how a rotation reaches it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use evanesce_integration::moto::{AUDIENCE, Aws};
use evanesce_integration::token_review::Claims;
use evanesce_integration::world::{Setup, World, lively_class};
use evanesce_integration::{sight, wait};
use evanesce_proto::kubelet::Publish;

const PASSWORD: &str = "{path: password, from: {backend: aws, secret: payments/db, key: password}}";

/// A pod with the password, and its version's id.
async fn pod() -> (World<Aws>, Publish, String) {
    let class = lively_class("lively", &[PASSWORD]);
    let world = Setup::default().class(&class).aws().await.unwrap();
    let version = world.backend.put("payments/db", r#"{"password":"old"}"#).await.unwrap();
    let pod = world.pod("payments", "app");
    let volume = world.volume_with(&pod, "lively", &Claims::new(&pod, AUDIENCE));
    world.kubelet.publish(&volume).await.unwrap();
    assert_eq!(sight::text(volume.target_path(), "password"), "old");
    (world, volume, version)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_at_aws_reaches_the_pod_as_one_swap() {
    let (world, volume, old) = pod().await;
    let target = volume.target_path();
    let shown = sight::shown(target).unwrap();

    let new = world.backend.put_pending("payments/db", r#"{"password":"new"}"#).await.unwrap();
    let looks = world.backend.count("DescribeSecret");
    wait::until("it was looked at twice", || world.backend.count("DescribeSecret") >= looks + 2).await;
    assert_eq!((sight::shown(target).unwrap(), sight::text(target, "password").as_str()), (shown.clone(), "old"));

    world.backend.promote("payments/db", &old, &new).await.unwrap();
    wait::until("the new password is there", || sight::text(target, "password") == "new").await;
    let swapped = sight::shown(target).unwrap();
    assert_ne!(swapped, shown);
    let looks = world.backend.count("DescribeSecret");
    wait::until("it was looked at twice more", || world.backend.count("DescribeSecret") >= looks + 2).await;
    assert_eq!(sight::shown(target).unwrap(), swapped, "one swap");
    assert_eq!(world.backend.count("GetSecretValue"), 2, "a value is read when it is new");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_secret_is_looked_at_and_never_read_and_its_pod_logs_in_once() {
    let (world, volume, _) = pod().await;
    let shown = sight::shown(volume.target_path()).unwrap();
    wait::until("it was looked at three times", || world.backend.count("DescribeSecret") >= 3).await;
    assert_eq!(world.backend.count("GetSecretValue"), 1);
    assert_eq!(world.backend.count("AssumeRoleWithWebIdentity"), 1, "credentials are kept for their identity");
    assert_eq!(sight::shown(volume.target_path()).unwrap(), shown);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_login_or_a_secret_is_in_the_log_or_the_audit() {
    let (world, _volume, _) = pod().await;
    wait::until("it was looked at", || world.backend.count("DescribeSecret") >= 1).await;
    let said =
        format!("{}{}", world.plugin.log(), world.plugin.audit().iter().map(ToString::to_string).collect::<String>());
    for call in world.backend.calls().into_iter().filter(|call| !call.access_key.is_empty()) {
        assert!(!said.contains(&call.access_key), "an access key is in the log");
    }
    for word in ["\"old\"", "x-amz-security-token", "SecretString", "WebIdentityToken"] {
        assert!(!said.contains(word), "{word} is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_secret_has_no_such_field_does_not_start_and_hears_why() {
    let class = lively_class("plain", &["{path: a, from: {backend: aws, secret: payments/plain, key: password}}"]);
    let world = Setup::default().class(&class).aws().await.unwrap();
    world.backend.put("payments/plain", "no JSON, CANARY").await.unwrap();
    let pod = world.pod("payments", "app");
    let volume = world.volume_with(&pod, "plain", &Claims::new(&pod, AUDIENCE));
    let error = world.kubelet.publish(&volume).await.unwrap_err();
    let said = error.message();
    assert!(said.contains("payments/plain has no key \"password\"") && said.contains("check"), "{said}");
    assert!(!format!("{error:?}{}", world.plugin.log()).contains("CANARY"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_aws_throttles_keeps_the_files() {
    let (world, volume, _) = pod().await;
    world.backend.throttle(7);
    let asked = world.backend.calls().len();
    wait::until("a refresh was refused", || world.backend.calls().len() > asked).await;
    let keeps = || sight::text(volume.target_path(), "password") == "old";
    wait::holds_for(Duration::from_secs(1), "the files stay", keeps).await;
}
