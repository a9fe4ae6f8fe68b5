// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Who may do what to one volume at one time.

use evanesce_proto::csi::NodePublishVolumeRequest;
use evanesce_proto::csi::volume_capability::AccessType;
use evanesce_proto::kubelet;
use futures_util::future::join_all;
use tokio::time::Instant;
use tonic::Code;

use crate::classes::EVERY;
use crate::fake_mounts::Call;
use crate::ground::{Node, code, generations, leave, published, until};

/// Time moves to the next refresh of a volume that was published just now, and the backend does not answer it.
async fn begin_a_refresh_that_hangs(node: &Node) {
    let before = node.backend.counts().logins;
    node.backend.hold();
    tokio::time::advance(EVERY).await;
    until("the refresh has begun", || node.backend.counts().logins > before).await;
}

#[tokio::test(start_paused = true)]
async fn aborted_is_heard_during_a_first_delivery_and_not_after_it() {
    let node = Node::new().await;
    let pod = node.pod("payments", "pod-1");
    node.backend.hold();
    let mut client = node.client();
    let request = pod.request();
    let first = tokio::spawn(async move { client.node_publish_volume(request).await });
    until("the backend is asked", || node.backend.counts().logins == 1).await;
    assert_eq!(code(node.publish(&pod).await), Code::Aborted);
    assert_eq!(code(node.unpublish(&pod).await), Code::Aborted);
    let other = node.pod("payments", "pod-2");
    assert_eq!(code(node.unpublish(&other).await), Code::Ok, "another volume is not concerned");
    node.backend.release();
    first.await.unwrap().unwrap();
    node.assert_whole(&pod, "first");
    assert_eq!(code(node.publish(&pod).await), Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn aborted_is_heard_during_an_unpublish_and_not_after_it() {
    let (node, pod) = published().await;
    node.mounts.hold(Call::Detach);
    let mut client = node.client();
    let request = leave(&pod);
    let leaving = tokio::spawn(async move { client.node_unpublish_volume(request).await });
    until("the unpublish is on its way", || node.mounts.count(Call::Detach) == 1).await;
    assert_eq!(code(node.publish(&pod).await), Code::Aborted);
    assert_eq!(code(node.unpublish(&pod).await), Code::Aborted);
    node.mounts.release(Call::Detach);
    leaving.await.unwrap().unwrap();
    node.assert_nothing_left(&pod);
    assert_eq!(code(node.publish(&pod).await), Code::Ok);
    node.assert_whole(&pod, "first");
}

#[tokio::test(start_paused = true)]
async fn a_republish_answers_while_a_refresh_holds_the_volume() {
    let (node, pod) = published().await;
    node.auditor.take();
    begin_a_refresh_that_hangs(&node).await;
    let begun = Instant::now();
    assert_eq!(code(node.publish(&pod).await), Code::Ok);
    assert_eq!(Instant::now(), begun, "time only moves when everything waits");
    assert!(node.auditor.events().is_empty(), "the refresh was to hang until now");
    node.backend.release();
}

#[tokio::test(start_paused = true)]
async fn an_unpublish_cancels_a_refresh_and_goes_on() {
    let (node, pod) = published().await;
    node.auditor.take();
    begin_a_refresh_that_hangs(&node).await;
    assert_eq!(code(node.unpublish(&pod).await), Code::Ok);
    assert_eq!(node.auditor.codes(), ["cancelled", "unmount"]);
    node.plugin.tasks.close();
    node.plugin.tasks.wait().await;
    node.assert_nothing_left(&pod);
    node.backend.release();
}

#[tokio::test(start_paused = true)]
async fn a_hundred_publishes_at_once_make_one_mount() {
    let node = Node::new().await;
    let pod = node.pod("payments", "pod-1");
    let answers = join_all((0..100).map(|_| node.publish(&pod))).await;
    let codes: Vec<_> = answers.into_iter().map(code).collect();
    assert!(codes.contains(&Code::Ok), "{codes:?}");
    assert!(codes.iter().all(|code| matches!(code, Code::Ok | Code::Aborted)), "{codes:?}");
    assert_eq!((node.mounts.count(Call::Make), node.mounts.count(Call::Attach)), (1, 1));
    let again = join_all((0..100).map(|_| node.publish(&pod))).await;
    assert!(again.iter().all(Result::is_ok));
    assert_eq!((node.mounts.count(Call::Make), node.mounts.count(Call::Attach)), (1, 1));
    node.assert_whole(&pod, "first");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_leaves_no_half_volume_and_its_retry_finds_a_whole_one() {
    for held in [Call::Make, Call::Own, Call::PutRecord, Call::Attach] {
        let node = Node::new().await;
        let pod = node.pod("payments", "pod-1");
        node.mounts.hold(held);
        let mut client = node.client();
        let request = pod.request();
        let call = tokio::spawn(async move { client.node_publish_volume(request).await });
        until("the delivery is half-way", || node.mounts.count(held) == 1).await;
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        assert_eq!(code(node.publish(&pod).await), Code::Aborted, "{held:?}: the delivery goes on");
        node.mounts.release(held);
        until("the delivery has ended", || !node.plugin.volumes.live().is_empty()).await;
        assert_eq!(code(node.publish(&pod).await), Code::Ok, "{held:?}");
        assert_eq!(node.mounts.count(Call::Make), 1, "{held:?}");
        node.assert_whole(&pod, "first");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_during_an_unpublish_finds_it_done() {
    let (node, pod) = published().await;
    node.mounts.hold(Call::DropRecord);
    let mut client = node.client();
    let request = leave(&pod);
    let call = tokio::spawn(async move { client.node_unpublish_volume(request).await });
    until("the unpublish is half-way", || node.mounts.count(Call::DropRecord) == 1).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    assert_eq!(code(node.unpublish(&pod).await), Code::Aborted);
    node.mounts.release(Call::DropRecord);
    until("the record is gone", || node.mounts.records().is_empty()).await;
    node.plugin.tasks.close();
    node.plugin.tasks.wait().await;
    node.assert_nothing_left(&pod);
}

#[tokio::test(start_paused = true)]
async fn an_unpublish_can_be_repeated_and_leaves_nothing() {
    let node = Node::new().await;
    let pod = node.pod("payments", "pod-1");
    assert_eq!(code(node.unpublish(&pod).await), Code::Ok, "of a volume that never was");
    node.publish(&pod).await.unwrap();
    for _ in 0..3 {
        assert_eq!(code(node.unpublish(&pod).await), Code::Ok);
        node.assert_nothing_left(&pod);
    }
    let unmounted = node.auditor.codes().into_iter().filter(|code| *code == "unmount").count();
    assert_eq!(unmounted, 1, "each unmount is audited once");
}

#[tokio::test(start_paused = true)]
async fn a_failed_unpublish_is_repeated_until_it_is_done() {
    for failing in [Call::Detach, Call::DropRecord] {
        let (node, pod) = published().await;
        node.mounts.fail_next(failing, evanesce_engine::error::Kind::Internal);
        assert_eq!(code(node.unpublish(&pod).await), Code::Internal, "{failing:?}");
        assert_eq!(code(node.publish(&pod).await), Code::Aborted, "{failing:?}: it is on its way out");
        assert_eq!(code(node.unpublish(&pod).await), Code::Ok, "{failing:?}");
        node.assert_nothing_left(&pod);
        let unmounted = node.auditor.codes().into_iter().filter(|code| *code == "unmount").count();
        assert_eq!(unmounted, 1, "{failing:?}: the audit has it once, when it is done");
    }
}

#[tokio::test(start_paused = true)]
async fn a_republish_mounts_again_what_somebody_unmounted() {
    let (node, pod) = published().await;
    node.mounts.unmount(pod.target_path());
    assert_eq!(code(node.publish(&pod).await), Code::Ok);
    node.assert_whole(&pod, "first");
    assert_eq!((node.mounts.count(Call::Make), generations(&pod).1.as_str()), (1, "..g1"));
}

#[tokio::test(start_paused = true)]
async fn a_republish_with_other_parameters_already_exists() {
    let node = Node::new().await;
    node.classes.set("other", crate::classes::spec(&["f kv/db password"]));
    let pod = node.pod("payments", "pod-1");
    node.publish(&pod).await.unwrap();
    type Break = fn(&mut NodePublishVolumeRequest);
    let table: &[(&str, Break)] = &[
        ("target_path", |r| r.target_path += "-other"),
        ("volume_mount_group", |r| match r.volume_capability.as_mut().unwrap().access_type.as_mut().unwrap() {
            AccessType::Mount(mount) => mount.volume_mount_group = "2000".into(),
            AccessType::Block(_) => unreachable!(),
        }),
        ("secretVolume", |r| drop(r.volume_context.insert("secretVolume".into(), "other".into()))),
        ("pod", |r| drop(r.volume_context.insert(kubelet::POD_UID.into(), "pod-2".into()))),
        ("pod", |r| drop(r.volume_context.insert(kubelet::POD_NAMESPACE.into(), "team-a".into()))),
        ("service account", |r| drop(r.volume_context.insert(kubelet::SERVICE_ACCOUNT_NAME.into(), "other".into()))),
    ];
    for (named, change) in table {
        let mut request = pod.request();
        change(&mut request);
        let status = node.send(request).await.unwrap_err();
        assert_eq!(status.code(), Code::AlreadyExists, "{named}");
        assert!(status.message().contains(named), "{named}: {}", status.message());
    }
    assert_eq!(code(node.publish(&pod).await), Code::Ok);
    assert_eq!((node.mounts.count(Call::Make), node.mounts.count(Call::Attach)), (1, 1));
}
