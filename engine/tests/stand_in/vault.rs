// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A stand-in for the API of OpenBao, over TLS on loopback: what the vault backend uses of it, everything else a test
//! puts into its mouth, and a record of what it was sent.

#![allow(dead_code, clippy::unwrap_used, reason = "shared by several test crates; a test fails by panicking")]

#[path = "vault/api.rs"]
mod api;
#[path = "vault/tls.rs"]
mod tls;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use evanesce_engine::backend::contract::{grant, parse_token, unsigned_token, workload};
use evanesce_engine::backend::vault::VaultBackend;
use evanesce_engine::backend::{Backend, BackendError, Caller, Session};
use evanesce_engine::credentials::CredentialFiles;
use evanesce_engine::error::Error;
use evanesce_engine::names::BackendName;
use evanesce_engine::policy::Grant;
use evanesce_engine::secret::SecretBytes;
use evanesce_engine::spec::backend::{ClientCertificate, Limits, PemSource, VaultAuth, VaultSpec};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

use api::serve;
use tls::{Tls, authority};

/// The key of [`StandIn::with_a_secret`]'s value.
pub(crate) const KEY: &str = "a";

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
    /// Another way to log in than the kubernetes method or the token's file.
    pub(crate) auth: Option<VaultAuth>,
    /// The credentials files `client.pem` and `client.key` are shown to the server.
    pub(crate) client_certificate: bool,
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
            auth: None,
            client_certificate: false,
            timeout: Duration::from_secs(10),
            host: "localhost",
            namespace: None,
            ca: None,
        }
    }
}

/// Its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Ends with the connection, in the middle.
    Broken,
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

    /// One that holds `kv/db` and whose backend has the token of a file.
    pub(crate) async fn with_a_secret() -> Self {
        let server = Self::start().await;
        server.put("db", &[(KEY, "value")]);
        server.credentials("token", "s.from-file");
        server
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
        let auth = if let Some(auth) = &settings.auth {
            auth.clone()
        } else if settings.token_file {
            VaultAuth::TokenFile { file: "token".into() }
        } else {
            VaultAuth::Kubernetes {
                mount: settings.mount.into(),
                role: settings.role.into(),
                audience: settings.audience.into(),
            }
        };
        VaultSpec {
            addresses: vec![format!("https://{}:{}", settings.host, self.port())],
            ca: Some(settings.ca.clone().unwrap_or_else(|| PemSource::Inline(self.ca.clone()))),
            client_certificate: settings
                .client_certificate
                .then(|| ClientCertificate { file: "client.pem".into(), key_file: "client.key".into() }),
            namespace: settings.namespace.clone(),
            auth,
            kv_mounts: vec!["kv".into()],
            kv1_mounts: vec!["kv1".into()],
        }
    }

    pub(crate) fn backend(&self, settings: &Settings) -> VaultBackend {
        let limits = Limits { timeout: settings.timeout, ..Limits::default() };
        let name = BackendName::parse(settings.name).unwrap();
        VaultBackend::new(&self.spec(settings), name, limits, self.files(), Arc::default()).unwrap()
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

    /// Never answers any request.
    pub(crate) fn always_silent(&self) {
        self.shared.state.lock().unwrap().always = Some(scripted(200, &[], Reply::Silence));
    }

    /// Closes the connection in the middle of each answer.
    pub(crate) fn always_broken(&self) {
        self.shared.state.lock().unwrap().always = Some(scripted(200, &[], Reply::Broken));
    }

    /// Answers every request in this way.
    pub(crate) fn always(&self, status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) {
        self.shared.state.lock().unwrap().always = Some(scripted(status, headers, Reply::Whole(body.into())));
    }

    /// Answers as it should again.
    pub(crate) fn recover(&self) {
        self.shared.state.lock().unwrap().always = None;
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

/// A login of the one workload.
pub(crate) async fn open(backend: &VaultBackend) -> Result<Box<dyn Session>, BackendError> {
    let workload = workload();
    let token = parse_token(&unsigned_token(&workload, "uid-1"));
    let caller = Caller { workload: &workload, token: Some(&token) };
    let identity = backend.identity(&caller, None).unwrap();
    backend.open(&caller, &identity).await
}

/// Leave to read what is there now.
pub(crate) fn newest(backend: &VaultBackend, path: &str) -> Grant {
    grant(backend, path, None, BTreeMap::new())
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
            Reply::Broken => {
                let pieces = [Ok(b"{\"data\":".to_vec()), Err(io::Error::from(io::ErrorKind::BrokenPipe))];
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
