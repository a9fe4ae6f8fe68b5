// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! One login and the reads it makes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use reqwest::header::HeaderValue;
use zeroize::Zeroizing;

use super::addresses::At;
use super::answer::{self, Found};
use super::failure::{self, Doing, What};
use super::paths::{KvMounts, Place};
use super::transport::{Answer, Connections, Request};
use crate::backend::{BackendError, BackendErrorKind, Login, Session};
use crate::policy::Grant;
use crate::secret::{Secret, SecretBytes, Version};

/// Where a login is prolonged, and with it what may end with it.
const RENEW_LOGIN: &str = "auth/token/renew-self";
/// Where a lease is prolonged by its id.
const RENEW_LEASE: &str = "sys/leases/renew";
/// Where a login is ended, and every lease that came with it.
const REVOKE_LOGIN: &str = "auth/token/revoke-self";

#[derive(serde::Serialize)]
struct RenewLease<'a> {
    lease_id: &'a str,
}

/// A session. Its connections and its token go with it.
pub(super) struct VaultSession {
    pub(super) at: At,
    pub(super) connections: Connections,
    pub(super) mounts: Arc<KvMounts>,
    pub(super) token: HeaderValue,
    pub(super) login: Login,
}

impl VaultSession {
    async fn ask(
        &self,
        what: What,
        path: &str,
        query: Option<&str>,
        body: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Answer, BackendError> {
        let sent = self.connections.send(Request { body, path, query, token: Some(&self.token) }).await;
        let answer = match sent {
            Ok(answer) if answer.status != 200 => {
                Err(failure::refusal(Doing::Read(what), self.connections.name(), path, &answer))
            }
            other => other,
        };
        self.at.note(&answer);
        answer
    }

    /// Changes what the server has of this login. A server that knows nothing of it any more has nothing to change.
    async fn change(&self, path: &str, body: Vec<u8>) -> Result<Answer, BackendError> {
        let body = Some(Zeroizing::new(body));
        let sent = self.connections.send(Request { body, path, query: None, token: Some(&self.token) }).await;
        let answer = match sent {
            Ok(answer) if !(200..300).contains(&answer.status) => {
                Err(failure::refusal(Doing::Lease, self.connections.name(), path, &answer))
            }
            other => other,
        };
        self.at.note(&answer);
        answer
    }

    fn malformed(&self, path: &str, what: &str) -> BackendError {
        let message = format!("{} answered {path} with something that is not {what}", self.connections.name());
        BackendError::new(BackendErrorKind::Malformed, message)
    }
}

#[async_trait]
impl Session for VaultSession {
    async fn fetch(&self, grant: &Grant) -> Result<Secret, BackendError> {
        let path = grant.path().as_str();
        let args = &grant.reference().args;
        let what = match self.mounts.place(grant.path()) {
            Place::Kv2 { .. } => {
                let query = grant.reference().version.map(|version| format!("version={version}"));
                let answer = self.ask(What::Kv2, path, query.as_deref(), None).await?;
                return answer::kv(&answer.body)
                    .ok_or_else(|| self.malformed(path, "a secret of KV version 2: look at kvMounts and kv1Mounts"));
            }
            Place::Kv1 => What::Kv1,
            Place::Other if args.is_empty() => What::Path,
            Place::Other => What::PathWithArgs,
        };
        let body = if args.is_empty() {
            None
        } else {
            let json = serde_json::to_vec(args).map_err(|_| self.malformed(path, "asked with arguments of text"))?;
            Some(Zeroizing::new(json))
        };
        let answer = self.ask(what, path, None, body).await?;
        answer::raw(&answer.body).ok_or_else(|| self.malformed(path, "a secret"))
    }

    /// Reads the metadata beside the secret: its numbers only, no value and nothing that users wrote. The path follows
    /// from the granted one. A role that may read secrets but not their metadata is answered with `None`.
    async fn version(&self, grant: &Grant) -> Result<Option<Version>, BackendError> {
        let Place::Kv2 { metadata: path } = self.mounts.place(grant.path()) else { return Ok(None) };
        let answer = match self.ask(What::Kv2, &path, None, None).await {
            Err(error) if error.kind == BackendErrorKind::Denied => return Ok(None),
            answer => answer?,
        };
        match answer::metadata(&answer.body, grant.reference().version, SystemTime::now()) {
            Some(Found::Present(version)) => Ok(Some(Version::new(version))),
            Some(Found::Gone) => Err(BackendError::new(
                BackendErrorKind::NotFound,
                format!("{} has no such version of {}: it is deleted", self.connections.name(), grant.path().as_str()),
            )),
            None => Err(self.malformed(&path, "the metadata of a secret")),
        }
    }

    fn login(&self) -> &Login {
        &self.login
    }

    /// A login that was made here, and nobody else's: the platform's own token is not ended with a volume.
    fn credential(&self) -> Option<SecretBytes> {
        self.login.performed.then(|| SecretBytes::from(self.token.as_bytes()))
    }

    async fn renew_login(&self) -> Result<Option<Duration>, BackendError> {
        let answer = self.change(RENEW_LOGIN, b"{}".to_vec()).await?;
        let given = answer::login(&answer.body).ok_or_else(|| self.malformed(RENEW_LOGIN, "a login"))?;
        Ok(given.ttl)
    }

    async fn renew(&self, lease: &[u8]) -> Result<Option<Duration>, BackendError> {
        let id = std::str::from_utf8(lease).map_err(|_| self.malformed(RENEW_LEASE, "asked about a lease of text"))?;
        let body = serde_json::to_vec(&RenewLease { lease_id: id })
            .map_err(|_| self.malformed(RENEW_LEASE, "asked about a lease of text"))?;
        let answer = self.change(RENEW_LEASE, body).await?;
        let left = answer::lease_left(&answer.body).ok_or_else(|| self.malformed(RENEW_LEASE, "a lease"))?;
        Ok((!left.is_zero()).then_some(left))
    }

    async fn revoke(&self) -> Result<(), BackendError> {
        self.change(REVOKE_LOGIN, b"{}".to_vec()).await.map(drop)
    }
}
