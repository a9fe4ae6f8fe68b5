// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Connections as grpc-go makes them, down to the `:authority` that some servers choke on.

use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

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

/// A client without a schema: what it sends need not be a message.
pub struct Raw(Grpc<Channel>);

impl Raw {
    pub(super) fn new(channel: Channel) -> Self {
        Self(Grpc::new(channel))
    }

    /// Calls `method`, as `/csi.v1.Node/NodePublishVolume`, with these bytes for a message.
    ///
    /// # Errors
    /// The plugin's answer.
    pub async fn call(&mut self, method: &'static str, message: Vec<u8>) -> Result<Vec<u8>, Status> {
        self.0.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = tonic::codegen::http::uri::PathAndQuery::from_static(method);
        self.0.unary(Request::new(message), path, Bytes).await.map(tonic::Response::into_inner)
    }
}

struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; bytes::Buf::remaining(buffer)];
        bytes::Buf::copy_to_slice(buffer, &mut item);
        Ok(Some(item))
    }
}
