// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A connection that carried a secret does not stay: neither kubelet's nor the backend's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use evanesce_integration::kubelet::Kubelet;
use evanesce_integration::tap::Tap;
use evanesce_integration::token_review::WorkloadName;
use evanesce_integration::wait;
use evanesce_integration::world::{Setup, World, lively_class};
use evanesce_proto::csi::node_client::NodeClient;
use evanesce_proto::csi::{NodeGetInfoRequest, NodePublishVolumeRequest};
use evanesce_proto::kubelet::Publish;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// How long a backend's connection may outlive the burst it was made for.
const CLOSED_WITHIN: Duration = Duration::from_millis(500);

/// The plugin's socket with a tap on it, and a client that stays connected, as kubelet's does not.
async fn tapped<B>(world: &World<B>) -> (Tap, NodeClient<Channel>) {
    let tap = Tap::on(world.plugin.csi_socket(), world.scratch.path().join("tap.sock")).unwrap();
    let kubelet = Kubelet::new(world.plugin.pods(), tap.path(), &world.plugin.registration_socket());
    let client = kubelet.node().await.unwrap();
    (tap, client)
}

/// A pod's volume, with everything prepared that kubelet prepares.
fn volume<B>(world: &World<B>, pod: &WorkloadName) -> Publish {
    let volume = world.volume(pod, "db");
    world.kubelet.prepare(&volume).unwrap();
    volume
}

/// Until it is answered: what a connection that ends did not take, grpc-go sends again by itself, and tonic does not.
async fn get_info(client: &mut NodeClient<Channel>) {
    wait::until_ready("a call is answered", async || client.node_get_info(NodeGetInfoRequest {}).await.ok()).await;
}

async fn publish(client: &mut NodeClient<Channel>, request: NodePublishVolumeRequest) -> Result<(), Status> {
    client.node_publish_volume(request).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_brought_a_token_is_closed_once_its_call_is_answered() {
    let world = World::recorded().await.unwrap();
    let (tap, mut client) = tapped(&world).await;
    let pod = world.pod("payments", "app");
    get_info(&mut client).await;
    for closed in 0..5 {
        assert_eq!((tap.made(), tap.ended()), (closed + 1, closed));
        // The first one publishes, the others bring newer tokens.
        publish(&mut client, volume(&world, &pod).request()).await.unwrap();
        wait::until("the connection is closed", || tap.ended() == closed + 1).await;
        get_info(&mut client).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_call_and_one_that_cannot_be_read_close_their_connections_too() {
    let world = World::recorded().await.unwrap();
    let (tap, mut client) = tapped(&world).await;
    let volume = volume(&world, &world.pod("payments", "stranger"));
    assert_eq!(publish(&mut client, volume.request()).await.unwrap_err().code(), Code::PermissionDenied);
    wait::until("the connection is closed", || tap.ended() == 1).await;

    let kubelet = Kubelet::new(world.plugin.pods(), tap.path(), &world.plugin.registration_socket());
    for method in ["/csi.v1.Node/NodePublishVolume", "/csi.v1.Node/NodeStageVolume"] {
        let closed = tap.ended();
        let mut raw = kubelet.raw().await.unwrap();
        raw.call(method, b"\xff\xff\xff\xff a token, but no message".to_vec()).await.unwrap_err();
        wait::until("the connection is closed", || tap.ended() == closed + 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_tokens_stays() {
    let world = World::recorded().await.unwrap();
    let volume = volume(&world, &world.pod("payments", "app"));
    world.kubelet.publish(&volume).await.unwrap();
    let (tap, mut client) = tapped(&world).await;
    let mut bare = volume.request();
    bare.secrets.clear();
    for _ in 0..10 {
        publish(&mut client, bare.clone()).await.unwrap();
        client.node_get_info(NodeGetInfoRequest {}).await.unwrap();
    }
    assert_eq!((tap.made(), tap.ended()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_calls_on_a_connection_that_is_to_be_closed_are_answered() {
    let world = World::recorded().await.unwrap();
    let (tap, client) = tapped(&world).await;
    let slow = volume(&world, &world.pod("payments", "app"));
    let refused = volume(&world, &world.pod("payments", "stranger"));
    world.backend.hang(true);
    let pending = tokio::spawn({
        let (mut client, request) = (client.clone(), slow.request());
        async move { publish(&mut client, request).await }
    });
    wait::until("the first call waits for the backend", || !world.backend.seen().is_empty()).await;
    assert_eq!(publish(&mut client.clone(), refused.request()).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!((tap.made(), tap.ended()), (1, 0), "both are on one connection");

    world.backend.hang(false);
    pending.await.unwrap().unwrap();
    wait::until("the connection is closed", || tap.ended() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_to_a_backend_outlives_the_burst_it_was_made_for() {
    let files = ["db", "a", "b", "c"]
        .map(|name| format!("{{path: {name}, from: {{backend: vault, secret: kv/payments/{name}, key: password}}}}"));
    let class = lively_class("lively", &files.each_ref().map(String::as_str));
    let world = Setup::default().class(&class).recorder().await.unwrap();
    for name in ["a", "b", "c"] {
        world.backend.put("kv", &format!("payments/{name}"), &serde_json::json!({"password": "p"}));
    }
    let engine = world.plugin.engine().unwrap();
    let port = world.backend.port();
    let connected = || engine.connections_to(port) > 0;

    // It can be seen at all.
    world.backend.hang(true);
    let volume = world.volume(&world.pod("payments", "app"), "lively");
    let pending = tokio::spawn({
        let kubelet = world.kubelet.clone();
        async move { kubelet.publish(&volume).await }
    });
    wait::until("the plugin has connected", connected).await;
    world.backend.hang(false);
    pending.await.unwrap().unwrap();

    // After the publish, and after refreshes of which nobody is told.
    for _ in 0..3 {
        let end = Instant::now() + CLOSED_WITHIN;
        wait::until("its connections are closed, or were to be", || !connected() || Instant::now() > end).await;
        assert!(!connected(), "{} connections are open", engine.connections_to(port));
        let asked = world.backend.reads().len();
        wait::until("a refresh asks", || world.backend.reads().len() > asked).await;
        wait::until("and is answered", || !connected()).await;
    }
}
