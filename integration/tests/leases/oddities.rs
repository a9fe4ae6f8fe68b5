// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What a role or a class asks for and cannot have.

use evanesce_integration::plugin::Plugin;
use evanesce_integration::wait;
use evanesce_integration::world::{AUDIENCE, Setup};
use serde_json::json;

use crate::ground::{Left, assert_nothing_lent, beneath, class, events, ground, replaced};

/// The lines of the plugin's log that say this.
fn said(plugin: &Plugin, what: &str) -> usize {
    plugin.log().lines().filter(|line| line.contains(what)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_is_said_once_with_its_cure_and_the_pod_has_what_it_needs() {
    let patient = class("short").replace("overlap: 1s", "overlap: 10m").replace("name: short", "name: patient");
    let (world, postgres) = ground(Setup::default().class(&patient)).await;
    let admin = world.backend.admin();
    // Neither renew-self nor sys/leases/renew nor revoke-self, all of which the policy `default` has.
    let role = json!({
        "bound_service_account_names": "app", "bound_service_account_namespaces": "payments", "audience": AUDIENCE,
        "token_policies": "payments", "token_no_default_policy": true, "token_ttl": "10m",
    });
    admin.write("auth/kubernetes/role/app", &role).await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "patient");
    world.kubelet.publish(&volume).await.unwrap();
    let replaced = || events(&world.plugin, "revoke").len();
    wait::until("three leases were replaced, and their overlap cut", || replaced() >= 3).await;
    let (role, password) = beneath(volume.target_path());
    postgres.log_in(&role, &password).await.unwrap();
    let line = "lower spec.leases.overlap, or raise default_ttl of the role";
    assert_eq!(said(&world.plugin, line), 1, "{}", world.plugin.log());
    assert_eq!(
        said(&world.plugin, "lack update on auth/token/renew-self or sys/leases/renew"),
        1,
        "{}",
        world.plugin.log()
    );
    for revoked in events(&world.plugin, "revoke") {
        assert_eq!(revoked["status"], "Failure", "{revoked}");
    }
    assert!(said(&world.plugin, "lack update on auth/token/revoke-self") >= 3);
    assert_eq!(said(&world.plugin, "volume is stale"), 0, "{}", world.plugin.log());
    world.kubelet.unpublish(&volume).await.unwrap();
    assert_nothing_lent(&world.plugin, &world.backend, &postgres, Left::None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_of_two_seconds_is_said_once_with_what_it_costs_and_its_cure() {
    let (world, postgres) = ground(Setup::default()).await;
    let volume = world.volume(&world.pod("payments", "app"), "brief");
    world.kubelet.publish(&volume).await.unwrap();
    wait::until("three leases were replaced", || replaced(&world.plugin, &volume) >= 3).await;
    let line = "because that is two thirds of its life: raise its TTL (default_ttl of the role)";
    assert_eq!(said(&world.plugin, line), 1, "{}", world.plugin.log());
    world.kubelet.unpublish(&volume).await.unwrap();
    assert_nothing_lent(&world.plugin, &world.backend, &postgres, Left::None).await;
}
