// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A client that logs in all the time never fails, however its credentials come to their end.

use std::collections::BTreeSet;
use std::time::Duration;

use evanesce_integration::openbao::OpenBao;
use evanesce_integration::wait;
use evanesce_integration::world::{Setup, World};
use evanesce_proto::kubelet::Publish;
use futures_util::future::join_all;
use serde_json::json;

use crate::ground::{Clients, HASTY, Left, assert_nothing_lent, class_of, events, ground, replaced, whole};

/// How many leases logins are tried over.
const LEASES: usize = 20;

/// How often OpenBao changes the password of a static role.
const PERIOD: Duration = Duration::from_secs(20);

/// How often OpenBao was asked for something.
fn asked(world: &World<OpenBao>, path: &str) -> usize {
    world.backend.requests().unwrap().iter().filter(|request| request.path == path).count()
}

async fn published(world: &World<OpenBao>, classes: &[&str]) -> Vec<Publish> {
    let account = world.pod("payments", "app");
    let pods = (0..classes.len()).map(|number| account.sibling(&format!("app-{number}")));
    let volumes: Vec<_> = pods.zip(classes).map(|(pod, class)| world.volume(&pod, class)).collect();
    let published = join_all(volumes.iter().map(|volume| world.kubelet.publish(volume))).await;
    published.into_iter().for_each(Result::unwrap);
    volumes
}

#[tokio::test(flavor = "multi_thread")]
async fn over_twenty_leases_of_each_pod_every_login_succeeds_and_then_no_role_is_left() {
    let (world, postgres) = ground(Setup::default()).await;
    // Those of `swift` are at their last end from the start; those of `short` are prolonged once before.
    let volumes = published(&world, &["swift", "swift", "short"]).await;
    let [first, second, short] = &volumes[..] else { panic!("three volumes") };
    let clients = Clients::of(&volumes, &postgres);
    for lease in 1..=LEASES {
        let what = format!("lease {lease} of each pod is given back");
        clients.until(&what, || [first, second].iter().all(|volume| replaced(&world.plugin, volume) >= lease)).await;
    }
    clients.until("what was prolonged is replaced, too", || replaced(&world.plugin, short) >= 5).await;
    clients.end(&world.plugin).await;
    // Each lease is of a login of its own, and some were prolonged.
    assert!(asked(&world, "auth/kubernetes/login") >= 2 * LEASES + 5);
    assert!(asked(&world, "auth/token/renew-self") >= 5);
    for volume in &volumes {
        world.kubelet.unpublish(volume).await.unwrap();
    }
    assert_nothing_lent(&world.plugin, &world.backend, &postgres, Left::None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_one_account_log_in_with_one_credential_at_a_time_until_the_last_of_them_goes() {
    let (world, postgres) = ground(Setup::default()).await;
    let volumes = published(&world, &["swift-shared"; 4]).await;
    let shown: BTreeSet<_> = volumes.iter().map(|volume| whole(volume.target_path())).collect();
    assert_eq!((shown.len(), postgres.roles().await.unwrap().len()), (1, 1), "{shown:?}");
    let clients = Clients::of(&volumes, &postgres);
    let given_back = || events(&world.plugin, "revoke").len();
    for lease in 1..=5 {
        clients.until(&format!("lease {lease} is given back"), || given_back() >= lease).await;
    }
    clients.end(&world.plugin).await;
    // One is shown, one may be in its overlap, and one may be in the making.
    let lent = asked(&world, "database/creds/swift");
    assert!(lent <= given_back() + 3, "{lent} were lent, {} given back", given_back());
    let (last, others) = volumes.split_last().unwrap();
    for volume in others {
        world.kubelet.unpublish(volume).await.unwrap();
    }
    let (role, password) = whole(last.target_path());
    postgres.log_in(&role, &password).await.unwrap();
    world.kubelet.unpublish(last).await.unwrap();
    assert_nothing_lent(&world.plugin, &world.backend, &postgres, Left::None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lent_by_a_login_that_ends_before_it_is_replaced_before_the_login_ends() {
    let (world, postgres) = ground(Setup::default()).await;
    let volume = world.volume(&world.pod("payments", HASTY), "app");
    world.kubelet.publish(&volume).await.unwrap();
    let volumes = [volume];
    let clients = Clients::of(&volumes, &postgres);
    // Each lease would have lived for thirty seconds, and a login lives for six, or twelve where it is prolonged.
    clients.until("three logins were replaced", || replaced(&world.plugin, &volumes[0]) >= 3).await;
    clients.end(&world.plugin).await;
    assert!(asked(&world, "auth/token/renew-self") >= 3, "each was prolonged first");
    world.kubelet.unpublish(&volumes[0]).await.unwrap();
    assert_nothing_lent(&world.plugin, &world.backend, &postgres, Left::None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_role_logs_in_again_seconds_after_its_password_was_changed_and_nothing_is_lent() {
    let from = "from: {backend: vault, secret: database/static-creds/fixed";
    let class = class_of("fixed", "unused", "overlap: 1s");
    let (head, _) = class.split_once("  files:").unwrap();
    let class = format!(
        "{head}  files:\n    - {{path: username, {from}, key: username}}}}\n    - {{path: password, {from}, key: password}}}}\n    \
         - {{path: db.json, {from}}}}}\n"
    );
    let (world, postgres) = ground(Setup::default()).await;
    postgres.make_role("fixed").await.unwrap();
    let role = json!({"db_name": "postgres", "username": "fixed", "rotation_period": PERIOD.as_secs()});
    world.backend.admin().write("database/static-roles/fixed", &role).await.unwrap();
    world.classes("fixed.yaml", &class).unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "fixed");
    wait::until_ready("the class is known", async || world.kubelet.publish(&volume).await.ok()).await;
    let (role, first) = whole(volume.target_path());
    assert_eq!(role, "fixed");
    postgres.log_in(&role, &first).await.unwrap();
    let changed = async || (whole(volume.target_path()).1 != first).then_some(());
    wait::until_ready_within(PERIOD + wait::SOON, "the new password is shown", changed).await;
    let (role, password) = whole(volume.target_path());
    postgres.log_in(&role, &password).await.unwrap();
    let journal = world.plugin.csi_socket().with_file_name("leases");
    let is_empty = || std::fs::read_dir(&journal).unwrap().next().is_none();
    wait::until("logins that lent nothing are ended", is_empty).await;
}
