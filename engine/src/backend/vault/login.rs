// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! How a session gets its token.
//!
//! A token that a login made lives as long as its session and its short time to live; it is not revoked when the session
//! ends. Once leased secrets are journalled, each lease group gets a login of its own, whose token is revoked with it:
//! that belongs beside [`log_in`], with the journal as its caller.

use reqwest::header::HeaderValue;
use rustify::endpoint::Endpoint as _;
use serde_json::json;
use vaultrs::api::auth::approle::requests::LoginWithApproleRequest;
use vaultrs::api::auth::kubernetes::requests::LoginWithKubernetesRequest;
use zeroize::{Zeroize as _, Zeroizing};

use super::answer;
use super::auth::Auth;
use super::failure::{self, Doing};
use super::transport::{Connections, Request};
use crate::backend::{BackendError, BackendErrorKind, Identity, Login};
use crate::secret::SecretBytes;
use crate::token::Token;

/// Longest token that is taken, in bytes.
pub(super) const LONGEST: usize = 16 * 1024;
/// Where a token asks about itself.
const LOOK_UP: &str = "auth/token/lookup-self";

/// What a caller proves itself by.
pub(super) enum Proof<'a> {
    /// A pod's own token, for the kubernetes or the jwt method.
    PodToken(&'a Token),
    /// For the approle method.
    AppRole {
        /// Which role.
        role_id: SecretBytes,
        /// What makes one its holder.
        secret_id: SecretBytes,
    },
    /// What the connection has shown already.
    Certificate,
    /// A token of the server's that is there already.
    Token(HeaderValue),
}

/// What follows from a login.
pub(super) struct LoggedIn {
    /// The token as it is sent.
    pub(super) token: HeaderValue,
    /// What may be said about it.
    pub(super) login: Login,
}

/// Logs in at one address, as `identity`. With a token that is there already nothing has to be sent; where the address is
/// one of `several`, its owner's own end is asked for, because the reads that follow are not to go from one address to the
/// next. Whether the token is good is for the reads to hear.
pub(super) async fn log_in(
    connections: &Connections,
    auth: &Auth,
    identity: &Identity,
    proof: &Proof<'_>,
    several: bool,
) -> Result<LoggedIn, BackendError> {
    if let Proof::Token(token) = proof {
        if several {
            let request = Request { body: None, path: LOOK_UP, query: None, token: Some(token) };
            let answer = connections.send(request).await?;
            if !matches!(answer.status, 200..=299 | 400..=404) {
                return Err(failure::refusal(Doing::Login(auth), connections.name(), LOOK_UP, &answer));
            }
        }
        let login = Login { method: auth.method(), ..Login::default() };
        return Ok(LoggedIn { token: token.clone(), login });
    }
    let path = format!("auth/{}/login", identity.mount);
    let malformed = |what: &str| {
        BackendError::new(BackendErrorKind::Malformed, format!("{} at {path}: {what}", connections.name()))
    };
    let body = body(identity, proof).ok_or_else(|| malformed("the login cannot be written as JSON"))?;
    let answer = connections.send(Request { body: Some(body), path: &path, query: None, token: None }).await?;
    if answer.status != 200 {
        return Err(failure::refusal(Doing::Login(auth), connections.name(), &path, &answer));
    }
    let given = answer::login(&answer.body).ok_or_else(|| malformed("the login's answer cannot be read"))?;
    let token = header(given.token).ok_or_else(|| malformed("the login's token has characters that no token has"))?;
    let login =
        Login { performed: true, method: auth.method(), request_id: given.request_id, ttl: given.ttl, endpoint: None };
    Ok(LoggedIn { token, login })
}

/// What is sent to log in; nothing where a part of it is no text. A serializer's error is dropped: it has seen the proof.
fn body(identity: &Identity, proof: &Proof<'_>) -> Option<Zeroizing<Vec<u8>>> {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    let mount = identity.mount.clone();
    let body = match proof {
        Proof::PodToken(token) => {
            let (role, jwt) = (identity.role.clone(), text(token.expose())?);
            let mut request = LoginWithKubernetesRequest { mount, role, jwt };
            let body = request.body();
            request.jwt.zeroize();
            body.ok()?
        }
        Proof::AppRole { role_id, secret_id } => {
            let (role_id, secret_id) = (text(role_id.expose())?, text(secret_id.expose())?);
            let mut request = LoginWithApproleRequest { mount, role_id, secret_id };
            let body = request.body();
            request.role_id.zeroize();
            request.secret_id.zeroize();
            body.ok()?
        }
        // Of `vaultrs` it would be `cert_name`, which no server reads: every role would be tried.
        Proof::Certificate if identity.role.is_empty() => Some(b"{}".to_vec()),
        Proof::Certificate => Some(json!({ "name": identity.role }).to_string().into_bytes()),
        Proof::Token(_) => None,
    };
    body.map(Zeroizing::new)
}

/// The token as a header that no log shows and that wipes its bytes with its last copy.
pub(super) fn header(token: SecretBytes) -> Option<HeaderValue> {
    let fits = (1..=LONGEST).contains(&token.len()) && token.expose().iter().all(u8::is_ascii_graphic);
    if !fits {
        return None;
    }
    let mut header = HeaderValue::from_maybe_shared(bytes::Bytes::from_owner(Owned(token))).ok()?;
    header.set_sensitive(true);
    Some(header)
}

struct Owned(SecretBytes);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_no_header_is_refused() {
        let token = |text: &str| header(SecretBytes::from(text.as_bytes()));
        assert_eq!(token("s.abc").unwrap().as_bytes(), b"s.abc");
        for bad in ["", "a b", "a\nX-Vault-Namespace: b", "a\0", "ä", &"a".repeat(LONGEST + 1)] {
            assert!(token(bad).is_none(), "accepted {bad:?}");
        }
    }

    #[test]
    fn a_token_is_never_shown() {
        let header = header(SecretBytes::from(&b"s.canary"[..])).unwrap();
        assert!(!format!("{header:?}").contains("canary"));
    }
}
