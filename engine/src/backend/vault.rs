// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! OpenBao and HashiCorp Vault.
//!
//! Logs in with the pod's own token (the methods kubernetes and jwt) or with a credential of the platform's (approle, cert,
//! a token that is there), reads KV version 2 with its versions, version 1, and any other path as it is, with its lease. It
//! keeps nothing between sessions, neither tokens nor connections, but which of its addresses answered last. How a class
//! logs in is in [`auth`]; the requests and answers of logins are those of `vaultrs`; what is sent and how is decided in
//! [`transport`] alone, and secrets are read in [`answer`] alone.

mod addresses;
mod answer;
mod auth;
pub(super) mod failure;
mod login;
mod paths;
mod session;
#[cfg(feature = "testing")]
pub mod testing;
pub(super) mod tls;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::backend::{Backend, BackendError, BackendErrorKind, Caller, Identity, Login, Session};
use crate::credentials::CredentialFiles;
use crate::error::Error;
use crate::names::BackendName;
use crate::policy::Grant;
use crate::proxy::HttpsProxy;
use crate::secret::SecretBytes;
use crate::secret_ref::{SecretRef, WirePath};
use crate::spec::backend::{Limits, VaultSpec};
use crate::token::Audience;

pub use addresses::PassedOver;

use addresses::{Addresses, Walk};
use auth::Auth;
use failure::Doing;
use login::{LoggedIn, Proof};
use paths::{KvMounts, Place};
use session::VaultSession;
use tls::Trust;
use transport::{Connections, Request, Server};

/// Where a server says how it is; standbys are as good as the active node.
const HEALTH: (&str, &str) = ("sys/health", "standbyok=true&perfstandbyok=true");

/// A `vault` backend.
pub struct VaultBackend {
    name: BackendName,
    addresses: Arc<Addresses>,
    trust: Trust,
    mounts: Arc<KvMounts>,
    auth: Auth,
    credentials: Arc<dyn CredentialFiles>,
    proxy: Option<HttpsProxy>,
}

impl VaultBackend {
    /// Checks the settings; nothing is opened or sent yet.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid), with the field.
    pub fn new(
        spec: &VaultSpec,
        name: BackendName,
        limits: Limits,
        credentials: Arc<dyn CredentialFiles>,
        passed_over: Arc<PassedOver>,
    ) -> Result<Self, Error> {
        let server = |address: &String| {
            Server::new(address, spec.namespace.as_deref(), limits.timeout, limits.parallel)
                .map_err(|error| error.context(if spec.addresses.len() == 1 { "address" } else { "addresses" }))
        };
        let servers = spec.addresses.iter().map(server).collect::<Result<Vec<_>, _>>()?;
        let tls = servers.first().is_some_and(Server::tls);
        if servers.is_empty() || servers.len() > VaultSpec::MOST_ADDRESSES {
            return Err(Error::invalid(format!("addresses: expected 1 to {}", VaultSpec::MOST_ADDRESSES)));
        }
        if servers.iter().any(|server| server.tls() != tls) {
            return Err(Error::invalid("addresses: all of them are https://, or all http://"));
        }
        let addresses = Arc::new(Addresses::new(name.clone(), servers, passed_over));
        let client = spec.client_certificate.clone();
        let trust = Trust::new(spec.ca.as_ref(), client, tls, Arc::clone(&credentials))?;
        let auth = Auth::new(spec)?;
        let mounts = Arc::new(KvMounts::parse(&spec.kv_mounts, &spec.kv1_mounts)?);
        Ok(Self { name, addresses, trust, mounts, auth, credentials, proxy: None })
    }

    /// The same by way of a proxy, where its addresses are `https://`.
    #[must_use]
    pub fn by_way_of(self, proxy: Option<HttpsProxy>) -> Self {
        Self { proxy, ..self }
    }
}

/// Whether a backend can do anything with an allow pattern; for the reader of classes, which knows where it stands.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid), with how to write it.
pub(crate) fn check_pattern(spec: &VaultSpec, pattern: &str) -> Result<(), Error> {
    KvMounts::parse(&spec.kv_mounts, &spec.kv1_mounts)?.canonical_pattern(pattern).map(drop)
}

impl VaultBackend {
    /// Logs in at the first address that answers.
    async fn log_in(
        &self,
        config: &rustls::ClientConfig,
        identity: &Identity,
        proof: &Proof<'_>,
    ) -> Result<Box<dyn Session>, BackendError> {
        let mut walk = Walk::begin(&self.addresses);
        loop {
            let connections = walk.server().connect(config, self.proxy.as_ref())?;
            match login::log_in(&connections, &self.auth, identity, proof, self.addresses.len() > 1).await {
                Ok(LoggedIn { token, mut login }) => {
                    login.endpoint = Some(walk.server().endpoint());
                    let (at, mounts) = (walk.stay(), Arc::clone(&self.mounts));
                    return Ok(Box::new(VaultSession { at, connections, mounts, token, login }));
                }
                Err(error) => walk.go_on(error)?,
            }
        }
    }
}

#[async_trait]
impl Backend for VaultBackend {
    fn name(&self) -> &BackendName {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "vault"
    }

    fn canonical(&self, reference: &SecretRef) -> Result<WirePath, Error> {
        self.mounts.canonical(reference)
    }

    fn canonical_pattern(&self, pattern: &str) -> Result<String, Error> {
        self.mounts.canonical_pattern(pattern)
    }

    fn audience(&self) -> Option<&Audience> {
        self.auth.audience()
    }

    fn identity(&self, caller: &Caller<'_>, role: Option<&str>) -> Result<Identity, Error> {
        self.auth.identity(self.name.clone(), caller, role)
    }

    /// Secrets of a KV mount. Whatever else a path is, a read of it may make something.
    fn shareable(&self, grant: &Grant) -> bool {
        self.mounts.place(grant.path()) != Place::Other
    }

    /// Whatever is not a KV mount's may lend.
    fn lends(&self, grant: &Grant) -> bool {
        self.mounts.place(grant.path()) == Place::Other
    }

    fn login(&self) -> Login {
        let endpoint = Some(self.addresses.first().endpoint());
        Login { performed: self.auth.performs(), method: self.auth.method(), endpoint, ..Login::default() }
    }

    fn patience(&self, one: Duration) -> Duration {
        one.saturating_mul(u32::try_from(self.addresses.len()).unwrap_or(u32::MAX))
    }

    async fn open(&self, caller: &Caller<'_>, identity: &Identity) -> Result<Box<dyn Session>, BackendError> {
        let config = self.trust.config().await?;
        let proof = self.auth.proof(self.credentials.as_ref(), caller).await?;
        self.log_in(&config, identity, &proof).await
    }

    async fn resume(&self, identity: &Identity, credential: SecretBytes) -> Result<Box<dyn Session>, BackendError> {
        let malformed = || BackendError::new(BackendErrorKind::Malformed, "what was kept of a login is no token");
        let token = login::header(credential).ok_or_else(malformed)?;
        let config = self.trust.config().await?;
        self.log_in(&config, identity, &Proof::Token(token)).await
    }

    async fn probe(&self) -> Result<(), BackendError> {
        let config = self.trust.config().await?;
        let mut walk = Walk::begin(&self.addresses);
        loop {
            match healthy(&walk.server().connect(&config, self.proxy.as_ref())?.at_root()).await {
                Ok(()) => {
                    walk.stay();
                    return Ok(());
                }
                Err(error) => walk.go_on(error)?,
            }
        }
    }
}

async fn healthy(connections: &Connections) -> Result<(), BackendError> {
    let (path, query) = HEALTH;
    let answer = connections.send(Request { body: None, path, query: Some(query), token: None }).await?;
    if answer.status == 200 { Ok(()) } else { Err(failure::refusal(Doing::Probe, connections.name(), path, &answer)) }
}
