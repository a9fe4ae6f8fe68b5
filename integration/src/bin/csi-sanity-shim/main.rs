// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Stands between csi-sanity and the node plugin, and plays the controller that a node plugin for inline volumes has not.
//!
//! csi-sanity publishes only what a controller created. Without one it passes over the tests that matter: "should work",
//! "should be idempotent" and "should remove target path". So this program says that there is a controller, answers for
//! it, and hands every other call to the plugin's socket as bytes: what csi-sanity judges is the plugin's real answer.
//!
//! For tests only; nothing of it is in the plugin.

mod controller;
mod identity;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::extract::Request;
use axum::response::Response;
use evanesce_proto::csi::NodePublishVolumeRequest;
use evanesce_proto::csi::controller_server::ControllerServer;
use evanesce_proto::csi::identity_client::IdentityClient;
use evanesce_proto::csi::identity_server::IdentityServer;
use prost::Message as _;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Server};
use tower::ServiceExt as _;

use controller::Controller;
use identity::Identity;

/// How long the plugin may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);

const USAGE: &str = "csi-sanity-shim PLUGIN_SOCKET OWN_SOCKET PODS_DIR POD_UID SECRET_VOLUME";

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [plugin, own, pods_dir, pod_uid, secret_volume] = arguments.as_slice() else {
        bail!("usage: {USAGE}");
    };
    let plugin = Endpoint::from_shared(format!("unix:{plugin}"))?.connect_lazy();
    tokio::time::timeout(PATIENCE, ready(plugin.clone())).await.context("the plugin is not ready")?;

    let controller = Controller::new(PathBuf::from(pods_dir), pod_uid.clone(), secret_volume.clone());
    let routes = Routes::new(IdentityServer::new(Identity::new(plugin.clone())))
        .add_service(ControllerServer::new(controller))
        .into_axum_router()
        .fallback(move |request| forward(plugin.clone(), request));
    let listener = UnixListener::bind(own).with_context(|| format!("cannot bind {own}"))?;
    // Whoever started this waits for the line.
    writeln!(std::io::stdout(), "ready")?;
    Server::builder().add_routes(routes.into()).serve_with_incoming(UnixListenerStream::new(listener)).await?;
    Ok(())
}

/// Waits until the plugin says that it is.
async fn ready(plugin: Channel) {
    let mut identity = IdentityClient::new(plugin);
    let mut pause = tokio::time::interval(Duration::from_millis(20));
    loop {
        pause.tick().await;
        if let Ok(answer) = identity.probe(evanesce_proto::csi::ProbeRequest {}).await
            && answer.into_inner().ready != Some(false)
        {
            return;
        }
    }
}

/// Hands a call to the plugin as it is, and its answer back. Only a publish becomes one of a read-only volume, as kubelet
/// asks for where a pod says `readOnly: true`: csi-sanity has no flag for it, and the plugin takes no other.
async fn forward(plugin: Channel, request: Request) -> Response {
    let request = match request.uri().path() {
        "/csi.v1.Node/NodePublishVolume" => match read_only(request).await {
            Ok(request) => request,
            Err(error) => return Status::internal(format!("the call cannot be read: {error:#}")).into_http(),
        },
        _ => request,
    };
    match plugin.oneshot(request.map(Body::new)).await {
        Ok(response) => response.map(axum::body::Body::new),
        Err(error) => Status::unavailable(format!("the plugin does not answer: {error}")).into_http(),
    }
}

/// A gRPC message on the wire: one byte for compression, four for the length.
const FRAME: usize = 5;

async fn read_only(request: Request) -> Result<Request> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await?;
    let message = body.get(FRAME..).filter(|_| body[0] == 0).context("no uncompressed message")?;
    let mut publish = NodePublishVolumeRequest::decode(message)?;
    publish.readonly = true;
    let message = publish.encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len())?.to_be_bytes());
    frame.extend(message);
    Ok(Request::from_parts(parts, axum::body::Body::from(frame)))
}
