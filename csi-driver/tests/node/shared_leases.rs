// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `leases.scope: serviceAccount`: the volumes of a service account show one credential, and the last of them gives it back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use evanesce_engine::backend::BackendErrorKind;
use evanesce_engine::backend::fake::FakeBackend;
use evanesce_engine::lease::Cause;
use evanesce_engine::spec::VolumeSpec;
use evanesce_engine::spec::volume::LeaseScope;
use evanesce_proto::kubelet::Publish;
use evanesce_proto::node::node_admin_client::NodeAdminClient;
use evanesce_proto::node::{LeaseGroup, ListLeasesRequest, RefreshRequest};
use futures_util::future::join_all;
use tokio::time::advance;
use tonic::Code;

use crate::accounts::{pod, pod_with, token};
use crate::classes::spec;
use crate::ground::{FAR, Node, code, generations, settle, until};

const SECOND: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(600);
/// When a lease is prolonged or replaced.
const DUE: Duration = Duration::from_secs(400);
const FILES: [&str; 2] = ["username kv/db username", "password kv/db password"];

/// A class of what is lent, shared.
fn class(files: &[&str]) -> VolumeSpec {
    VolumeSpec { lease_scope: LeaseScope::ServiceAccount, ..spec(files) }
}

async fn node_of(backend: FakeBackend) -> Node {
    backend.put("kv/db", &[("username", "app"), ("password", "first")]);
    backend.lease("kv/db", LEASE);
    let node = Node::asking(backend).await;
    node.classes.set("db", class(&FILES));
    node
}

async fn node() -> Node {
    node_of(FakeBackend::new("store").with_kind("vault")).await
}

async fn published(node: &Node, pods: usize) -> Vec<Publish> {
    let pods: Vec<_> = (0..pods).map(|number| pod(node, &format!("pod-{number}"))).collect();
    for published in join_all(pods.iter().map(|pod| node.publish(pod))).await {
        published.unwrap();
    }
    pods
}

async fn groups(node: &Node) -> Vec<LeaseGroup> {
    let listing = NodeAdminClient::new(node.channel.clone()).list_leases(ListLeasesRequest {}).await;
    listing.unwrap().into_inner().groups
}

#[tokio::test(start_paused = true)]
async fn pods_that_start_together_are_lent_one_credential_and_the_last_gives_it_back() {
    let node = node().await;
    let pods = published(&node, 20).await;
    let counts = node.backend.counts();
    assert_eq!((counts.logins, counts.fetches, node.backend.lent().len()), (1, 1, 1));
    let [group] = &groups(&node).await[..] else { panic!("not one group") };
    assert_eq!((group.shared, group.volumes), (true, 20));
    let (last, others) = pods.split_last().unwrap();
    for pod in others {
        node.assert_whole(pod, "first");
        node.unpublish(pod).await.unwrap();
    }
    settle().await;
    assert_eq!((node.backend.lent().len(), node.revoked().len()), (1, 0), "taken from a pod that shows it");
    node.assert_whole(last, "first");
    node.unpublish(last).await.unwrap();
    until("it is back", || node.revoked() == [(Cause::Unmounted, true)]).await;
    node.assert_nothing_lent();
}

#[tokio::test(start_paused = true)]
async fn another_account_and_an_account_that_was_made_again_have_their_own() {
    let node = node().await;
    published(&node, 2).await;
    let other = pod_with(&node, "other", "web", &token("web", "sa-9", "web-0", "other"), FAR);
    let again = pod_with(&node, "again", "app", &token("app", "sa-2", "web-0", "again"), FAR);
    // A token that names no uid may be of either account.
    let nobody = |uid| pod_with(&node, uid, "app", "t0ken", FAR);
    for (pod, lent) in [(other, 2), (again, 3), (nobody("nobody"), 4), (nobody("no-other"), 5)] {
        node.publish(&pod).await.unwrap();
        assert_eq!(node.backend.lent().len(), lent);
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_backend_tells_pods_apart_each_has_its_own() {
    let node = node_of(FakeBackend::new("store").with_kind("vault").seeing_pods()).await;
    published(&node, 3).await;
    assert_eq!(node.backend.lent().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn each_path_has_a_login_of_its_own_so_classes_share_what_they_have_in_common() {
    let node = node().await;
    node.backend.put("kv/queue", &[("password", "queue")]);
    node.backend.lease("kv/queue", LEASE);
    node.classes.set("both", class(&["username kv/db username", "queue kv/queue password"]));
    published(&node, 2).await;
    let both = pod(&node, "both").attribute("secretVolume", "both");
    node.publish(&both).await.unwrap();
    assert_eq!((node.backend.counts().logins, node.backend.lent().len()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn one_volume_prolongs_it_for_all() {
    let node = node().await;
    node.backend.prolong();
    let pods = published(&node, 10).await;
    for round in 1..=20 {
        advance(DUE).await;
        until("all are prolonged", || node.refreshed("unchanged", 10 * round)).await;
        // The login and the lease.
        assert_eq!(node.backend.counts().renewals, 2 * round);
    }
    assert_eq!(node.backend.counts().fetches, 1);
    pods.iter().for_each(|pod| node.assert_whole(pod, "first"));
}

#[tokio::test(start_paused = true)]
async fn it_is_replaced_once_for_all_and_stays_valid_for_the_overlap_of_the_last() {
    let node = node().await;
    let pods = published(&node, 10).await;
    let first = node.backend.lent();
    node.change("second");
    advance(DUE).await;
    until("all are replaced", || node.refreshed("ok", 10)).await;
    for pod in &pods {
        node.assert_whole(pod, "second");
        assert_eq!(generations(pod).1, "..g2");
    }
    assert_eq!((node.backend.counts().logins, node.backend.lent().len()), (2, 2));
    advance(VolumeSpec::DEFAULT_OVERLAP - SECOND).await;
    settle().await;
    assert!(node.backend.lent().starts_with(&first), "given back before its overlap was over");
    advance(2 * SECOND).await;
    until("it is given back", || node.revoked() == [(Cause::Replaced, true)]).await;
    assert_ne!(node.backend.lent(), first);
    assert!(node.counts("evanesce_lease_renewals_total{backend=\"vault\",outcome=\"replaced\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn who_is_refreshed_by_an_operator_takes_the_newest_or_makes_it() {
    let node = node().await;
    let pods = published(&node, 2).await;
    let refresh = async |pod: &Publish, password| {
        node.change(password);
        let volumes = vec![pod.volume_id().to_owned()];
        let wait = Some(SECOND.try_into().unwrap());
        let request = RefreshRequest { volumes, wait };
        NodeAdminClient::new(node.channel.clone()).refresh(request).await.unwrap();
    };
    refresh(&pods[0], "second").await;
    node.assert_whole(&pods[0], "second");
    node.assert_whole(&pods[1], "first");
    refresh(&pods[1], "third").await;
    node.assert_whole(&pods[1], "second");
    assert_eq!(node.backend.counts().fetches, 2);
    refresh(&pods[1], "fourth").await;
    node.assert_whole(&pods[1], "fourth");
    assert_eq!(node.backend.counts().fetches, 3);
}

#[tokio::test(start_paused = true)]
async fn who_comes_later_shows_it_for_what_is_left_of_it() {
    let node = node().await;
    published(&node, 1).await;
    advance(DUE / 2).await;
    let late = pod(&node, "late");
    node.publish(&late).await.unwrap();
    assert_eq!(node.backend.counts().fetches, 1);
    node.change("second");
    // Two thirds of the 400 s that were left.
    advance(Duration::from_secs(266)).await;
    until("the first is replaced", || node.refreshed("ok", 1)).await;
    settle().await;
    node.assert_whole(&late, "first");
    advance(SECOND).await;
    until("the late one has what the first has", || node.refreshed("ok", 2)).await;
    node.assert_whole(&late, "second");
    assert_eq!(node.backend.counts().fetches, 2);
}

#[tokio::test(start_paused = true)]
async fn who_comes_after_the_machine_slept_is_not_given_what_has_ended() {
    let node = node().await;
    published(&node, 1).await;
    node.clock.ahead.store(LEASE.as_secs().try_into().unwrap(), Ordering::Relaxed);
    node.change("second");
    let late = pod(&node, "late");
    node.publish(&late).await.unwrap();
    node.assert_whole(&late, "second");
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_heard_by_all_who_wait_and_asked_for_once() {
    let node = node().await;
    node.backend.hold();
    node.backend.deny("kv/db");
    let pods: Vec<_> = (0..20).map(|number| pod(&node, &format!("pod-{number}"))).collect();
    let all = join_all(pods.iter().map(|pod| node.publish(pod)));
    let release = async {
        until("somebody asks", || node.backend.counts().logins == 1).await;
        settle().await;
        node.backend.release();
    };
    let (heard, ()) = tokio::join!(all, release);
    assert!(heard.into_iter().all(|result| code(result) == Code::PermissionDenied));
    assert_eq!((node.backend.counts().logins, node.backend.counts().fetches), (1, 1));
    until("the login is ended", || node.revoked() == [(Cause::Undelivered, true)]).await;
    node.assert_nothing_lent();
}

#[tokio::test(start_paused = true)]
async fn who_cannot_prove_itself_spoils_it_for_nobody() {
    let node = node().await;
    node.backend.hold();
    node.backend.fail_next(BackendErrorKind::Unauthenticated, None);
    let pods: Vec<_> = (0..3).map(|number| pod(&node, &format!("pod-{number}"))).collect();
    let all = join_all(pods.iter().map(|pod| node.publish(pod)));
    let release = async {
        settle().await;
        node.backend.release();
    };
    let (heard, ()) = tokio::join!(all, release);
    assert_eq!(heard.iter().filter(|result| result.is_err()).count(), 1, "{heard:?}");
    assert_eq!(node.backend.lent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_turns_out_not_to_be_lent_is_each_volumes_own() {
    let node = node().await;
    node.backend.lease_nothing("kv/db");
    published(&node, 3).await;
    until("the logins are ended", || node.revoked() == [(Cause::Empty, true); 3]).await;
    node.assert_nothing_lent();
}

#[tokio::test(start_paused = true)]
async fn an_engine_half_that_starts_keeps_it_while_any_volume_shows_it() {
    let node = node().await;
    let pods = published(&node, 3).await;
    // Whoever borrowed it is gone before the other engine half starts, or after it.
    node.unpublish(&pods[0]).await.unwrap();
    let node = node.restart().await;
    settle().await;
    assert_eq!((node.backend.lent().len(), node.mounts.leases().len(), node.revoked().len()), (1, 1, 0));
    node.unpublish(&pods[1]).await.unwrap();
    settle().await;
    assert_eq!((node.backend.lent().len(), node.revoked().len()), (1, 0), "taken from a pod that shows it");
    node.assert_whole(&pods[2], "first");
    node.unpublish(&pods[2]).await.unwrap();
    until("it is back", || node.revoked() == [(Cause::Unmounted, true)]).await;
    node.assert_nothing_lent();
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_one_credential_takes_the_place_of_the_one_that_nobody_can_prolong() {
    let node = node().await;
    node.backend.prolong();
    let pods = published(&node, 5).await;
    node.change("second");
    let node = node.restart().await;
    for pod in &pods {
        node.publish(pod).await.unwrap();
    }
    advance(DUE).await;
    until("all are replaced", || node.refreshed("ok", 5)).await;
    pods.iter().for_each(|pod| node.assert_whole(pod, "second"));
    assert_eq!(node.backend.lent().len(), 2);
    advance(VolumeSpec::DEFAULT_OVERLAP + SECOND).await;
    until("the old one is back", || node.revoked() == [(Cause::Replaced, true)]).await;
    assert_eq!((node.backend.lent().len(), node.mounts.leases().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_engine_half_that_starts_gives_back_what_was_shared_by_volumes_that_are_gone() {
    let node = node().await;
    for pod in published(&node, 2).await {
        // The record goes last, so this is what a death between the two leaves.
        node.mounts.unmount(pod.target_path());
    }
    let node = node.restart().await;
    until("the orphan is back", || node.revoked() == [(Cause::Orphaned, true)]).await;
    node.assert_nothing_lent();
}
