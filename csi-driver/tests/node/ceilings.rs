// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Who asks for too much is refused, and nobody else is.

use tonic::Code;

use crate::classes::spec;
use crate::fake_mounts::Call;
use crate::ground::{Node, VOLUME, code};

#[tokio::test(start_paused = true)]
async fn a_greedy_namespace_is_refused_and_its_neighbour_is_not() {
    let node = Node::with_limits(10 * VOLUME, 2 * VOLUME).await;
    let greedy: Vec<_> = (0..3).map(|pod| node.pod("greedy", &format!("greedy-{pod}"))).collect();
    node.publish(&greedy[0]).await.unwrap();
    node.publish(&greedy[1]).await.unwrap();
    let status = node.publish(&greedy[2]).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("--namespace-tmpfs-limit"), "{}", status.message());
    let modest = node.pod("team-a", "modest");
    assert_eq!(code(node.publish(&modest).await), Code::Ok);
    for pod in [&greedy[0], &greedy[1], &modest] {
        assert_eq!(code(node.publish(pod).await), Code::Ok, "a volume that is there stays");
        node.assert_whole(pod, "first");
    }
    assert_eq!(node.mounts.count(Call::Make), 3);
    node.unpublish(&greedy[0]).await.unwrap();
    assert_eq!(code(node.publish(&greedy[2]).await), Code::Ok, "what was given back can be had");
}

#[tokio::test(start_paused = true)]
async fn a_full_node_refuses_new_volumes_and_tells_no_tenant_about_others() {
    let node = Node::with_limits(2 * VOLUME, 2 * VOLUME).await;
    for namespace in ["team-a", "team-b"] {
        node.publish(&node.pod(namespace, namespace)).await.unwrap();
    }
    let status = node.publish(&node.pod("payments", "late")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("--node-tmpfs-limit"), "{}", status.message());
    assert!(!status.message().contains("team-"), "{}", status.message());
    assert_eq!(node.plugin.budget.reserved(), 2 * VOLUME);
}

#[tokio::test(start_paused = true)]
async fn a_class_that_is_too_small_for_its_files_is_refused_with_the_size_it_needs() {
    let node = Node::new().await;
    let mut class = spec(&["password kv/db password"]);
    class.size = Some(16 << 10);
    node.backend.put("kv/db", &[("username", "app"), ("password", &"x".repeat(64 << 10))]);
    node.classes.set("db", class);
    let pod = node.pod("payments", "pod-1");
    let status = node.publish(&pod).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("spec.size is 16384"), "{}", status.message());
    node.assert_nothing_left(&pod);
}

/// The warden makes no volume of more inodes than that.
const MOST_INODES: u64 = 65_536;

#[tokio::test(start_paused = true)]
async fn the_largest_volume_that_a_class_may_name_can_be_made() {
    let node = Node::new().await;
    let mut class = spec(&["username kv/db username", "password kv/db password"]);
    class.size = Some(1 << 30);
    node.classes.set("db", class);
    let pod = node.pod("payments", "pod-1");
    node.publish(&pod).await.unwrap();
    let (size, inodes) = node.mounts.size(pod.volume_id());
    assert!(size == 1 << 30 && inodes <= MOST_INODES, "{size} bytes, {inodes} inodes");
}
