// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Connections as grpc-go makes them, down to the `:authority` that some servers choke on.

use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

/// As `newGrpcConn` of kubelet's CSI client does, which says `WithAuthority("localhost")`.
pub(super) async fn csi(socket: &Path) -> Result<Channel, Status> {
    connect(socket, Uri::from_static("http://localhost")).await
}

/// As `dial` of kubelet's plugin watcher does, which says nothing: grpc-go then takes the target for the authority, each
/// byte percent-encoded that may not stand in one. `/` may not, `@` may.
pub(super) async fn registration(socket: &Path) -> Result<Channel, Status> {
    let authority = socket.to_string_lossy().replace('/', "%2F");
    let origin = Uri::builder().scheme("http").authority(authority).path_and_query("/").build();
    connect(socket, origin.map_err(|error| Status::internal(error.to_string()))?).await
}

async fn connect(socket: &Path, origin: Uri) -> Result<Channel, Status> {
    let socket: PathBuf = socket.to_owned();
    Endpoint::from_static("http://localhost")
        .origin(origin)
        .connect_with_connector(tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        }))
        .await
        // What grpc-go answers to a call on a connection that it cannot make.
        .map_err(|error| Status::unavailable(error.to_string()))
}
