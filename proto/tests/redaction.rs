// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Walks every field of the schema that may carry a secret, puts a canary into it and prints the message.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "schema/sensitive.rs"]
mod sensitive;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;

use evanesce_proto::csi;
use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

const CANARY: &str = "canary-2f9c1d";

/// Decodes the bytes as one generated type; gives what it prints, and what it encodes again.
type Print = fn(&[u8]) -> (Vec<String>, Vec<u8>);

/// `name in the schema => generated type` for every message from which a sensitive field can be reached.
macro_rules! printers {
    ($($($part:ident).+ => $message:ty),+ $(,)?) => {
        BTreeMap::from([$((concat!("csi.v1", $(".", stringify!($part)),+), print::<$message> as Print)),+])
    };
}

fn printers() -> BTreeMap<&'static str, Print> {
    printers! {
        ControllerExpandVolumeRequest => csi::ControllerExpandVolumeRequest,
        ControllerGetVolumeHealthRequest => csi::ControllerGetVolumeHealthRequest,
        ControllerGetVolumeResponse => csi::ControllerGetVolumeResponse,
        ControllerListVolumeHealthRequest => csi::ControllerListVolumeHealthRequest,
        ControllerModifyVolumeRequest => csi::ControllerModifyVolumeRequest,
        ControllerPublishVolumeRequest => csi::ControllerPublishVolumeRequest,
        ControllerPublishVolumeResponse => csi::ControllerPublishVolumeResponse,
        ControllerUnpublishVolumeRequest => csi::ControllerUnpublishVolumeRequest,
        CreateSnapshotRequest => csi::CreateSnapshotRequest,
        CreateVolumeGroupSnapshotRequest => csi::CreateVolumeGroupSnapshotRequest,
        CreateVolumeRequest => csi::CreateVolumeRequest,
        CreateVolumeResponse => csi::CreateVolumeResponse,
        DeleteSnapshotRequest => csi::DeleteSnapshotRequest,
        DeleteVolumeGroupSnapshotRequest => csi::DeleteVolumeGroupSnapshotRequest,
        DeleteVolumeRequest => csi::DeleteVolumeRequest,
        GetCapacityRequest => csi::GetCapacityRequest,
        GetMetadataAllocatedRequest => csi::GetMetadataAllocatedRequest,
        GetMetadataDeltaRequest => csi::GetMetadataDeltaRequest,
        GetSnapshotRequest => csi::GetSnapshotRequest,
        GetVolumeGroupSnapshotRequest => csi::GetVolumeGroupSnapshotRequest,
        ListSnapshotsRequest => csi::ListSnapshotsRequest,
        ListVolumesResponse => csi::ListVolumesResponse,
        ListVolumesResponse.Entry => csi::list_volumes_response::Entry,
        NodeExpandVolumeRequest => csi::NodeExpandVolumeRequest,
        NodeGetStorageHealthRequest => csi::NodeGetStorageHealthRequest,
        NodeGetStorageHealthResponse => csi::NodeGetStorageHealthResponse,
        NodeGetStorageHealthResponse.StorageBackendHealth => csi::node_get_storage_health_response::StorageBackendHealth,
        NodePublishVolumeRequest => csi::NodePublishVolumeRequest,
        NodeStageVolumeRequest => csi::NodeStageVolumeRequest,
        ValidateVolumeCapabilitiesRequest => csi::ValidateVolumeCapabilitiesRequest,
        ValidateVolumeCapabilitiesResponse => csi::ValidateVolumeCapabilitiesResponse,
        ValidateVolumeCapabilitiesResponse.Confirmed => csi::validate_volume_capabilities_response::Confirmed,
        Volume => csi::Volume,
        VolumeCapability => csi::VolumeCapability,
        VolumeCapability.MountVolume => csi::volume_capability::MountVolume,
    }
}

#[test]
fn no_message_prints_what_its_sensitive_fields_hold() {
    let printers = printers();
    let pool = sensitive::descriptors();
    let mut walked = BTreeSet::new();
    for message in sensitive::messages(&pool) {
        for path in paths(&message) {
            let print = printers
                .get(message.full_name())
                .unwrap_or_else(|| panic!("{} may carry a secret: add it to the table above", message.full_name()));
            let bytes = with_canary(&message, &path).encode_to_vec();
            let (printed, encoded) = print(&bytes);
            // Otherwise the field was dropped by a wrong type in the table, and the walk would show nothing.
            assert!(contains_canary(&encoded), "{} does not hold {}", message.full_name(), dotted(&path));
            for text in printed {
                assert!(!contains_canary(text.as_bytes()), "{} prints {}", message.full_name(), dotted(&path));
            }
            walked.insert(message.full_name().to_owned());
        }
    }
    let stale: Vec<_> = printers.keys().filter(|name| !walked.contains(**name)).collect();
    assert!(stale.is_empty(), "no sensitive field is left in {stale:?}: drop them from the table above");
}

#[test]
fn the_walk_finds_every_field_the_specification_marks_secret() {
    let pool = sensitive::descriptors();
    let marked = sensitive::messages(&pool)
        .flat_map(|message| message.fields().collect::<Vec<_>>())
        .filter(sensitive::is_marked_secret)
        .count();
    let schema = include_str!("../proto/csi/v1/csi.proto");
    assert_eq!(marked, schema.matches("(csi_secret) = true").count());
    assert!(marked > 0);
}

#[test]
fn a_redacted_publish_request_still_says_what_an_operator_needs() {
    let request = csi::NodePublishVolumeRequest {
        volume_id: "csi-1".into(),
        target_path: "/pods/1/mount".into(),
        secrets: HashMap::from([("a".into(), CANARY.into()), ("b".into(), CANARY.into())]),
        volume_context: HashMap::from([("secretVolume".into(), CANARY.into())]),
        ..Default::default()
    };
    assert_eq!(
        format!("{request:?}"),
        "NodePublishVolumeRequest { volume_id: \"csi-1\", staging_target_path: \"\", target_path: \"/pods/1/mount\", \
         volume_capability: None, readonly: false, publish_context: {}, volume_context: {\"secretVolume\"}, \
         secrets: <2 redacted> }"
    );
}

fn print<M: Message + Default + Debug>(bytes: &[u8]) -> (Vec<String>, Vec<u8>) {
    let message = M::decode(bytes).unwrap();
    (vec![format!("{message:?}"), format!("{message:#?}")], message.encode_to_vec())
}

/// Every way from `message` down to a sensitive field. The schema has no recursive message.
fn paths(message: &MessageDescriptor) -> Vec<Vec<FieldDescriptor>> {
    let own = sensitive::sensitive_fields(message).map(|field| vec![field]);
    let below = message.fields().filter(|field| !field.is_map()).flat_map(|field| match field.kind() {
        Kind::Message(inner) => paths(&inner)
            .into_iter()
            .map(|rest| std::iter::once(field.clone()).chain(rest).collect())
            .collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    own.chain(below).collect()
}

fn with_canary(message: &MessageDescriptor, path: &[FieldDescriptor]) -> DynamicMessage {
    let (field, rest) = path.split_first().expect("a path has a field");
    let value = match field.kind() {
        Kind::Message(inner) if !field.is_map() => Value::Message(with_canary(&inner, rest)),
        Kind::Message(_) => {
            // Names in a map that is secret as a whole are hidden too.
            let key = if sensitive::is_marked_secret(field) { CANARY } else { "key" };
            Value::Map(HashMap::from([(MapKey::String(key.into()), Value::String(CANARY.into()))]))
        }
        Kind::String => Value::String(CANARY.into()),
        Kind::Bytes => Value::Bytes(CANARY.into()),
        other => panic!("{}: no canary fits a {other:?}", field.full_name()),
    };
    let mut instance = DynamicMessage::new(message.clone());
    instance.set_field(field, if field.is_list() { Value::List(vec![value]) } else { value });
    instance
}

fn contains_canary(haystack: &[u8]) -> bool {
    haystack.windows(CANARY.len()).any(|window| window == CANARY.as_bytes())
}

fn dotted(path: &[FieldDescriptor]) -> String {
    path.iter().map(FieldDescriptor::name).collect::<Vec<_>>().join(".")
}
