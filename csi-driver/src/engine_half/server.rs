// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! gRPC on sockets that the warden bound: peers other than root are sent away before they can say a word.

use std::io;
use std::os::unix::net;
use std::sync::Arc;

use futures_util::Stream;
use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

use crate::engine_half::metrics::Metrics;

/// A listener of the warden's, for tokio.
///
/// # Errors
/// What the kernel says.
pub fn listener(socket: net::UnixListener) -> io::Result<UnixListener> {
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket)
}

/// Connections of root's. The socket's mode says the same; this holds also where somebody changed it.
pub fn from_root(listener: UnixListener, metrics: Arc<Metrics>) -> impl Stream<Item = io::Result<UnixStream>> {
    futures_util::stream::unfold((listener, metrics), |(listener, metrics)| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => match stream.peer_cred() {
                    Ok(peer) if peer.uid() == 0 => return Some((Ok(stream), (listener, metrics))),
                    Ok(peer) => {
                        metrics.peer_refused();
                        warn!(uid = peer.uid(), pid = peer.pid(), "connection refused: only root may call");
                    }
                    Err(error) => warn!(%error, "connection refused: its peer is not known"),
                },
                // Out of descriptors, most likely: the next one may fit.
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
    })
}
