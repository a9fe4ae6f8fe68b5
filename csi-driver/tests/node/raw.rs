// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Messages that no Rust type can hold: bytes where text must be.

use evanesce_proto::raw::Raw;
use tonic::Code;

use crate::ground::{Node, code};

/// A length-delimited field of protobuf.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
    bytes.extend_from_slice(content);
    bytes
}

async fn send(node: &Node, call: &'static str, message: Vec<u8>) -> Code {
    code(Raw::new(node.channel.clone()).call(call, message).await)
}

#[tokio::test(start_paused = true)]
async fn text_that_is_not_utf_8_is_internal_from_the_transport() {
    const PUBLISH: &str = "/csi.v1.Node/NodePublishVolume";
    const UNPUBLISH: &str = "/csi.v1.Node/NodeUnpublishVolume";
    const STATS: &str = "/csi.v1.Node/NodeGetVolumeStats";
    let node = Node::new().await;
    let bad = [0xff, 0xfe];
    let (key, value) = (field(1, &bad), field(2, &bad));
    let mount = |number| field(5, &field(2, &field(number, &bad)));
    for (name, call, message) in [
        ("volume_id", PUBLISH, field(1, &bad)),
        ("publish_context key", PUBLISH, field(2, &key)),
        ("publish_context value", PUBLISH, field(2, &value)),
        ("staging_target_path", PUBLISH, field(3, &bad)),
        ("target_path", PUBLISH, field(4, &bad)),
        ("fs_type", PUBLISH, mount(1)),
        ("mount_flags", PUBLISH, mount(2)),
        ("volume_mount_group", PUBLISH, mount(3)),
        ("secrets key", PUBLISH, field(7, &key)),
        ("secrets value", PUBLISH, field(7, &value)),
        ("volume_context key", PUBLISH, field(8, &key)),
        ("volume_context value", PUBLISH, field(8, &value)),
        ("volume_id", UNPUBLISH, field(1, &bad)),
        ("target_path", UNPUBLISH, field(2, &bad)),
        ("volume_id", STATS, field(1, &bad)),
        ("volume_path", STATS, field(2, &bad)),
        ("staging_target_path", STATS, field(3, &bad)),
    ] {
        assert_eq!(send(&node, call, message).await, Code::Internal, "{name} of {call}");
    }
    // The same way of sending is understood where the text is text.
    assert_eq!(send(&node, PUBLISH, field(1, b"v")).await, Code::InvalidArgument);
}
