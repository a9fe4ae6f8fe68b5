// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What the operator is told of what is lent, by listing and by metrics, whatever becomes of it.

use std::time::Duration;

use evanesce_engine::backend::BackendErrorKind;
use evanesce_engine::spec::VolumeSpec;
use evanesce_proto::node::node_admin_client::NodeAdminClient;
use evanesce_proto::node::{LeaseGroup, LeaseState, ListLeasesRequest};
use tokio::time::advance;

use crate::fake_mounts::Call;
use crate::ground::{Node, leased, settle, until};

const SECOND: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(600);
/// When a lease is prolonged or replaced.
const DUE: Duration = Duration::from_secs(400);

impl Node {
    /// By state.
    async fn groups(&self) -> Vec<LeaseGroup> {
        let listing = NodeAdminClient::new(self.channel.clone()).list_leases(ListLeasesRequest {}).await;
        let mut groups = listing.unwrap().into_inner().groups;
        groups.sort_by_key(|group| group.state);
        groups
    }

    /// The only one there is.
    async fn group(&self) -> LeaseGroup {
        let mut groups = self.groups().await;
        assert_eq!(groups.len(), 1, "{groups:?}");
        groups.remove(0)
    }

    /// The password changes, and what is lent is due.
    async fn replace(&self) {
        self.backend.put("kv/db", &[("username", "app"), ("password", "second")]);
        advance(DUE).await;
        until("it is replaced", || self.refreshed("ok", 1)).await;
    }

    fn assert_counts(&self, sample: &str) {
        assert!(self.counts(&format!("evanesce_{sample}")), "{sample} in\n{}", self.metrics.encode());
    }
}

fn next(group: &LeaseGroup) -> u64 {
    group.next_in.unwrap().seconds.cast_unsigned()
}

fn ends(group: &LeaseGroup) -> [u64; 2] {
    [group.ends_in, group.leases[0].ends_in].map(|left| left.unwrap().seconds.cast_unsigned())
}

const DAY: u64 = 24 * 3600;

#[tokio::test(start_paused = true)]
async fn what_a_volume_shows_is_listed_with_its_leases_their_ends_and_when_it_is_seen_to() {
    let (node, pod) = leased(LEASE).await;
    let group = node.group().await;
    assert_eq!((group.state(), group.volume.as_str()), (LeaseState::Shown, pod.volume_id()));
    let whose = [&group.namespace, &group.pod, &group.pod_uid, &group.service_account, &group.class, &group.backend];
    assert_eq!(whose, ["payments", "web-0", "pod-1", "app", "db", "store"]);
    assert_eq!(node.mounts.leases()[0].as_str(), group.id, "the journal's name");
    let [lease] = &group.leases[..] else { panic!("{group:?}") };
    assert_eq!((lease.path.as_str(), lease.renewable, group.leases_known), ("fake/kv/db", true, true));
    assert_eq!((next(&group), ends(&group)), (DUE.as_secs(), [DAY, 600]));

    advance(100 * SECOND).await;
    let later = node.group().await;
    assert_eq!((next(&later), ends(&later)), (DUE.as_secs() - 100, [DAY - 100, 500]));
    node.backend.prolong();
    advance(DUE - 100 * SECOND).await;
    until("it is prolonged", || node.refreshed("unchanged", 1)).await;
    let prolonged = node.group().await;
    assert_eq!((next(&prolonged), ends(&prolonged)), (DUE.as_secs(), [DAY, 600]));
    assert_eq!((&prolonged.id, &prolonged.leases[0].id_digest), (&group.id, &lease.id_digest));
}

#[tokio::test(start_paused = true)]
async fn a_leases_id_is_listed_as_a_digest_and_its_login_not_at_all() {
    let (node, _pod) = leased(LEASE).await;
    let (ids, listed) = (node.backend.lent(), node.group().await);
    let said = format!("{listed:?}");
    assert!(!said.contains(&ids[0]) && !said.contains("token-1") && !said.contains("first"), "{said}");
    assert_eq!(listed.leases[0].id_digest.len(), 64);
    node.replace().await;
    let [one, other] = &node.groups().await[..] else { panic!("there are two") };
    assert_ne!(one.leases[0].id_digest, other.leases[0].id_digest);
}

#[tokio::test(start_paused = true)]
async fn what_is_replaced_is_listed_until_its_overlap_is_over() {
    let (node, _pod) = leased(LEASE).await;
    node.replace().await;
    let [shown, replaced] = &node.groups().await[..] else { panic!("there are two") };
    assert_eq!([shown.state(), replaced.state()], [LeaseState::Shown, LeaseState::Replaced]);
    assert_eq!(next(replaced), VolumeSpec::DEFAULT_OVERLAP.as_secs());
    advance(VolumeSpec::DEFAULT_OVERLAP + SECOND).await;
    until("it is given back", || node.backend.lent().len() == 1 && node.mounts.leases().len() == 1).await;
    settle().await;
    assert_eq!(node.group().await.state(), LeaseState::Shown);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_given_back_is_listed_with_why_and_when_it_is_tried_again() {
    let (node, pod) = leased(LEASE).await;
    node.backend.fail(BackendErrorKind::Unavailable, None);
    node.unpublish(&pod).await.unwrap();
    until("it was tried", || node.backend.counts().revocations == 1).await;
    settle().await;
    let group = node.group().await;
    assert_eq!((group.state(), group.cause.as_str(), group.failures), (LeaseState::Returning, "unmounted", 1));
    let error = group.last_error.clone().unwrap();
    assert!(error.kind == "unavailable" && error.message.contains("backend store cannot be reached"), "{error:?}");
    assert!(next(&group) <= 2, "{group:?}");
    advance(20 * SECOND).await;
    settle().await;
    assert!(node.group().await.failures > 1);
    node.backend.recover();
    advance(120 * SECOND).await;
    until("it is back", || node.mounts.leases().is_empty()).await;
    settle().await;
    assert!(node.groups().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn of_what_an_earlier_engine_half_borrowed_the_leases_are_said_to_be_unknown() {
    let (node, _pod) = leased(LEASE).await;
    let node = node.restart().await;
    let group = node.group().await;
    assert_eq!((group.state(), group.leases_known, group.leases.len()), (LeaseState::Shown, false, 0));
    assert_eq!(group.ends_in, None, "it may have been prolonged");
    assert!(next(&group) <= DUE.as_secs());
}

#[tokio::test(start_paused = true)]
async fn what_was_borrowed_for_another_versions_volume_is_listed_as_found() {
    let (node, pod) = leased(LEASE).await;
    let ours = node.mounts.records().into_values().next().unwrap();
    let theirs = String::from_utf8(ours).unwrap().replace("\"version\":1,", "\"version\":2,").into_bytes();
    node.mounts.set_record(pod.volume_id(), theirs);
    let node = node.restart().await;
    settle().await;
    assert_eq!(node.group().await.state(), LeaseState::Found);
}

#[tokio::test(start_paused = true)]
async fn what_is_borrowed_for_a_pod_that_waits_is_listed_as_being_delivered() {
    let node = Node::new().await;
    node.backend.lease("kv/db", LEASE);
    let pod = node.pod("payments", "pod-1");
    node.mounts.hold(Call::Attach);
    let meanwhile = async {
        until("it is being delivered", || node.mounts.count(Call::Attach) == 1).await;
        let group = node.group().await;
        assert_eq!((group.state(), group.leases.len()), (LeaseState::Delivering, 1));
        node.mounts.release(Call::Attach);
    };
    let (published, ()) = tokio::join!(node.publish(&pod), meanwhile);
    published.unwrap();
}

#[tokio::test(start_paused = true)]
async fn groups_and_leases_are_counted_through_their_lives() {
    let (node, pod) = leased(LEASE).await;
    node.assert_counts(r#"lease_groups{backend="vault",state="shown"} 1.0"#);
    node.assert_counts(r#"leases{backend="vault"} 1.0"#);
    node.backend.prolong();
    advance(DUE).await;
    until("it is prolonged", || node.refreshed("unchanged", 1)).await;
    node.assert_counts(r#"lease_renewals_total{backend="vault",outcome="prolonged"} 1"#);
    node.assert_counts(r#"lease_renewals_total{backend="vault",outcome="replaced"} 0"#);
    node.backend.lease("kv/db", LEASE / 2);
    node.replace().await;
    // It was prolonged once more, by too little.
    node.assert_counts(r#"lease_renewals_total{backend="vault",outcome="prolonged"} 1"#);
    node.assert_counts(r#"lease_renewals_total{backend="vault",outcome="replaced"} 1"#);
    node.assert_counts(r#"lease_groups{backend="vault",state="replaced"} 1.0"#);
    node.assert_counts(r#"leases{backend="vault"} 2.0"#);
    node.assert_counts("lease_groups_returning_longest_seconds{} 0.0");

    node.backend.fail(BackendErrorKind::Unavailable, None);
    node.unpublish(&pod).await.unwrap();
    settle().await;
    advance(100 * SECOND).await;
    settle().await;
    node.assert_counts(r#"lease_groups{backend="vault",state="returning"} 2.0"#);
    node.assert_counts("lease_groups_returning_longest_seconds{} 100.0");
    node.backend.recover();
    advance(120 * SECOND).await;
    until("both are back", || node.mounts.leases().is_empty()).await;
    node.assert_counts(r#"lease_revocations_total{backend="vault",cause="unmounted",outcome="ok"} 2"#);
    node.assert_counts(r#"lease_groups{backend="vault",state="returning"} 0.0"#);

    node.publish(&pod).await.unwrap();
    node.backend.refuse_revocations();
    node.unpublish(&pod).await.unwrap();
    until("it was refused", || node.mounts.leases().is_empty()).await;
    settle().await;
    node.assert_counts(r#"lease_revocations_total{backend="vault",cause="unmounted",outcome="failed"} 1"#);
}
