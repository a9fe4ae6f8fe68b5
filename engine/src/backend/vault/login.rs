// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! How a session gets its token.
//!
//! A token that a login made lives as long as its session and its short time to live; it is not revoked when the session
//! ends. Once leased secrets are journalled, each lease group gets a login of its own, whose token is revoked with it:
//! that belongs beside [`log_in`], with the journal as its caller.

use reqwest::header::HeaderValue;
use rustify::endpoint::Endpoint as _;
use vaultrs::api::auth::kubernetes::requests::LoginWithKubernetesRequest;
use zeroize::{Zeroize as _, Zeroizing};

use super::answer;
use super::failure::{self, Doing};
use super::transport::{Connections, Request};
use crate::backend::{BackendError, BackendErrorKind, Login};
use crate::credentials::CredentialFiles;
use crate::secret::SecretBytes;
use crate::token::Token;

/// Longest token that is taken, in bytes.
const LONGEST: usize = 16 * 1024;
/// Where a token asks about itself.
const LOOK_UP: &str = "auth/token/lookup-self";

/// What a caller proves itself by.
pub(super) enum Proof<'a> {
    /// A pod's own token, for the Kubernetes method.
    Kubernetes {
        /// Where the method is mounted.
        mount: &'a str,
        /// The role to ask for.
        role: &'a str,
        /// The pod's token.
        token: &'a Token,
    },
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

/// Logs in at one address. With a token that is there already nothing has to be sent; where the address is one of
/// `several`, its owner's own end is asked for, because the reads that follow are not to go from one address to the next.
/// Whether the token is good is for the reads to hear.
pub(super) async fn log_in(
    connections: &Connections,
    proof: &Proof<'_>,
    several: bool,
) -> Result<LoggedIn, BackendError> {
    match proof {
        Proof::Kubernetes { mount, role, token } => kubernetes(connections, mount, role, token).await,
        Proof::Token(token) => {
            if several {
                let request = Request { body: None, path: LOOK_UP, query: None, token: Some(token) };
                let answer = connections.send(request).await?;
                if !matches!(answer.status, 200..=299 | 400..=404) {
                    return Err(failure::refusal(Doing::Login, connections.name(), LOOK_UP, &answer));
                }
            }
            let login = Login { method: "token-file", ..Login::default() };
            Ok(LoggedIn { token: token.clone(), login })
        }
    }
}

/// The Kubernetes method.
async fn kubernetes(
    connections: &Connections,
    mount: &str,
    role: &str,
    token: &Token,
) -> Result<LoggedIn, BackendError> {
    let malformed = |what: &str| {
        BackendError::new(BackendErrorKind::Malformed, format!("{} at auth/{mount}: {what}", connections.name()))
    };
    let jwt = std::str::from_utf8(token.expose()).map_err(|_| malformed("the pod's token is not text"))?;
    let mut request =
        LoginWithKubernetesRequest { mount: mount.to_owned(), role: role.to_owned(), jwt: jwt.to_owned() };
    let body = request.body();
    request.jwt.zeroize();
    // The error of the serializer is dropped: it has seen the token.
    let body =
        body.ok().flatten().map(Zeroizing::new).ok_or_else(|| malformed("the login cannot be written as JSON"))?;
    let path = request.path();
    let path = path.trim_start_matches('/');
    let answer = connections.send(Request { body: Some(body), path, query: None, token: None }).await?;
    if answer.status != 200 {
        return Err(failure::refusal(Doing::Login, connections.name(), path, &answer));
    }
    let given = answer::login(&answer.body).ok_or_else(|| malformed("the login's answer cannot be read"))?;
    let token = header(given.token).ok_or_else(|| malformed("the login's token has characters that no token has"))?;
    let login =
        Login { performed: true, method: "kubernetes", request_id: given.request_id, ttl: given.ttl, endpoint: None };
    Ok(LoggedIn { token, login })
}

/// A token of the platform's own, from its file as it is now.
pub(super) async fn token_file(credentials: &dyn CredentialFiles, name: &str) -> Result<HeaderValue, BackendError> {
    let contents = credentials.read(name).await.map_err(|error| {
        BackendError::new(BackendErrorKind::Unavailable, format!("the token cannot be read: {}", error.message()))
    })?;
    header(SecretBytes::from(contents.expose().trim_ascii())).ok_or_else(|| {
        BackendError::new(
            BackendErrorKind::Unauthenticated,
            format!("credentials file {name:?} does not hold one token: it is empty, too long, or has spaces or control characters inside"),
        )
    })
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
