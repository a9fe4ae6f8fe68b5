// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Without the mount calls of Linux 5.2 to 5.12 every property of a volume is the same.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use evanesce_integration::mounts::{self, Mount};
use evanesce_integration::recorder::Recorder;
use evanesce_integration::sight::{self, Sight};
use evanesce_integration::wait;
use evanesce_integration::world::{PASSWORD, Setup, lively_class};
use serde_json::json;

/// What Linux 5.10 lacks, and a container runtime that knows none of the calls.
const KERNELS: [&[&str]; 2] = [
    &["mount_setattr", "landlock_create_ruleset", "memfd_secret", "statmount"],
    &["fsopen", "fsconfig", "fsmount", "fspick", "open_tree", "move_mount", "mount_setattr"],
];

const PASSWORD_FILE: &str = "{path: password, from: {backend: vault, secret: kv/payments/db, key: password}}";

#[tokio::test(flavor = "multi_thread")]
async fn without_the_newer_mount_calls_a_volume_is_the_same() {
    for lacks in KERNELS {
        let setup = Setup::default().without(lacks).class(&lively_class("lively", &[PASSWORD_FILE]));
        let mut world = setup.recorder().await.unwrap();
        assert!(world.plugin.log().contains("mount calls"), "the log says what this machine does not give");
        let metrics = world.plugin.metrics().await.unwrap();
        assert!(
            metrics.lines().any(|line| line.contains("protection=\"mount calls\"") && line.ends_with(" 1.0")),
            "the metric says so: {metrics}"
        );

        let volume = world.volume(&world.pod("payments", "app"), "lively");
        let target = volume.target_path().to_owned();
        world.kubelet.publish(&volume).await.unwrap();
        has_every_option(&target);
        assert_eq!(sight::text(&target, "password"), PASSWORD);
        assert!(std::fs::write(target.join("more"), "").is_err(), "read-only at the target");

        refreshed(&world.backend, &target, "second").await;
        world.plugin.kill_engine().await.unwrap();
        world.kubelet.publish(&volume).await.unwrap();
        refreshed(&world.backend, &target, "third").await;
        world.plugin.kill_and_restart().await.unwrap();
        world.kubelet.publish(&volume).await.unwrap();
        refreshed(&world.backend, &target, "fourth").await;
        has_every_option(&target);

        // Two generations of this are more than its first size.
        refreshed(&world.backend, &target, &"x".repeat(600_000)).await;
        has_every_option(&target);
        assert_ne!(mounts::at(&target)[0].value("size"), Some("1024k"), "it has grown");

        world.kubelet.unpublish(&volume).await.unwrap();
        assert_eq!(sight::look(&target).unwrap(), Sight::Absent);
        assert!(mounts::below(world.plugin.pods()).is_empty());
        let kept = mounts::below(world.plugin.state());
        let staged = |mount: &Mount| mount.target.parent().is_some_and(|parent| parent.ends_with("staging"));
        assert!(!kept.iter().any(staged), "its memory is given back: {kept:?}");
    }
}

async fn refreshed(backend: &Recorder, target: &Path, password: &str) {
    backend.put("kv", "payments/db", &json!({"username": "app", "password": password}));
    wait::until("the new value is in the file", || sight::text(target, "password") == password).await;
}

fn has_every_option(target: &Path) {
    let mounts = mounts::at(target);
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    for option in ["ro", "nosuid", "nodev", "noexec", "noswap"] {
        assert!(mounts[0].has(option), "{option}: {:?}", mounts[0]);
    }
    for option in ["size", "nr_inodes"] {
        assert!(mounts[0].value(option).is_some(), "{option}: {:?}", mounts[0]);
    }
}
