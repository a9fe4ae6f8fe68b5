// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Liveness: the CSI probe, asked of ourselves the way kubelet would.

use evanesce_proto::csi::ProbeRequest;
use evanesce_proto::csi::identity_client::IdentityClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::Endpoint;

use crate::engine_half::warden_client::WardenClient;

/// Whether the whole works: the warden connects, the server accepts, the service answers.
///
/// # Errors
/// What does not, in one line.
pub async fn healthy(warden: WardenClient) -> Result<(), String> {
    let stream =
        warden.probe().await.map_err(|error| format!("the warden cannot connect to the CSI socket: {error}"))?;
    let stream = UnixStream::from_std(stream).map_err(|error| format!("the CSI connection cannot be used: {error}"))?;
    let mut stream = Some(stream);
    let connect = tower::service_fn(move |_| {
        // One connection for one call: there is no second try.
        let stream = stream.take().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected));
        std::future::ready(stream.map(TokioIo::new))
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connect).await;
    let channel = channel.map_err(|error| format!("the CSI server does not speak: {error}"))?;
    let answer = IdentityClient::new(channel).probe(ProbeRequest {}).await;
    answer.map(drop).map_err(|status| format!("the CSI probe failed: {}", status.message()))
}
