// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The part of a Kubernetes API server that matters to OpenBao: it reviews service-account
//! tokens, and (here) makes them too.
//!
//! OpenBao's kubernetes auth method parses a token's claims and asks
//! `POST /apis/authentication.k8s.io/v1/tokenreviews` whether it is genuine. This stand-in
//! answers as an API server does: signature, expiry and audience must be right, and whoever asks
//! must show a token of its own.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    routing::post,
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::authority::Authority;

mod tokens;

pub use tokens::{Claims, ServiceAccountTokens, Token, WorkloadName};

/// What the API server calls itself in tokens that are meant for it.
const OWN_AUDIENCE: &str = "https://kubernetes.default.svc";

/// A running TokenReview API over TLS on loopback.
pub struct TokenReview {
    authority: Authority,
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    tokens: Arc<ServiceAccountTokens>,
    reviews: AtomicU64,
}

impl TokenReview {
    /// Starts it, in the background of the current runtime.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start() -> Result<Self> {
        let authority = Authority::new("evanesce test authority for kubernetes")?;
        let tls = acceptor(&authority)?;
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no free port")?;
        let address = tcp.local_addr()?;
        let shared = Arc::new(Shared { tokens: Arc::new(ServiceAccountTokens::new()?), reviews: AtomicU64::new(0) });
        let router = Router::new()
            .route("/apis/authentication.k8s.io/v1/tokenreviews", post(review))
            .with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            // Ends only with the runtime.
            let _ = axum::serve(TlsListener { tcp, tls }, router).await;
        });
        Ok(Self { authority, address, shared, server })
    }

    /// The address, as in `kubernetes_host`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The certificate authority to trust, as in `kubernetes_ca_cert`.
    #[must_use]
    pub fn authority_pem(&self) -> &str {
        self.authority.pem()
    }

    /// The one who makes tokens that this API knows.
    #[must_use]
    pub fn tokens(&self) -> &Arc<ServiceAccountTokens> {
        &self.shared.tokens
    }

    /// A token that may ask for reviews, as in `token_reviewer_jwt`.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn reviewer_token(&self) -> Result<String> {
        let reviewer = WorkloadName::new("openbao", "reviewer", "openbao-0");
        Ok(self.tokens().mint(&Claims::new(&reviewer, OWN_AUDIENCE))?.token)
    }

    /// How many reviews were asked for.
    #[must_use]
    pub fn reviews(&self) -> u64 {
        self.shared.reviews.load(Ordering::Relaxed)
    }
}

impl Drop for TokenReview {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn review(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Json(mut body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    shared.reviews.fetch_add(1, Ordering::Relaxed);
    let asker = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .map(|token| shared.tokens.verify(token, &[OWN_AUDIENCE]));
    if !matches!(asker, Some(Ok(_))) {
        let status = json!({"kind": "Status", "status": "Failure", "code": 401});
        return (StatusCode::UNAUTHORIZED, Json(status));
    }
    let audiences: Vec<&str> = body["spec"]["audiences"]
        .as_array()
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .filter(|list: &Vec<_>| !list.is_empty())
        .unwrap_or_else(|| vec![OWN_AUDIENCE]);
    let token = body["spec"]["token"].as_str().unwrap_or_default();
    body["status"] = match shared.tokens.verify(token, &audiences) {
        Ok(verified) => json!({
            "authenticated": true,
            "user": {
                "username": verified.workload.username(),
                "uid": verified.workload.service_account_uid,
                "groups": [
                    "system:serviceaccounts",
                    format!("system:serviceaccounts:{}", verified.workload.namespace),
                    "system:authenticated",
                ],
            },
            "audiences": [verified.audience],
        }),
        Err(error) => json!({
            "user": {},
            "error": format!("[invalid bearer token, {error}]"),
        }),
    };
    (StatusCode::CREATED, Json(body))
}

fn acceptor(authority: &Authority) -> Result<TlsAcceptor> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

    let identity = authority.server_identity()?;
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

struct TlsListener {
    tcp: TcpListener,
    tls: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, peer) = axum::serve::Listener::accept(&mut self.tcp).await;
            // Whoever fails to shake hands is none of ours.
            if let Ok(stream) = self.tls.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}
