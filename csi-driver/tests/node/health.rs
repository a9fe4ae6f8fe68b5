// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What is said of a volume's health, to a caller of either age.

use std::time::Duration;

use evanesce_engine::backend::BackendErrorKind;
use evanesce_proto::csi::volume_usage::Unit;
use evanesce_proto::csi::{
    NodeGetStorageHealthRequest, NodeGetVolumeHealthRequest, NodeGetVolumeStatsRequest, VolumeCondition, VolumeHealth,
    VolumeHealthErrorType,
};
use evanesce_proto::kubelet::Publish;
use tokio::time::advance;
use tonic::{Code, Status};

use crate::classes::EVERY;
use crate::ground::{Node, code, published, until};

fn path(pod: &Publish) -> String {
    pod.target_path().to_str().unwrap().to_owned()
}

async fn condition(node: &Node, pod: &Publish) -> VolumeCondition {
    let request =
        NodeGetVolumeStatsRequest { volume_id: pod.volume_id().into(), volume_path: path(pod), ..Default::default() };
    let answer = node.client().node_get_volume_stats(request).await.unwrap().into_inner();
    for unit in [Unit::Bytes, Unit::Inodes] {
        let usage = answer.usage.iter().find(|usage| usage.unit() == unit).unwrap();
        assert!(usage.total > 0 && usage.used >= 0 && usage.available >= 0, "{usage:?}");
    }
    answer.volume_condition.unwrap()
}

async fn health(node: &Node, volume_id: &str, path: &str) -> Result<VolumeHealth, Status> {
    let request = NodeGetVolumeHealthRequest {
        volume_id: volume_id.into(),
        volume_publish_path: path.into(),
        ..Default::default()
    };
    node.client().node_get_volume_health(request).await.map(|answer| answer.into_inner().volume_health.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_stale_volume_is_abnormal_to_old_callers_and_degraded_to_new_ones_until_it_is_fresh() {
    let (node, pod) = published().await;
    assert!(!condition(&node, &pod).await.abnormal);
    let well = health(&node, pod.volume_id(), "").await.unwrap();
    assert_eq!((well.volume_id.as_str(), well.health_statuses.len()), (pod.volume_id(), 0));

    node.backend.fail(BackendErrorKind::Unavailable, None);
    advance(EVERY).await;
    until("the volume is stale", || node.counts("evanesce_volumes_stale{} 1.0")).await;
    let told = condition(&node, &pod).await;
    let ill = health(&node, pod.volume_id(), &path(&pod)).await.unwrap();
    let [entry] = &ill.health_statuses[..] else { panic!("{ill:?}") };
    assert_eq!((entry.status(), entry.reason.as_str()), (VolumeHealthErrorType::Degraded, "Stale"));
    assert!(told.abnormal && told.message == entry.message, "{told:?}, {entry:?}");
    assert!(told.message.contains("backend store cannot be reached"), "{told:?}");

    node.backend.recover();
    advance(Duration::from_secs(13)).await;
    until("the volume is fresh", || node.counts("evanesce_volumes_stale{} 0.0")).await;
    assert!(!condition(&node, &pod).await.abnormal);
    assert!(health(&node, pod.volume_id(), "").await.unwrap().health_statuses.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_question_is_answered_while_a_backend_is_silent() {
    let (node, pod) = published().await;
    node.backend.hold();
    let logins = node.backend.counts().logins;
    advance(EVERY).await;
    until("the refresh has begun", || node.backend.counts().logins > logins).await;
    // A test that waited would let the paused time run to the refresh's end.
    assert!(!condition(&node, &pod).await.abnormal);
    assert!(health(&node, pod.volume_id(), "").await.unwrap().health_statuses.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stale_volume_is_stale_also_while_a_refresh_holds_it() {
    let (node, pod) = published().await;
    node.backend.fail(BackendErrorKind::Unavailable, None);
    advance(EVERY).await;
    until("the volume is stale", || node.counts("evanesce_volumes_stale{} 1.0")).await;
    node.backend.recover();
    node.backend.hold();
    let logins = node.backend.counts().logins;
    advance(Duration::from_secs(13)).await;
    until("the next refresh has begun", || node.backend.counts().logins > logins).await;
    assert!(condition(&node, &pod).await.abnormal);
    assert_eq!(health(&node, pod.volume_id(), "").await.unwrap().health_statuses.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_published_has_no_health() {
    let (node, pod) = published().await;
    assert_eq!(code(health(&node, "", "").await), Code::InvalidArgument);
    assert_eq!(code(health(&node, "../x", "").await), Code::InvalidArgument);
    assert_eq!(code(health(&node, "other", "").await), Code::NotFound);
    assert_eq!(code(health(&node, pod.volume_id(), "/elsewhere").await), Code::NotFound);
    node.unpublish(&pod).await.unwrap();
    assert_eq!(code(health(&node, pod.volume_id(), "").await), Code::NotFound);
    let storage = node.client().node_get_storage_health(NodeGetStorageHealthRequest::default()).await;
    assert_eq!(code(storage), Code::Unimplemented);
}
