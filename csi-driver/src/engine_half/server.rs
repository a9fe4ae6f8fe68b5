// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! gRPC on sockets that the warden bound. Peers other than root are sent away before they can say a word; a connection
//! that brought a token does not stay.
//!
//! What came over a connection lies in its read buffer until the next call writes over it, so a client that stays
//! connected would keep the last pod's token in our memory. Such a connection is closed in the way that HTTP/2 has for
//! it: `GOAWAY` once the call is answered, and the end when the other calls on it are too. grpc-go dials again and sends
//! anew what had not arrived; kubelet dials for every call anyway.

use std::convert::Infallible;
use std::io;
use std::os::unix::net;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tower::Service as _;
use tracing::warn;

use crate::engine_half::metrics::Metrics;

/// The calls whose messages have a place for secrets (CSI 1.12, fields marked `csi_secret`, and `volume_context` of older
/// kubelets).
const MAY_BRING_SECRETS: [&str; 3] =
    ["/csi.v1.Node/NodePublishVolume", "/csi.v1.Node/NodeStageVolume", "/csi.v1.Node/NodeExpandVolume"];

/// In the answer to such a call: it brought none. Without it the connection goes; so it does where the message could not
/// even be read.
#[derive(Clone, Copy, Debug)]
pub struct BroughtNoSecret;

/// A listener of the warden's, for tokio.
///
/// # Errors
/// What the kernel says.
pub fn listener(socket: net::UnixListener) -> io::Result<UnixListener> {
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket)
}

/// Answers root's calls until `stop`, and those that have come by then to their end.
pub async fn serve(listener: UnixListener, routes: Routes, metrics: Arc<Metrics>, stop: CancellationToken) {
    let routes = routes.prepare();
    let connections = TaskTracker::new();
    while let Some(stream) = stop.run_until_cancelled(from_root(&listener, &metrics)).await {
        connections.spawn(connection(stream, routes.clone(), stop.child_token()));
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// The next connection of root's. The socket's mode says the same; this holds also where somebody changed it.
async fn from_root(listener: &UnixListener, metrics: &Metrics) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match stream.peer_cred() {
                Ok(peer) if peer.uid() == 0 => return stream,
                Ok(peer) => {
                    metrics.peer_refused();
                    warn!(uid = peer.uid(), pid = peer.pid(), "connection refused: only root may call");
                }
                Err(error) => warn!(%error, "connection refused: its peer is not known"),
            },
            // Out of descriptors, most likely: the next one may fit.
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Serves one connection until its client closes it, or `close` and the calls on it are answered.
async fn connection(stream: UnixStream, routes: Routes, close: CancellationToken) {
    let closing = close.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let may_bring_secrets = MAY_BRING_SECRETS.contains(&request.uri().path());
        let answer = routes.clone().call(request);
        let closing = closing.clone();
        async move {
            let answer = answer.await?;
            if may_bring_secrets && answer.extensions().get::<BroughtNoSecret>().is_none() {
                closing.cancel();
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut served = pin!(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service));
    // How it ends is the client's affair: grpc-go hangs up in the middle of HTTP/2's farewell.
    tokio::select! {
        _ = served.as_mut() => {}
        () = close.cancelled() => {
            served.as_mut().graceful_shutdown();
            let _ = served.await;
        }
    }
}
