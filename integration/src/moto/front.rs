// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What stands before moto: AWS's refusals, in AWS's forms, and a list of what was asked.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{ACCOUNT, AUDIENCE};
use crate::token_review::ServiceAccountTokens;

/// Who may assume a role, and what it may read.
#[derive(Debug, Clone)]
pub struct Role {
    /// The service account's namespace.
    pub namespace: String,
    /// The service account.
    pub service_account: String,
    /// How the names of its secrets begin.
    pub secrets: String,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `AssumeRoleWithWebIdentity`, `DescribeSecret`, `GetSecretValue`.
    pub action: String,
    /// The role that was asked for, or asked; empty where nobody knows.
    pub role: String,
    /// The access key that signed; empty for a login.
    pub access_key: String,
    /// What was asked, as it came.
    pub body: String,
}

/// A running front.
pub(super) struct Front {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    moto: &'static str,
    account: String,
    client: reqwest::Client,
    tokens: Arc<ServiceAccountTokens>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    roles: HashMap<String, Role>,
    /// The role of each access key that was given.
    given: HashMap<String, String>,
    calls: Vec<Call>,
    throttle: Option<u32>,
}

impl Front {
    pub(super) async fn start(
        moto: &'static str,
        account: &str,
        client: reqwest::Client,
        tokens: Arc<ServiceAccountTokens>,
    ) -> Result<Self> {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no free port")?;
        let address = tcp.local_addr()?;
        let account = account.to_owned();
        let shared = Arc::new(Shared { moto, account, client, tokens, known: Mutex::default() });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            // Ends only with the runtime.
            let _ = axum::serve(tcp, router).await;
        });
        Ok(Self { address, shared, server })
    }

    pub(super) fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn trust(&self, role: &str, who: Role) {
        self.shared.known().roles.insert(role.to_owned(), who);
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.shared.known().calls.clone()
    }

    pub(super) fn throttle(&self, seconds: u32) {
        self.shared.known().throttle = Some(seconds);
    }

    pub(super) fn expire_credentials(&self) {
        self.shared.known().given.clear();
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nobody panics with this lock held")
    }

    /// Has moto answer; the body as text, to look at and to pass on.
    async fn pass(&self, headers: &HeaderMap, body: Bytes) -> reqwest::Result<(StatusCode, String)> {
        let mut request = self.client.post(self.moto).header(ACCOUNT, &self.account).body(body);
        for name in ["authorization", "content-type", "x-amz-target"] {
            if let Some(value) = headers.get(name) {
                request = request.header(name, value.as_bytes());
            }
        }
        let answer = request.send().await?;
        let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
        Ok((status, answer.text().await?))
    }
}

async fn answer(State(shared): State<Arc<Shared>>, method: Method, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target").and_then(|it| it.to_str().ok()?.strip_prefix("secretsmanager."));
    let refusal = match target {
        Some(action) => read(&shared, action, &headers, &body),
        None if method == Method::POST => login(&shared, &body),
        None => return StatusCode::NOT_FOUND.into_response(),
    };
    if let Some(refusal) = refusal {
        return refusal;
    }
    match shared.pass(&headers, body.clone()).await {
        Ok((status, text)) => {
            if let (None, Some(key)) = (target, between(&text, "<AccessKeyId>", "</AccessKeyId>")) {
                let role = form(&body).remove("RoleArn").unwrap_or_default();
                shared.known().given.insert(key.to_owned(), role);
            }
            let kind = if target.is_some() { "application/x-amz-json-1.1" } else { "text/xml" };
            (status, [("content-type", kind), ("x-amzn-requestid", "5b8e4c1c-front")], text).into_response()
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

/// The refusal to a pod that may not have a role.
fn login(shared: &Shared, body: &Bytes) -> Option<Response> {
    let form = form(body);
    let field = |name: &str| form.get(name).cloned().unwrap_or_default();
    let (action, role) = (field("Action"), field("RoleArn"));
    let mut known = shared.known();
    known.calls.push(Call {
        action: action.clone(),
        role: role.clone(),
        access_key: String::new(),
        body: String::new(),
    });
    if action != "AssumeRoleWithWebIdentity" {
        return Some(xml(StatusCode::BAD_REQUEST, "InvalidAction"));
    }
    let claims = match shared.tokens.verify(&field("WebIdentityToken"), &[AUDIENCE]) {
        Ok(claims) => claims,
        Err(error) if error.to_string().contains("expired") => {
            return Some(xml(StatusCode::BAD_REQUEST, "ExpiredTokenException"));
        }
        Err(_) => return Some(xml(StatusCode::BAD_REQUEST, "InvalidIdentityToken")),
    };
    let trusted = known.roles.get(&role).is_some_and(|who| {
        (&who.namespace, &who.service_account) == (&claims.workload.namespace, &claims.workload.service_account)
    });
    (!trusted).then(|| xml(StatusCode::FORBIDDEN, "AccessDenied"))
}

/// The refusal to a role that may not read a secret.
fn read(shared: &Shared, action: &str, headers: &HeaderMap, body: &Bytes) -> Option<Response> {
    let signed = headers.get("authorization").and_then(|it| it.to_str().ok()).unwrap_or_default();
    let key = between(signed, "Credential=", "/").unwrap_or_default();
    let asked: Value = serde_json::from_slice(body).unwrap_or_default();
    let id = asked["SecretId"].as_str().unwrap_or_default();
    let name = id.split_once(":secret:").map_or(id, |(_, name)| name);
    let mut known = shared.known();
    let role = known.given.get(key).cloned().unwrap_or_default();
    known.calls.push(Call {
        action: action.to_owned(),
        role: role.clone(),
        access_key: key.to_owned(),
        body: String::from_utf8_lossy(body).into_owned(),
    });
    if let Some(seconds) = known.throttle {
        let mut refusal = json(StatusCode::BAD_REQUEST, "ThrottlingException", "Rate exceeded");
        refusal.headers_mut().insert("retry-after", seconds.into());
        return Some(refusal);
    }
    if role.is_empty() || !headers.contains_key("x-amz-security-token") {
        return Some(json(StatusCode::BAD_REQUEST, "ExpiredTokenException", "The security token is expired"));
    }
    let allowed = known.roles.get(&role).is_some_and(|who| name.starts_with(&who.secrets));
    let refusal = || json(StatusCode::BAD_REQUEST, "AccessDeniedException", "User is not authorized to do this");
    (!allowed).then(refusal)
}

fn form(body: &[u8]) -> HashMap<String, String> {
    let address = format!("http://form/?{}", String::from_utf8_lossy(body));
    let pairs = reqwest::Url::parse(&address).map(|url| url.query_pairs().into_owned().collect());
    pairs.unwrap_or_default()
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    text.split_once(open)?.1.split_once(close).map(|(inside, _)| inside)
}

fn json(status: StatusCode, code: &str, words: &str) -> Response {
    let body = serde_json::json!({"__type": code, "Message": words}).to_string();
    (status, [("content-type", "application/x-amz-json-1.1")], body).into_response()
}

fn xml(status: StatusCode, code: &str) -> Response {
    let body = format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"
    );
    (status, [("content-type", "text/xml")], body).into_response()
}
