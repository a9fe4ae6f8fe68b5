// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! How kubelet finds the plugin, and what the plugin says it can do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use evanesce_integration::plugin::{DRIVER, NODE};
use evanesce_integration::world::World;
use evanesce_proto::csi::node_service_capability::Type;
use evanesce_proto::csi::node_service_capability::rpc::Type as Rpc;
use evanesce_proto::csi::{GetPluginCapabilitiesRequest, NodeGetCapabilitiesRequest, ProbeRequest};

#[tokio::test(flavor = "multi_thread")]
async fn kubelet_registers_the_plugin_as_often_as_it_restarts() {
    let mut world = World::recorded().await.unwrap();
    for life in ["first", "second", "third"] {
        let registered = world.kubelet.register().await.unwrap_or_else(|error| panic!("{life} kubelet: {error:#}"));
        assert_eq!(registered.plugin.name, DRIVER);
        assert_eq!(registered.plugin.vendor_version, env!("CARGO_PKG_VERSION"));
        assert_eq!(registered.node.node_id, NODE);
        assert!(registered.node.accessible_topology.is_none());
        world.plugin.kill_engine().await.unwrap();
    }
    world.plugin.kill_and_restart().await.unwrap();
    world.kubelet.register().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_implemented_is_advertised() {
    let world = World::recorded().await.unwrap();
    let mut node = world.kubelet.node().await.unwrap();
    let answer = node.node_get_capabilities(NodeGetCapabilitiesRequest {}).await.unwrap().into_inner();
    let advertised: BTreeSet<i32> = answer
        .capabilities
        .into_iter()
        .map(|capability| match capability.r#type {
            Some(Type::Rpc(rpc)) => rpc.r#type,
            None => panic!("a capability without a type"),
        })
        .collect();
    // Health twice: beside the figures for callers of CSI 1.12, and by a call of its own for those of 1.13.
    let implemented = [Rpc::GetVolumeStats, Rpc::VolumeCondition, Rpc::GetVolumeHealth, Rpc::VolumeMountGroup];
    assert_eq!(advertised, BTreeSet::from(implemented.map(|rpc| rpc as i32)));

    let mut identity = world.kubelet.identity().await.unwrap();
    let plugin = identity.get_plugin_capabilities(GetPluginCapabilitiesRequest {}).await.unwrap().into_inner();
    assert!(plugin.capabilities.is_empty(), "a plugin without a controller has none: {plugin:?}");
    let probe = identity.probe(ProbeRequest {}).await.unwrap().into_inner();
    assert_eq!(probe.ready, Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_what_the_csi_socket_answers() {
    let world = World::recorded().await.unwrap();
    for path in ["healthz", "readyz", "metrics"] {
        let answer = world.plugin.http(path).await.unwrap();
        assert!(answer.status().is_success(), "/{path}: {}", answer.status());
    }
    assert_eq!(world.plugin.http("debug").await.unwrap().status(), 404);
}
