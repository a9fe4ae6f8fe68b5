// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A network that is far: passes bytes on, each as late as it came, in both directions.
//!
//! Nothing is held back beyond its time, so requests that travel together arrive together: what is measured through it
//! is latency, not bandwidth. TLS goes through unopened.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// Chunks that are on their way in one direction of one connection.
const ON_THE_WAY: usize = 1024;

/// A running link, from a port of its own on loopback to a server on loopback.
pub struct SlowLink {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl SlowLink {
    /// Its near end, whose port the plugin has to be told before the far end is there.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn near() -> Result<TcpListener> {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no free port")
    }

    /// Starts it, in the background of the current runtime; an answer takes `round_trip` longer than it would.
    ///
    /// # Errors
    /// When the near end has no address.
    pub fn start(tcp: TcpListener, server: SocketAddr, round_trip: Duration) -> Result<Self> {
        let address = tcp.local_addr()?;
        let accepting = tokio::spawn(async move {
            // Connections end with the link.
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = tcp.accept().await {
                connections.spawn(connect(near, server, round_trip / 2));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, accepting })
    }

    /// Where to connect instead of to the server.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connect(near: TcpStream, server: SocketAddr, way: Duration) {
    let Ok(far) = TcpStream::connect(server).await else { return };
    for end in [&near, &far] {
        // Else small packets would wait for each other too.
        let _ = end.set_nodelay(true);
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::join!(pass(near_in, far_out, way), pass(far_in, near_out, way));
}

/// Passes bytes on until their end, and then the end.
async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, way: Duration) {
    let (send, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let read = async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if send.send((Instant::now() + way, buffer[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((arrival, bytes)) = arriving.recv().await {
            tokio::time::sleep_until(arrival).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}
