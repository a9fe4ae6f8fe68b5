// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! gRPC over a connection to a Unix socket.

use std::future::ready;
use std::io;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// A channel over this one connection; when it ends, so does the channel.
pub(crate) async fn channel(stream: UnixStream) -> Result<Channel, tonic::transport::Error> {
    let mut stream = Some(TokioIo::new(stream));
    let connect = move |_| ready(stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)));
    Endpoint::from_static("http://localhost").connect_with_connector(tower::service_fn(connect)).await
}
