// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Which wire fields may carry a secret, read from the protocol descriptors.
//!
//! Denied by default: a field is sensitive if the specification says so, and every map of strings is, unless it is
//! named below with a reason.

use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};

/// The schema files, relative to the crate.
const FILES: [&str; 3] = ["csi/v1/csi.proto", "evanesce/node/v1/node.proto", "pluginregistration/registration.proto"];

/// Maps that describe the plugin or the node and are the same for every pod.
const HARMLESS_MAPS: [&str; 2] = ["csi.v1.GetPluginInfoResponse.manifest", "csi.v1.Topology.segments"];

/// Sensitive by the specification's prose, without the option: "`mount_flags` MAY contain sensitive information".
const SENSITIVE_BY_PROSE: [&str; 1] = ["csi.v1.VolumeCapability.MountVolume.mount_flags"];

/// Compiles the schema without a `protoc`.
pub(crate) fn descriptors() -> DescriptorPool {
    let mut compiler = protox::Compiler::new([concat!(env!("CARGO_MANIFEST_DIR"), "/proto")]).unwrap();
    compiler.include_imports(true).include_source_info(true).open_files(FILES).unwrap();
    compiler.descriptor_pool()
}

/// Messages of our schema, without the imported well-known types and the synthetic map entries.
pub(crate) fn messages(pool: &DescriptorPool) -> impl Iterator<Item = MessageDescriptor> + '_ {
    pool.all_messages().filter(|message| FILES.contains(&message.parent_file().name()) && !message.is_map_entry())
}

/// Fields of `message` itself that may carry a secret.
pub(crate) fn sensitive_fields(message: &MessageDescriptor) -> impl Iterator<Item = FieldDescriptor> {
    message.fields().filter(is_sensitive)
}

/// Whether the specification marks the field `csi_secret`.
pub(crate) fn is_marked_secret(field: &FieldDescriptor) -> bool {
    let marker = field
        .parent_pool()
        .get_extension_by_name("csi.v1.csi_secret")
        .expect("csi.proto declares the option csi_secret");
    field.options().get_extension(&marker).as_bool() == Some(true)
}

fn is_sensitive(field: &FieldDescriptor) -> bool {
    is_marked_secret(field)
        || SENSITIVE_BY_PROSE.contains(&field.full_name())
        || (is_string_map(field) && !HARMLESS_MAPS.contains(&field.full_name()))
}

fn is_string_map(field: &FieldDescriptor) -> bool {
    field.is_map()
        && matches!(field.kind(), Kind::Message(entry) if matches!(entry.map_entry_value_field().kind(), Kind::String | Kind::Bytes))
}
