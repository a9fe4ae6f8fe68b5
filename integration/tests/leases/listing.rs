// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce leases`.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use evanesce_integration::plugin::Plugin;
use evanesce_integration::world::Setup;
use evanesce_integration::{binaries, wait};
use serde_json::{Value, json};

use crate::ground::{LEASE, ground};

/// `evanesce leases`, for programs.
fn listed(plugin: &Plugin, arguments: &[&str]) -> Vec<Value> {
    let output = plugin.leases(&[&["--output", "json"], arguments].concat()).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    said["groups"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lent_is_listed_and_counted_until_it_is_given_back() {
    let (mut world, _postgres) = ground(Setup::default()).await;
    let volume = world.volume(&world.pod("payments", "app"), "app");
    world.kubelet.publish(&volume).await.unwrap();
    let shown = listed(&world.plugin, &["--namespace", "payments"]).remove(0);
    let [lease] = &shown["leases"].as_array().unwrap()[..] else { panic!("{shown}") };
    let named = json!({
        "group": shown["group"], "state": "shown", "volume": volume.volume_id(), "namespace": "payments",
        "pod": "app-0", "pod_uid": shown["pod_uid"], "service_account": "app", "class": "app", "backend": "vault",
        "scope": "volume", "volumes": 1, "ends_seconds": shown["ends_seconds"], "next_seconds": shown["next_seconds"], "cause": null, "failures": 0,
        "last_error": null, "leases": [{
            "path": "database/creds/app", "id_digest": lease["id_digest"], "renewable": true,
            "ends_seconds": lease["ends_seconds"],
        }],
    });
    assert_eq!(shown, named);
    let seconds = |value: &Value| value.as_u64().unwrap();
    assert!(seconds(&shown["next_seconds"]) <= 20 && seconds(&shown["ends_seconds"]) > 500, "{shown}");
    assert!(seconds(&lease["ends_seconds"]) <= LEASE.as_secs(), "{shown}");
    assert!(listed(&world.plugin, &["--namespace", "elsewhere"]).is_empty());

    // What the backend calls it is nowhere to be seen.
    let ids = world.backend.admin().list("sys/leases/lookup/database/creds/app").await.unwrap();
    let table = || String::from_utf8(world.plugin.leases(&[]).unwrap().stdout).unwrap();
    let text = table();
    for said in [text.clone(), shown.to_string()] {
        assert!(ids.len() == 1 && !said.contains(&ids[0]), "{said}");
    }
    let lines: Vec<_> = text.lines().collect();
    let [head, group, below, "1 group, 1 lease"] = lines[..] else { panic!("{text}") };
    assert!(head.starts_with("NAMESPACE") && group.contains("vault    shown"), "{text}");
    assert!(below.starts_with("  database/creds/app  ") && below.ends_with("renewable"), "{text}");
    let metrics = world.plugin.metrics().await.unwrap();
    assert!(metrics.contains(r#"evanesce_lease_groups{backend="vault",state="shown"} 1.0"#), "{metrics}");

    world.plugin.kill_engine().await.unwrap();
    let adopted = listed(&world.plugin, &[]).remove(0);
    assert_eq!((&adopted["group"], &adopted["state"]), (&shown["group"], &json!("shown")));
    assert_eq!(adopted["leases"], Value::Null, "nobody wrote them down");

    world.backend.kill();
    world.kubelet.unpublish(&volume).await.unwrap();
    let failed = || listed(&world.plugin, &["--returning"]).into_iter().find(|it| it["failures"].as_u64() > Some(1));
    let group = wait::until_some("it was tried twice", failed).await;
    assert_eq!((&group["group"], &group["cause"]), (&shown["group"], &json!("unmounted")));
    assert_eq!(group["last_error"]["kind"], "unavailable", "{group}");
    let text = String::from_utf8(world.plugin.leases(&[]).unwrap().stdout).unwrap();
    assert!(text.contains("returning (unmounted)") && text.contains("  unavailable ("), "{text}");
    assert!(text.ends_with("1 group, 0 leases and those of 1 earlier group, 1 not given back\n"), "{text}");
}

#[test]
fn who_is_not_root_is_told_nothing_of_leases() {
    let mut command = Command::new(binaries::evanesce().unwrap());
    let output = command.env_clear().arg("leases").uid(1000).gid(1000).output().unwrap();
    assert_eq!(output.status.code(), Some(77), "{output:?}");
}
