// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A valid request, one thing broken, the code that kubelet hears.

use evanesce_csi::protocol::VolumeId;
use evanesce_engine::backend::BackendErrorKind;
use evanesce_engine::names::{Namespace, ServiceAccountName};
use evanesce_proto::csi::node_service_capability::{Rpc, Type, rpc};
use evanesce_proto::csi::volume_capability::access_mode::Mode;
use evanesce_proto::csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use evanesce_proto::csi::volume_usage::Unit;
use evanesce_proto::csi::{
    NodeExpandVolumeRequest, NodeGetCapabilitiesRequest, NodeGetInfoRequest, NodeGetVolumeStatsRequest,
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
};
use evanesce_proto::kubelet;
use tonic::Code;

use crate::classes::spec;
use crate::fake_mounts::Call;
use crate::ground::{Node, code, leave, published, with_token};

fn set(request: &mut NodePublishVolumeRequest, key: &str, value: &str) {
    request.volume_context.insert(key.into(), value.into());
}

fn unset(request: &mut NodePublishVolumeRequest, key: &str) {
    request.volume_context.remove(key);
}

fn mounted(request: &mut NodePublishVolumeRequest) -> &mut MountVolume {
    match request.volume_capability.as_mut().and_then(|capability| capability.access_type.as_mut()) {
        Some(AccessType::Mount(mount)) => mount,
        _ => panic!("a valid request has a mount"),
    }
}

fn mode(request: &mut NodePublishVolumeRequest, mode: i32) {
    request.volume_capability.as_mut().unwrap().access_mode = Some(AccessMode { mode });
}

fn tokens(request: &mut NodePublishVolumeRequest, json: &str) {
    request.secrets.insert(kubelet::SERVICE_ACCOUNT_TOKENS.into(), json.into());
}

#[tokio::test(start_paused = true)]
async fn each_thing_that_is_wrong_with_a_publish_has_its_code() {
    use Code::{InvalidArgument, NotFound, PermissionDenied, Unauthenticated};
    type Break = fn(&mut NodePublishVolumeRequest);
    let table: &[(&str, Code, Break)] = &[
        ("volume_id missing", InvalidArgument, |r| r.volume_id.clear()),
        ("volume_id ..", InvalidArgument, |r| r.volume_id = "..".into()),
        ("volume_id a path", InvalidArgument, |r| r.volume_id = "../x".into()),
        ("volume_id too long", InvalidArgument, |r| r.volume_id = "x".repeat(129)),
        ("volume_id NUL", InvalidArgument, |r| r.volume_id = "a\0b".into()),
        ("publish_context", InvalidArgument, |r| drop(r.publish_context.insert("a".into(), "b".into()))),
        ("staging_target_path", InvalidArgument, |r| r.staging_target_path = "/staging".into()),
        ("target_path missing", InvalidArgument, |r| r.target_path.clear()),
        ("target_path relative", InvalidArgument, |r| r.target_path = "pods/x".into()),
        ("target_path ..", InvalidArgument, |r| r.target_path += "/../../x"),
        ("target_path //", InvalidArgument, |r| r.target_path += "//x"),
        ("target_path NUL", InvalidArgument, |r| r.target_path.push('\0')),
        ("target_path too long", InvalidArgument, |r| r.target_path += &"/x".repeat(4096)),
        ("not read-only", InvalidArgument, |r| r.readonly = false),
        ("no capability", InvalidArgument, |r| r.volume_capability = None),
        ("no access_type", InvalidArgument, |r| r.volume_capability.as_mut().unwrap().access_type = None),
        ("block", InvalidArgument, |r| {
            r.volume_capability.as_mut().unwrap().access_type = Some(AccessType::Block(BlockVolume {}));
        }),
        ("fs_type", InvalidArgument, |r| mounted(r).fs_type = "ext4".into()),
        ("mount_flags", InvalidArgument, |r| mounted(r).mount_flags.push("exec".into())),
        ("mount group no number", InvalidArgument, |r| mounted(r).volume_mount_group = "staff".into()),
        ("mount group -1", InvalidArgument, |r| mounted(r).volume_mount_group = "4294967295".into()),
        ("no access_mode", InvalidArgument, |r| r.volume_capability.as_mut().unwrap().access_mode = None),
        ("access mode unknown", InvalidArgument, |r| mode(r, 0)),
        ("access mode of the future", InvalidArgument, |r| mode(r, 99)),
        ("several nodes read", InvalidArgument, |r| mode(r, Mode::MultiNodeReaderOnly.into())),
        ("several nodes, one writes", InvalidArgument, |r| mode(r, Mode::MultiNodeSingleWriter.into())),
        ("several nodes write", InvalidArgument, |r| mode(r, Mode::MultiNodeMultiWriter.into())),
        ("a secret of others", InvalidArgument, |r| drop(r.secrets.insert("password".into(), "x".into()))),
        ("tokens malformed", InvalidArgument, |r| tokens(r, "x")),
        ("tokens no object", InvalidArgument, |r| tokens(r, "[]")),
        ("token without an expiry", InvalidArgument, |r| tokens(r, r#"{"fake":{"token":"x"}}"#)),
        ("token with a line break", InvalidArgument, |r| {
            tokens(r, r#"{"fake":{"token":"x\ny","expirationTimestamp":"2130-01-01T00:00:00Z"}}"#);
        }),
        ("no tokens", Unauthenticated, |r| r.secrets.clear()),
        ("tokens empty", Unauthenticated, |r| tokens(r, "{}")),
        ("token for others", Unauthenticated, |r| {
            tokens(r, r#"{"aws":{"token":"x","expirationTimestamp":"2130-01-01T00:00:00Z"}}"#);
        }),
        ("token expired", Unauthenticated, |r| {
            tokens(r, r#"{"fake":{"token":"x","expirationTimestamp":"2025-12-31T23:59:59Z"}}"#);
        }),
        // {"kubernetes.io":{"namespace":"other"}}
        ("token of another namespace", Unauthenticated, |r| {
            tokens(
                r,
                r#"{"fake":{"token":"e30.eyJrdWJlcm5ldGVzLmlvIjp7Im5hbWVzcGFjZSI6Im90aGVyIn19.c2ln","expirationTimestamp":"2130-01-01T00:00:00Z"}}"#,
            );
        }),
        ("no pod name", InvalidArgument, |r| unset(r, kubelet::POD_NAME)),
        ("no namespace", InvalidArgument, |r| unset(r, kubelet::POD_NAMESPACE)),
        ("no pod uid", InvalidArgument, |r| unset(r, kubelet::POD_UID)),
        ("no service account", InvalidArgument, |r| unset(r, kubelet::SERVICE_ACCOUNT_NAME)),
        ("not said whether inline", InvalidArgument, |r| unset(r, kubelet::EPHEMERAL)),
        ("not inline", InvalidArgument, |r| set(r, kubelet::EPHEMERAL, "false")),
        ("pod name a path", InvalidArgument, |r| set(r, kubelet::POD_NAME, "../x")),
        ("namespace a path", InvalidArgument, |r| set(r, kubelet::POD_NAMESPACE, "a/b")),
        ("pod uid a path", InvalidArgument, |r| set(r, kubelet::POD_UID, "..")),
        ("service account no name", InvalidArgument, |r| set(r, kubelet::SERVICE_ACCOUNT_NAME, "A")),
        ("no class", InvalidArgument, |r| unset(r, "secretVolume")),
        ("class no name", InvalidArgument, |r| set(r, "secretVolume", "../db")),
        ("unknown attribute", InvalidArgument, |r| set(r, "secretvolume", "db")),
        ("class that is none", NotFound, |r| set(r, "secretVolume", "none")),
        ("class of another namespace", NotFound, |r| set(r, kubelet::POD_NAMESPACE, "no-classes")),
        ("namespace that may not", PermissionDenied, |r| set(r, kubelet::POD_NAMESPACE, "strangers")),
        ("secret that may not be read", PermissionDenied, |r| set(r, "secretVolume", "outside")),
        ("secret of the system", PermissionDenied, |r| set(r, "secretVolume", "system")),
        ("secret that is none", NotFound, |r| set(r, "secretVolume", "no-secret")),
        ("key that is none", NotFound, |r| set(r, "secretVolume", "no-key")),
        ("backend that is none", NotFound, |r| set(r, "secretVolume", "no-backend")),
        ("secret that the backend denies", PermissionDenied, |r| set(r, "secretVolume", "denied")),
        ("service account that cannot log in", Unauthenticated, |r| {
            set(r, kubelet::SERVICE_ACCOUNT_NAME, "stranger");
        }),
    ];
    let node = Node::new().await;
    node.classes.set("outside", spec(&["f secret/db password"]));
    node.classes.set("system", spec(&["f sys/raw password"]));
    node.classes.set("no-secret", spec(&["f kv/none password"]));
    node.classes.set("no-key", spec(&["f kv/db none"]));
    node.classes.set("denied", spec(&["f kv/denied password"]));
    let mut other = spec(&["f kv/db password"]);
    other.files[0].from.backend = evanesce_engine::names::BackendName::parse("none").unwrap();
    node.classes.set("no-backend", other);
    node.backend.deny("kv/denied");
    let stranger = ServiceAccountName::parse("stranger").unwrap();
    node.backend.refuse_login(&Namespace::parse("payments").unwrap(), &stranger);
    let pod = node.pod("payments", "pod-1");
    for (name, expected, wrong) in table {
        let mut request = pod.request();
        wrong(&mut request);
        let (before, status) = (node.auditor.take(), node.send(request).await.unwrap_err());
        assert_eq!(status.code(), *expected, "{name}: {}", status.message());
        assert!(!status.message().is_empty() && status.details().is_empty(), "{name}");
        let audited = node.auditor.codes();
        assert!(audited.contains(&"refused") || audited.contains(&"failed"), "{name}: {audited:?} after {before:?}");
        node.assert_nothing_left(&pod);
    }
    assert_eq!(node.mounts.count(Call::Make), 0, "a refused request made a volume");
    node.publish(&pod).await.unwrap();
    node.assert_whole(&pod, "first");
}

#[tokio::test(start_paused = true)]
async fn what_may_be_otherwise_is_taken() {
    type Change = fn(&mut NodePublishVolumeRequest);
    let table: &[(&str, Change)] = &[
        ("one node reads", |r| mode(r, Mode::SingleNodeReaderOnly.into())),
        ("one writer", |r| mode(r, Mode::SingleNodeSingleWriter.into())),
        ("many writers on one node", |r| mode(r, Mode::SingleNodeMultiWriter.into())),
        ("a group", |r| mounted(r).volume_mount_group = "2000".into()),
        ("kubelet's own additions", |r| set(r, "csi.storage.k8s.io/something.new", "x")),
        ("tokens of older kubelets", |r| {
            let tokens = r.secrets.remove(kubelet::SERVICE_ACCOUNT_TOKENS).unwrap();
            set(r, kubelet::SERVICE_ACCOUNT_TOKENS, &tokens);
        }),
    ];
    let node = Node::new().await;
    let pod = node.pod("payments", "pod-1");
    for (name, change) in table {
        let mut request = pod.request();
        change(&mut request);
        assert_eq!(code(node.send(request).await), Code::Ok, "{name}");
        node.unpublish(&pod).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_backend_has_a_code_that_makes_kubelet_try_again() {
    let node = Node::new().await;
    let pod = node.pod("payments", "pod-1");
    for (kind, expected) in [
        (BackendErrorKind::Unavailable, Code::Unavailable),
        (BackendErrorKind::Throttled, Code::Unavailable),
        (BackendErrorKind::Malformed, Code::Unavailable),
        (BackendErrorKind::TimedOut, Code::DeadlineExceeded),
    ] {
        node.backend.fail(kind, None);
        assert_eq!(code(node.publish(&pod).await), expected, "{kind:?}");
        node.backend.recover();
        node.assert_nothing_left(&pod);
    }
    node.publish(&pod).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_thing_that_is_wrong_with_an_unpublish_has_its_code() {
    let (node, pod) = published().await;
    type Break = fn(&mut NodeUnpublishVolumeRequest);
    let table: &[(&str, Break)] = &[
        ("volume_id missing", |r| r.volume_id.clear()),
        ("volume_id a path", |r| r.volume_id = "../x".into()),
        ("volume_id too long", |r| r.volume_id = "x".repeat(129)),
        ("volume_id NUL", |r| r.volume_id = "a\0b".into()),
        ("target_path missing", |r| r.target_path.clear()),
        ("target_path relative", |r| r.target_path = "x".into()),
        ("target_path ..", |r| r.target_path += "/.."),
        ("target_path //", |r| r.target_path += "//x"),
        ("target_path NUL", |r| r.target_path.push('\0')),
        ("target_path too long", |r| r.target_path += &"/x".repeat(4096)),
        ("target_path of another volume", |r| r.target_path += "/elsewhere"),
    ];
    for (name, wrong) in table {
        let mut request = leave(&pod);
        wrong(&mut request);
        let result = node.client().node_unpublish_volume(request).await;
        assert_eq!(code(result), Code::InvalidArgument, "{name}");
        node.assert_whole(&pod, "first");
    }
    node.unpublish(&pod).await.unwrap();
    node.assert_nothing_left(&pod);
}

#[tokio::test(start_paused = true)]
async fn stats_are_those_of_the_volume_or_have_their_code() {
    let node = Node::new().await;
    let pod = node.pod("payments", "pod-1");
    let request = NodeGetVolumeStatsRequest {
        volume_id: pod.volume_id().to_owned(),
        volume_path: leave(&pod).target_path,
        ..Default::default()
    };
    let ask = async |request: NodeGetVolumeStatsRequest| node.client().node_get_volume_stats(request).await;
    assert_eq!(code(ask(request.clone()).await), Code::NotFound, "before it is published");
    node.publish(&pod).await.unwrap();
    type Break = fn(&mut NodeGetVolumeStatsRequest);
    let table: &[(&str, Code, Break)] = &[
        ("volume_id missing", Code::InvalidArgument, |r| r.volume_id.clear()),
        ("volume_id a path", Code::InvalidArgument, |r| r.volume_id = "../x".into()),
        ("volume_id unknown", Code::NotFound, |r| r.volume_id = "other".into()),
        ("volume_path missing", Code::InvalidArgument, |r| r.volume_path.clear()),
        ("volume_path relative", Code::NotFound, |r| r.volume_path = "x".into()),
        ("volume_path NUL", Code::NotFound, |r| r.volume_path.push('\0')),
        ("volume_path elsewhere", Code::NotFound, |r| r.volume_path += "/x"),
    ];
    for (name, expected, wrong) in table {
        let mut request = request.clone();
        wrong(&mut request);
        assert_eq!(code(ask(request).await), *expected, "{name}");
    }
    let usage = ask(request.clone()).await.unwrap().into_inner().usage;
    assert_eq!(usage.iter().map(|usage| usage.unit()).collect::<Vec<_>>(), [Unit::Bytes, Unit::Inodes]);
    assert!(usage.iter().all(|usage| usage.total >= usage.used && usage.available >= 0), "{usage:?}");
    node.unpublish(&pod).await.unwrap();
    assert_eq!(code(ask(request).await), Code::NotFound, "after it is gone");
}

#[tokio::test(start_paused = true)]
async fn only_what_is_implemented_is_advertised_and_nothing_else_is_answered() {
    let node = Node::new().await;
    let answer = node.client().node_get_capabilities(NodeGetCapabilitiesRequest {}).await.unwrap().into_inner();
    let capabilities: Vec<_> = answer.capabilities.into_iter().map(|capability| capability.r#type.unwrap()).collect();
    let rpc = |kind: rpc::Type| Type::Rpc(Rpc { r#type: kind.into() });
    let offered = [
        rpc::Type::VolumeMountGroup,
        rpc::Type::GetVolumeStats,
        rpc::Type::VolumeCondition,
        rpc::Type::GetVolumeHealth,
    ];
    assert_eq!(capabilities, offered.map(rpc));
    let mut client = node.client();
    assert_eq!(code(client.node_stage_volume(NodeStageVolumeRequest::default()).await), Code::Unimplemented);
    assert_eq!(code(client.node_unstage_volume(NodeUnstageVolumeRequest::default()).await), Code::Unimplemented);
    assert_eq!(code(client.node_expand_volume(NodeExpandVolumeRequest::default()).await), Code::Unimplemented);
    let info = client.node_get_info(NodeGetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.node_id.as_str(), info.accessible_topology), ("node-1", None));
}

#[tokio::test(start_paused = true)]
async fn an_id_that_is_none_is_not_written_into_the_audit() {
    let node = Node::new().await;
    let mut request = node.pod("payments", "pod-1").request();
    request.volume_id = "someone's text".into();
    assert_eq!(code(node.send(request).await), Code::InvalidArgument);
    let events = node.auditor.events();
    let expected = |event: &_| matches!(event, evanesce_engine::audit::Event::Refused { volume: None, .. });
    assert!(events.len() == 1 && events.iter().all(expected), "{events:?}");
    assert!(VolumeId::try_from("someone's text".to_owned()).is_err());
}

#[tokio::test(start_paused = true)]
async fn files_have_the_owners_and_modes_that_the_class_and_the_pod_ask_for() {
    use std::os::unix::fs::PermissionsExt;
    let node = Node::new().await;
    let mut class = spec(&["plain kv/db password", "own kv/db password"]);
    class.files[1].uid = Some(1000);
    class.files[1].gid = Some(3000);
    class.files[1].mode = Some(evanesce_engine::projection::Mode::new(0o640).unwrap());
    node.classes.set("db", class);
    let pod = node.pod("payments", "pod-1");
    let mode = |file: &str| std::fs::metadata(pod.target_path().join(file)).unwrap().permissions().mode() & 0o7777;
    let owners = || node.mounts.owned().iter().map(|owner| (owner.uid, owner.gid)).collect::<Vec<_>>();
    node.publish(&pod).await.unwrap();
    assert_eq!((mode("plain"), mode("own")), (0o400, 0o640));
    assert_eq!(owners(), [(Some(1000), Some(3000)), (Some(0), Some(0))]);
    node.unpublish(&pod).await.unwrap();
    let grouped = with_token(node.pod("payments", "pod-1").mount_group(2000), crate::ground::FAR);
    node.publish(&grouped).await.unwrap();
    assert_eq!((mode("plain"), mode("own")), (0o440, 0o640));
    assert_eq!(owners()[2..], [(Some(1000), Some(3000)), (Some(0), Some(2000))]);
}
