// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Requests: a valid one, break one thing, name the code.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use evanesce_integration::world::{AUDIENCE, PASSWORD, World};
use evanesce_integration::{mounts, sight};
use evanesce_proto::csi::volume_capability::access_mode::Mode;
use evanesce_proto::csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use evanesce_proto::csi::{
    NodeExpandVolumeRequest, NodeGetVolumeStatsRequest, NodePublishVolumeRequest, NodeStageVolumeRequest,
    NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
};
use evanesce_proto::kubelet::{
    EPHEMERAL, POD_NAME, POD_NAMESPACE, POD_UID, SERVICE_ACCOUNT_NAME, SERVICE_ACCOUNT_TOKENS,
};
use tonic::Code;

type Break = fn(&mut NodePublishVolumeRequest);

/// Each takes one thing from a request that is valid without it.
const BROKEN_PUBLISHES: &[(&str, Code, Break)] = &[
    ("no volume id", Code::InvalidArgument, |r| r.volume_id.clear()),
    ("a volume id that is a path", Code::InvalidArgument, |r| r.volume_id = "../../etc".into()),
    ("a volume id with NUL", Code::InvalidArgument, |r| r.volume_id = "csi-\0".into()),
    ("a volume id that is too long", Code::InvalidArgument, |r| r.volume_id = "a".repeat(129)),
    ("no target path", Code::InvalidArgument, |r| r.target_path.clear()),
    ("a staging path", Code::InvalidArgument, |r| r.staging_target_path = "/staging".into()),
    ("a publish context", Code::InvalidArgument, |r| drop(r.publish_context.insert("a".into(), "b".into()))),
    ("no capability", Code::InvalidArgument, |r| r.volume_capability = None),
    ("no access type", Code::InvalidArgument, |r| capability(r).access_type = None),
    ("a block device", Code::InvalidArgument, |r| {
        capability(r).access_type = Some(AccessType::Block(BlockVolume {}));
    }),
    ("no access mode", Code::InvalidArgument, |r| capability(r).access_mode = None),
    ("an unknown access mode", Code::InvalidArgument, |r| capability(r).access_mode = mode(Mode::Unknown as i32)),
    ("an access mode that nobody knows", Code::InvalidArgument, |r| capability(r).access_mode = mode(77)),
    ("many nodes", Code::InvalidArgument, |r| capability(r).access_mode = mode(Mode::MultiNodeMultiWriter as i32)),
    ("a type of filesystem", Code::InvalidArgument, |r| mount(r).fs_type = "ext4".into()),
    ("mount flags", Code::InvalidArgument, |r| mount(r).mount_flags = vec!["exec".into()]),
    ("a group that is none", Code::InvalidArgument, |r| mount(r).volume_mount_group = "wheel".into()),
    ("a group below zero", Code::InvalidArgument, |r| mount(r).volume_mount_group = "-1".into()),
    ("a group that means none to the kernel", Code::InvalidArgument, |r| {
        mount(r).volume_mount_group = u32::MAX.to_string();
    }),
    ("a secret of somebody else", Code::InvalidArgument, |r| drop(r.secrets.insert("password".into(), "x".into()))),
    ("tokens that are no JSON", Code::InvalidArgument, |r| token(r, "no JSON")),
    ("tokens that are a list", Code::InvalidArgument, |r| token(r, "[]")),
    ("a token that is none", Code::InvalidArgument, |r| {
        token(r, r#"{"vault":{"token":7,"expirationTimestamp":"2030-01-01T00:00:00Z"}}"#);
    }),
    ("no tokens", Code::Unauthenticated, |r| r.secrets.clear()),
    ("no pod name", Code::InvalidArgument, |r| context(r, POD_NAME, None)),
    ("no namespace", Code::InvalidArgument, |r| context(r, POD_NAMESPACE, None)),
    ("no pod uid", Code::InvalidArgument, |r| context(r, POD_UID, None)),
    ("no service account", Code::InvalidArgument, |r| context(r, SERVICE_ACCOUNT_NAME, None)),
    ("not said to be ephemeral", Code::InvalidArgument, |r| context(r, EPHEMERAL, None)),
    ("a persistent volume", Code::InvalidArgument, |r| context(r, EPHEMERAL, Some("false"))),
    ("a pod name that is a path", Code::InvalidArgument, |r| context(r, POD_NAME, Some("../a"))),
    ("a namespace that is a path", Code::InvalidArgument, |r| context(r, POD_NAMESPACE, Some("a/b"))),
    ("a pod uid that is a path", Code::InvalidArgument, |r| context(r, POD_UID, Some(".."))),
    ("a service account that is a template", Code::InvalidArgument, |r| {
        context(r, SERVICE_ACCOUNT_NAME, Some("{namespace}"));
    }),
    ("no class", Code::InvalidArgument, |r| context(r, "secretVolume", None)),
    ("a class that is a path", Code::InvalidArgument, |r| context(r, "secretVolume", Some("../db"))),
    ("a class that there is not", Code::NotFound, |r| context(r, "secretVolume", Some("absent"))),
    ("an attribute that overrides", Code::InvalidArgument, |r| context(r, "refresh", Some("1s"))),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_request_with_one_thing_broken_is_refused_by_name_and_touches_nothing() {
    let world = World::recorded().await.unwrap();
    let pod = world.pod("payments", "app");
    let volume = world.volume(&pod, "db");
    fs::create_dir_all(volume.target_path().parent().unwrap()).unwrap();
    for (what, code, break_it) in BROKEN_PUBLISHES {
        let mut request = volume.request();
        break_it(&mut request);
        let status = world.kubelet.call_publish(request).await.expect_err(what);
        assert_eq!(status.code(), *code, "{what}: {status}");
        assert!(status.details().is_empty(), "{what}: CSI wants no details");
        assert!(!status.message().is_empty(), "{what}: no message");
        assert_eq!(mounts::below(world.plugin.pods()), [], "{what}");
        assert!(!volume.target_path().exists(), "{what}: the target was made");
    }
    assert_eq!(world.backend.seen(), [], "a refused request went to the backend");

    world.kubelet.publish(&volume).await.expect("the request that was broken is valid");
    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_info_that_kubelet_may_add_later_is_no_attribute() {
    let world = World::recorded().await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "db");
    let mut request = volume.request();
    request.volume_context.insert("csi.storage.k8s.io/something.new".into(), "value".into());
    fs::create_dir_all(volume.target_path().parent().unwrap()).unwrap();
    world.kubelet.call_publish(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn other_requests_with_one_thing_broken_are_refused_by_name() {
    let world = World::recorded().await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "db");
    world.kubelet.publish(&volume).await.unwrap();
    let (id, path) = (volume.volume_id().to_owned(), volume.target_path().to_string_lossy().into_owned());
    let other_id = world.volume(&world.pod("payments", "app"), "db").volume_id().to_owned();

    let unpublish =
        |id: &str, path: &str| NodeUnpublishVolumeRequest { volume_id: id.into(), target_path: path.into() };
    for (what, request) in [
        ("no volume id", unpublish("", &path)),
        ("no target path", unpublish(&id, "")),
        ("a volume id that is a path", unpublish("../a", &path)),
        ("a target path that climbs", unpublish(&id, &format!("{path}/../mount"))),
        ("a relative target path", unpublish(&id, "pods/mount")),
    ] {
        let status = world.kubelet.call_unpublish(request).await.expect_err(what);
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status}");
    }

    let stats = |id: &str, path: &str| NodeGetVolumeStatsRequest {
        volume_id: id.into(),
        volume_path: path.into(),
        ..NodeGetVolumeStatsRequest::default()
    };
    for (what, code, request) in [
        ("no volume id", Code::InvalidArgument, stats("", &path)),
        ("no volume path", Code::InvalidArgument, stats(&id, "")),
        ("another volume", Code::NotFound, stats(&other_id, &path)),
        ("another path", Code::NotFound, stats(&id, "/somewhere/else")),
    ] {
        let status = world.kubelet.node().await.unwrap().node_get_volume_stats(request).await.expect_err(what);
        assert_eq!(status.code(), code, "{what}: {status}");
    }
    assert_eq!(mounts::at(volume.target_path()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_not_advertised_are_not_implemented() {
    let world = World::recorded().await.unwrap();
    // A dial for each, as kubelet does: a connection that could have brought a secret is closed after the answer.
    let node = async || world.kubelet.node().await.unwrap();
    let answers = [
        node().await.node_stage_volume(NodeStageVolumeRequest::default()).await.map(drop),
        node().await.node_unstage_volume(NodeUnstageVolumeRequest::default()).await.map(drop),
        node().await.node_expand_volume(NodeExpandVolumeRequest::default()).await.map(drop),
    ];
    for answer in answers {
        assert_eq!(answer.unwrap_err().code(), Code::Unimplemented);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_not_utf8_is_refused_by_the_transport() {
    let world = World::recorded().await.unwrap();
    // Field 1, volume_id, with a byte that no UTF-8 has.
    let message = vec![0x0a, 0x01, 0xff];
    let mut raw = world.kubelet.raw().await.unwrap();
    let status = raw.call("/csi.v1.Node/NodePublishVolume", message).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status}");
}

fn capability(request: &mut NodePublishVolumeRequest) -> &mut evanesce_proto::csi::VolumeCapability {
    request.volume_capability.as_mut().unwrap()
}

fn mount(request: &mut NodePublishVolumeRequest) -> &mut MountVolume {
    match capability(request).access_type.as_mut() {
        Some(AccessType::Mount(mount)) => mount,
        _ => panic!("kubelet asks for a mount"),
    }
}

fn mode(mode: i32) -> Option<AccessMode> {
    Some(AccessMode { mode })
}

fn token(request: &mut NodePublishVolumeRequest, json: &str) {
    assert!(request.secrets[SERVICE_ACCOUNT_TOKENS].contains(AUDIENCE));
    request.secrets.insert(SERVICE_ACCOUNT_TOKENS.into(), json.into());
}

fn context(request: &mut NodePublishVolumeRequest, key: &str, value: Option<&str>) {
    request.volume_context.remove(key);
    if let Some(value) = value {
        request.volume_context.insert(key.into(), value.into());
    }
}
