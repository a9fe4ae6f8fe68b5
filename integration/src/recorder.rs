// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A stand-in for a Vault server that writes down what it is sent, byte for byte, and misbehaves on request.
//!
//! Use the real server for what a server does; this one for what a client sends, and for answers that a healthy server
//! does not give.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `GET`, `POST`, …
    pub method: String,
    /// The request target exactly as it stood in the request line.
    pub target: String,
    /// The header `X-Vault-Token`.
    pub token: Option<String>,
}

/// What to answer instead of the secret.
#[derive(Debug, Clone)]
pub struct Misbehaviour {
    /// The status code.
    pub status: u16,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

/// A running recorder, over plain HTTP on loopback.
pub struct Recorder {
    address: SocketAddr,
    shared: Arc<Shared>,
    hang: watch::Sender<bool>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    secrets: Mutex<HashMap<String, Value>>,
    misbehaviour: Mutex<Option<Misbehaviour>>,
    token: Mutex<Option<String>>,
}

impl Recorder {
    /// Starts it, in the background of the current runtime.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start() -> Result<Self> {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no free port")?;
        let address = tcp.local_addr()?;
        let shared = Arc::new(Shared::default());
        let (hang, hanging) = watch::channel(false);
        let router = Router::new().fallback(answer).with_state((Arc::clone(&shared), hanging));
        let server = tokio::spawn(async move {
            // Ends only with the runtime.
            let _ = axum::serve(tcp, router).await;
        });
        Ok(Self { address, shared, hang, server })
    }

    /// Where it listens.
    #[must_use]
    pub fn socket_address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on logins bring this token.
    pub fn give_token(&self, token: &str) {
        *lock(&self.shared.token) = Some(token.to_owned());
    }

    /// Holds a new version of the secret `mount/path`, as KV version 2 does.
    pub fn put(&self, mount: &str, path: &str, data: &Value) {
        let mut secrets = lock(&self.shared.secrets);
        let metadata = format!("/v1/{mount}/metadata/{path}");
        let before = secrets.get(&metadata).and_then(|old| old["data"]["current_version"].as_u64());
        let version = before.unwrap_or(0) + 1;
        let about = json!({"created_time": "2026-01-01T00:00:00Z", "deletion_time": "", "destroyed": false});
        secrets
            .insert(metadata, envelope(json!({"current_version": version, "versions": {version.to_string(): about}})));
        let mut about = about;
        about["version"] = version.into();
        secrets.insert(format!("/v1/{mount}/data/{path}"), envelope(json!({"data": data, "metadata": about})));
    }

    /// Answers reads of `path` (without `/v1/`) with this `data`.
    pub fn answer(&self, path: &str, data: Value) {
        lock(&self.shared.secrets).insert(format!("/v1/{path}"), envelope(data));
    }

    /// From now on answers every read like this; logins go on.
    pub fn misbehave(&self, how: Option<Misbehaviour>) {
        *lock(&self.shared.misbehaviour) = how;
    }

    /// From now on answers nothing, until told otherwise.
    pub fn hang(&self, hang: bool) {
        self.hang.send_replace(hang);
    }

    /// Everything that came so far, oldest first.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// The targets of everything that came so far and neither begins a login nor ends one.
    #[must_use]
    pub fn reads(&self) -> Vec<String> {
        let is_read = |target: &String| !target.ends_with("/login") && target != "/v1/auth/token/revoke-self";
        self.seen().into_iter().map(|seen| seen.target).filter(is_read).collect()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(
    State((shared, mut hanging)): State<(Arc<Shared>, watch::Receiver<bool>)>,
    request: Request,
) -> Response {
    let target = request.uri().to_string();
    lock(&shared.seen).push(Seen {
        method: request.method().to_string(),
        target: target.clone(),
        token: request.headers().get("x-vault-token").map(|token| String::from_utf8_lossy(token.as_bytes()).into()),
    });
    // Fails only when the recorder is gone, and nobody waits for this answer.
    let _ = hanging.wait_for(|hang| !hang).await;
    if target.ends_with("/login") {
        let token = lock(&shared.token).clone().unwrap_or_else(|| "s.recorded".to_owned());
        let auth = json!({"client_token": token, "lease_duration": 600, "renewable": true, "policies": ["p"],
            "accessor": "recorded", "metadata": {}, "token_policies": ["p"], "entity_id": "", "token_type": "service",
            "orphan": true, "num_uses": 0});
        return json_answer(&json!({"request_id": "recorded", "auth": auth, "lease_id": "", "lease_duration": 0,
            "renewable": false, "data": null}));
    }
    if let Some(how) = lock(&shared.misbehaviour).clone() {
        let mut response = Response::builder().status(how.status);
        // A length that is announced may be more than what comes; of a body that it knows, the server would not believe it.
        let announced = how.headers.iter().any(|(name, _)| *name == "content-length");
        let streamed = tokio_stream::once(Ok::<_, std::convert::Infallible>(how.body.clone()));
        for (name, value) in how.headers {
            response = response.header(name, value);
        }
        let body = if announced { Body::from_stream(streamed) } else { how.body.into() };
        return response.body(body).unwrap_or_else(|_| StatusCode::IM_A_TEAPOT.into_response());
    }
    match lock(&shared.secrets).get(&target) {
        Some(answer) => json_answer(answer),
        None => (StatusCode::NOT_FOUND, r#"{"errors":[]}"#).into_response(),
    }
}

fn envelope(data: Value) -> Value {
    json!({"request_id": "recorded", "lease_id": "", "renewable": false, "lease_duration": 0, "data": data})
}

fn json_answer(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with this lock held")
}
