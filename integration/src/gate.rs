// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A door in front of a [`Recorder`], over TLS, that has whatever fault a test wants, and can be mended.
//!
//! Faults are those of servers and networks: below HTTP, in the handshake, in the bytes of an answer. They begin with the
//! next connection.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::authority::{Authority, ServerIdentity, Validity};
use crate::recorder::Recorder;

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: it leads to the recorder.
    None,
    /// Nobody listens.
    Down,
    /// Connections are taken, and nothing is ever said.
    Mute,
    /// Requests are taken and never answered.
    Silent,
    /// Each request is answered with these bytes, and the connection ends.
    Answer(Vec<u8>),
    /// The certificate is out of date.
    Expired,
    /// The certificate is for another name.
    OtherName,
    /// The certificate is of an authority that nobody knows.
    UnknownAuthority,
}

impl Fault {
    /// An answer of this status, with further headers.
    #[must_use]
    pub fn status(status: u16, headers: &str) -> Self {
        Self::Answer(format!("HTTP/1.1 {status} Fault\r\n{headers}content-length: 6\r\n\r\ncanary").into_bytes())
    }

    /// An answer with this body.
    #[must_use]
    pub fn body(body: &[u8]) -> Self {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        Self::Answer([head.as_bytes(), body].concat())
    }

    /// An answer that ends before its announced end.
    #[must_use]
    pub fn broken() -> Self {
        Self::Answer(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"auth\":".to_vec())
    }
}

/// A running gate.
pub struct Gate {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    server: JoinHandle<()>,
}

/// What answers handshakes.
#[derive(Clone)]
struct Identities {
    good: TlsAcceptor,
    expired: TlsAcceptor,
    other_name: TlsAcceptor,
    unknown: TlsAcceptor,
}

impl Gate {
    /// Opens a gate to `recorder`, with a certificate of `authority`.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(authority: &Authority, recorder: &Recorder) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no free port")?;
        let address = listener.local_addr()?;
        let stranger = Authority::new("nobody knows it")?.server_identity()?;
        let identities = Identities {
            good: acceptor(&authority.server_identity()?)?,
            expired: acceptor(&authority.issue(&["127.0.0.1"], Validity::Past)?)?,
            other_name: acceptor(&authority.issue(&["elsewhere.example"], Validity::Now)?)?,
            unknown: acceptor(&stranger)?,
        };
        let (fault, faults) = watch::channel(Fault::None);
        let server = tokio::spawn(serve(listener, address, identities, recorder.socket_address(), faults));
        Ok(Self { address, fault, server })
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on this is wrong with it.
    pub async fn set(&self, fault: Fault) {
        let closes = fault == Fault::Down;
        self.fault.send_replace(fault);
        // The listener is closed by somebody else: a test that goes on must not find it.
        while closes && TcpStream::connect(self.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn acceptor(identity: &ServerIdentity) -> Result<TlsAcceptor> {
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?],
            PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?,
        )?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    identities: Identities,
    recorder: SocketAddr,
    mut faults: watch::Receiver<Fault>,
) {
    let mut listener = Some(listener);
    loop {
        if *faults.borrow_and_update() == Fault::Down {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(address).await.ok();
        }
        let Some(listens) = &listener else {
            if faults.changed().await.is_err() {
                return;
            }
            continue;
        };
        tokio::select! {
            changed = faults.changed() => if changed.is_err() { return },
            accepted = listens.accept() => if let Ok((stream, _)) = accepted {
                let fault = faults.borrow().clone();
                let identities = identities.clone();
                // Whoever is sent away by a fault is no error of ours.
                tokio::spawn(async move { drop(receive(stream, fault, identities, recorder).await) });
            }
        }
    }
}

async fn receive(stream: TcpStream, fault: Fault, identities: Identities, recorder: SocketAddr) -> Result<()> {
    if fault == Fault::Mute {
        // Until the other side has had enough.
        let mut stream = stream;
        while stream.read(&mut [0; 1024]).await? > 0 {}
        return Ok(());
    }
    let identity = match fault {
        Fault::Expired => &identities.expired,
        Fault::OtherName => &identities.other_name,
        Fault::UnknownAuthority => &identities.unknown,
        _ => &identities.good,
    };
    let mut stream = identity.accept(stream).await?;
    match fault {
        Fault::Answer(bytes) => {
            // What is left of a longer request may be cut off: its answer is one that nobody hopes for.
            let _some_of_it = stream.read(&mut [0; 16 << 10]).await?;
            stream.write_all(&bytes).await?;
            stream.shutdown().await?;
        }
        Fault::Silent => while stream.read(&mut [0; 1024]).await? > 0 {},
        _ => drop(copy_bidirectional(&mut stream, &mut TcpStream::connect(recorder).await?).await?),
    }
    Ok(())
}
