// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A stand-in for the API of OpenBao, over TLS on loopback: what the vault backend uses of it, everything else a test
//! puts into its mouth, and a record of what it was sent.

#![allow(dead_code, clippy::unwrap_used, reason = "shared by several test crates; a test fails by panicking")]

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use evanesce_engine::backend::vault::VaultBackend;
use evanesce_engine::credentials::CredentialFiles;
use evanesce_engine::error::Error;
use evanesce_engine::names::BackendName;
use evanesce_engine::secret::SecretBytes;
use evanesce_engine::spec::backend::{Limits, PemSource, VaultAuth, VaultSpec};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// One request as it arrived.
#[derive(Clone)]
pub(crate) struct Recorded {
    pub(crate) method: String,
    /// Path and query, byte for byte.
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// What a backend is made with.
pub(crate) struct Settings {
    pub(crate) name: &'static str,
    pub(crate) mount: &'static str,
    pub(crate) role: &'static str,
    pub(crate) audience: &'static str,
    pub(crate) token_file: bool,
    pub(crate) timeout: Duration,
    pub(crate) host: &'static str,
    pub(crate) namespace: Option<String>,
    /// Certificates to trust instead of the stand-in's authority.
    pub(crate) ca: Option<PemSource>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "vault",
            mount: "kubernetes",
            role: "app",
            audience: "vault",
            token_file: false,
            timeout: Duration::from_secs(10),
            host: "localhost",
            namespace: None,
            ca: None,
        }
    }
}

/// Its certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certificate {
    Good,
    Expired,
    OtherName,
}

pub(crate) struct StandIn {
    address: SocketAddr,
    ca: String,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

pub(crate) struct Shared {
    state: Mutex<Memory>,
    connections: watch::Sender<usize>,
    credentials: Mutex<BTreeMap<String, Vec<u8>>>,
}

#[derive(Default)]
struct Memory {
    /// Versions by path below `kv/`; an empty one is deleted.
    kv: BTreeMap<String, Vec<Option<Value>>>,
    next: VecDeque<Scripted>,
    always: Option<Scripted>,
    requests: Vec<Recorded>,
    connections: u64,
    leases: u64,
}

#[derive(Clone)]
struct Scripted {
    status: u16,
    headers: Vec<(String, String)>,
    body: Reply,
}

#[derive(Clone)]
enum Reply {
    Whole(Vec<u8>),
    /// Piece by piece, so that its length is not announced.
    Chunked(Vec<u8>),
    /// Says nothing at all.
    Silence,
}

/// Credentials files that a test can change.
pub(crate) struct Files(pub(crate) Arc<Shared>);

#[async_trait]
impl CredentialFiles for Files {
    async fn read(&self, name: &str) -> Result<SecretBytes, Error> {
        let files = self.0.credentials.lock().unwrap();
        files
            .get(name)
            .map(|bytes| SecretBytes::from(bytes.as_slice()))
            .ok_or_else(|| Error::missing(format!("credentials file {name:?} does not exist")))
    }
}

impl StandIn {
    pub(crate) async fn start() -> Self {
        Self::with(Certificate::Good).await
    }

    pub(crate) async fn with(certificate: Certificate) -> Self {
        let (ca, acceptor) = authority(certificate);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            connections: watch::Sender::new(0),
            credentials: Mutex::default(),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let listener = Tls { listener, acceptor, shared: Arc::clone(&shared) };
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, ca, shared, server }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn ca(&self) -> &str {
        &self.ca
    }

    pub(crate) fn files(&self) -> Arc<Files> {
        Arc::new(Files(Arc::clone(&self.shared)))
    }

    pub(crate) fn credentials(&self, name: &str, contents: &str) {
        self.shared.credentials.lock().unwrap().insert(name.to_owned(), contents.as_bytes().to_vec());
    }

    pub(crate) fn spec(&self, settings: &Settings) -> VaultSpec {
        let auth = if settings.token_file {
            VaultAuth::TokenFile { file: "token".into() }
        } else {
            VaultAuth::Kubernetes {
                mount: settings.mount.into(),
                role: settings.role.into(),
                audience: settings.audience.into(),
            }
        };
        VaultSpec {
            address: format!("https://{}:{}", settings.host, self.port()),
            ca: Some(settings.ca.clone().unwrap_or_else(|| PemSource::Inline(self.ca.clone()))),
            namespace: settings.namespace.clone(),
            auth,
            kv_mounts: vec!["kv".into()],
        }
    }

    pub(crate) fn backend(&self, settings: &Settings) -> VaultBackend {
        let limits = Limits { timeout: settings.timeout, ..Limits::default() };
        let name = BackendName::parse(settings.name).unwrap();
        VaultBackend::new(&self.spec(settings), name, limits, self.files()).unwrap()
    }

    pub(crate) fn put(&self, path: &str, values: &[(&str, &str)]) {
        let values: serde_json::Map<_, _> =
            values.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect();
        self.put_json(path, Value::Object(values));
    }

    pub(crate) fn put_json(&self, path: &str, values: Value) {
        self.shared.state.lock().unwrap().kv.entry(path.to_owned()).or_default().push(Some(values));
    }

    /// Deletes the newest version, as `DELETE kv/data/…` does.
    pub(crate) fn delete(&self, path: &str) {
        *self.shared.state.lock().unwrap().kv.get_mut(path).unwrap().last_mut().unwrap() = None;
    }

    /// Answers the next request in this way.
    pub(crate) fn next(&self, status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) {
        self.shared.state.lock().unwrap().next.push_back(scripted(status, headers, Reply::Whole(body.into())));
    }

    /// Answers the next request without saying how long the answer is.
    pub(crate) fn next_chunked(&self, body: impl Into<Vec<u8>>) {
        self.shared.state.lock().unwrap().next.push_back(scripted(200, &[], Reply::Chunked(body.into())));
    }

    /// Never answers the next request.
    pub(crate) fn next_silent(&self) {
        self.shared.state.lock().unwrap().next.push_back(scripted(200, &[], Reply::Silence));
    }

    /// Answers every request in this way.
    pub(crate) fn always(&self, status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) {
        self.shared.state.lock().unwrap().always = Some(scripted(status, headers, Reply::Whole(body.into())));
    }

    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.shared.state.lock().unwrap().requests.clone()
    }

    /// How many connections were ever made.
    pub(crate) fn connections_made(&self) -> u64 {
        self.shared.state.lock().unwrap().connections
    }

    /// How many connections are open now.
    pub(crate) fn connections(&self) -> watch::Receiver<usize> {
        self.shared.connections.subscribe()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn scripted(status: u16, headers: &[(&str, &str)], body: Reply) -> Scripted {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Scripted { status, headers, body }
}

/// The authority of its certificate, and what answers handshakes.
fn authority(certificate: Certificate) -> (String, TlsAcceptor) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let name = if certificate == Certificate::OtherName { "elsewhere.example" } else { "localhost" };
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    if certificate == Certificate::Expired {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    }
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(leaf.der().to_vec())],
            PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
        )
        .unwrap();
    (ca, TlsAcceptor::from(Arc::new(config)))
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body: Bytes = to_bytes(body, usize::MAX).await.unwrap();
    let headers = parts.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let recorded = Recorded {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        headers: headers.collect(),
        body: body.to_vec(),
    };
    let scripted = {
        let mut state = shared.state.lock().unwrap();
        state.requests.push(recorded.clone());
        state.next.pop_front().or_else(|| state.always.clone())
    };
    if let Some(Scripted { status, headers, body }) = scripted {
        let body = match body {
            Reply::Whole(body) => Body::from(body),
            Reply::Chunked(body) => {
                let pieces: Vec<_> = body.chunks(10_000).map(|piece| Ok::<_, io::Error>(piece.to_vec())).collect();
                Body::from_stream(futures_util::stream::iter(pieces))
            }
            Reply::Silence => std::future::pending().await,
        };
        let response = headers.iter().fold(Response::builder().status(status), |response, (name, value)| {
            response.header(name.as_str(), value.as_str())
        });
        return response.body(body).unwrap();
    }
    let (status, body) = serve(&mut shared.state.lock().unwrap(), &recorded);
    Response::builder()
        .status(StatusCode::from_u16(status).unwrap())
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap()
}

fn serve(state: &mut Memory, request: &Recorded) -> (u16, Value) {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let path = path.strip_prefix("/v1/").unwrap();
    let errors = |status: u16| (status, json!({"errors": ["canary-error-body"]}));
    if path == "sys/health" {
        return (200, json!({"initialized": true, "sealed": false}));
    }
    if let Some(mount) = path.strip_prefix("auth/").and_then(|rest| rest.strip_suffix("/login")) {
        return if mount == "kubernetes" { login(&request.body) } else { errors(404) };
    }
    if !request.headers.get("x-vault-token").is_some_and(|token| token.starts_with("s.")) {
        return errors(403);
    }
    let reply = |data: Value, lease: (&str, u64)| {
        let body = json!({"request_id": "req-1", "lease_id": lease.0, "lease_duration": lease.1, "renewable": lease.1 > 0,
            "data": data, "auth": null, "warnings": null, "wrap_info": null});
        (200, body)
    };
    if let Some(path) = path.strip_prefix("kv/data/") {
        let Some(versions) = state.kv.get(path) else { return errors(if path == "denied" { 403 } else { 404 }) };
        let number = query.strip_prefix("version=").map_or(versions.len(), |number| number.parse().unwrap());
        let metadata = json!({"version": number, "deletion_time": "", "destroyed": false});
        return match versions.get(number - 1) {
            Some(Some(values)) => reply(json!({"data": values, "metadata": metadata}), ("", 0)),
            Some(None) => (404, json!({"data": {"data": null, "metadata": metadata}})),
            None => errors(404),
        };
    }
    if let Some(path) = path.strip_prefix("kv/metadata/") {
        let Some(versions) = state.kv.get(path) else { return errors(404) };
        let states: BTreeMap<String, Value> = versions
            .iter()
            .enumerate()
            .map(|(index, version)| {
                let time = if version.is_some() { "" } else { "2024-01-01T00:00:00.123456789Z" };
                ((index + 1).to_string(), json!({"deletion_time": time, "destroyed": false}))
            })
            .collect();
        return reply(json!({"current_version": versions.len(), "versions": states}), ("", 0));
    }
    match path {
        "database/creds/app" => {
            state.leases += 1;
            let id = format!("database/creds/app/{}", state.leases);
            reply(json!({"username": id, "password": "p"}), (&id, 60))
        }
        "pki/issue/web" if request.method == "POST" => {
            let args: Value = serde_json::from_slice(&request.body).unwrap();
            if args != json!({"common_name": "web.example"}) {
                return errors(400);
            }
            reply(json!({"certificate": "PEM", "private_key": "PEM", "expiration": 4_000_000_000_u64}), ("", 0))
        }
        "pki/issue/web" => errors(405),
        _ => errors(404),
    }
}

/// Accepts the contract suite's workload, and nobody else, for role `app`.
fn login(body: &[u8]) -> (u16, Value) {
    let body: Value = serde_json::from_slice(body).unwrap();
    let claims = body["jwt"].as_str().unwrap().split('.').nth(1).unwrap().to_owned();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    let claims = &claims["kubernetes.io"];
    let known = claims["namespace"] == "payments" && claims["serviceaccount"]["name"] == "app" && body["role"] == "app";
    if !known {
        return (403, json!({"errors": ["canary-error-body"]}));
    }
    let auth = json!({"client_token": "s.canary-token", "accessor": "canary-accessor", "policies": ["default"],
        "token_policies": ["default"], "metadata": {"role": "app"}, "lease_duration": 600, "renewable": true,
        "entity_id": "e", "token_type": "service", "orphan": true});
    (
        200,
        json!({"request_id": "login-1", "lease_id": "", "renewable": false, "lease_duration": 0, "data": null, "auth": auth}),
    )
}

struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
}

impl axum::serve::Listener for Tls {
    type Io = Counted;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Counted, SocketAddr) {
        loop {
            let Ok((stream, peer)) = self.listener.accept().await else { continue };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                self.shared.state.lock().unwrap().connections += 1;
                self.shared.connections.send_modify(|open| *open += 1);
                return (Counted { stream, shared: Arc::clone(&self.shared) }, peer);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that is counted while it is open.
pub(crate) struct Counted {
    stream: TlsStream<TcpStream>,
    shared: Arc<Shared>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.connections.send_modify(|open| *open -= 1);
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
