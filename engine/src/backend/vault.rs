// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! OpenBao and HashiCorp Vault.
//!
//! Logs in with the pod's own token (the Kubernetes method) or with a token of the platform's, reads KV version 2 with its
//! versions and any other path as it is, with its lease. It keeps nothing between sessions, neither tokens nor
//! connections, but which of its addresses answered last. The requests and answers of logins are those of `vaultrs`; what
//! is sent and how is decided in [`transport`] alone, and secrets are read in [`answer`] alone.

mod addresses;
mod answer;
mod failure;
mod login;
mod paths;
mod session;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::backend::role::RoleTemplate;
use crate::backend::{Backend, BackendError, BackendErrorKind, Caller, Identity, Login, Principal, Session};
use crate::credentials::CredentialFiles;
use crate::error::Error;
use crate::names::BackendName;
use crate::policy::Grant;
use crate::proxy::HttpsProxy;
use crate::secret_ref::{SecretPath, SecretRef, WirePath};
use crate::spec::backend::{Limits, VaultAuth, VaultSpec};
use crate::token::Audience;

pub use addresses::PassedOver;

use addresses::{Addresses, Walk};
use failure::Doing;
use login::{LoggedIn, Proof};
use paths::KvMounts;
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

enum Auth {
    Kubernetes { mount: SecretPath, role: RoleTemplate, audience: Audience },
    TokenFile { file: String },
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
        let trust = Trust::new(spec.ca.as_ref(), tls, Arc::clone(&credentials))?;
        let auth = match &spec.auth {
            VaultAuth::TokenFile { file } => Auth::TokenFile { file: file.clone() },
            VaultAuth::Kubernetes { mount, role, audience } => {
                let mount = SecretPath::parse(mount).map_err(|error| error.context("auth.kubernetes.mount"))?;
                if mount.as_str().starts_with("auth/") {
                    return Err(Error::invalid("auth.kubernetes.mount is written without 'auth/'"));
                }
                let role = RoleTemplate::parse(role).map_err(|error| error.context("auth.kubernetes.role"))?;
                Auth::Kubernetes { mount, role, audience: Audience::new(audience) }
            }
        };
        let mounts = Arc::new(KvMounts::parse(&spec.kv_mounts)?);
        Ok(Self { name, addresses, trust, mounts, auth, credentials, proxy: None })
    }

    /// The same by way of a proxy, where its addresses are `https://`.
    #[must_use]
    pub fn by_way_of(self, proxy: Option<HttpsProxy>) -> Self {
        Self { proxy, ..self }
    }
}

/// Whether a backend with these mounts can do anything with an allow pattern; for the reader of classes, which knows where
/// it stands.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid), with how to write it.
pub(crate) fn check_pattern(kv_mounts: &[String], pattern: &str) -> Result<(), Error> {
    KvMounts::parse(kv_mounts)?.canonical_pattern(pattern).map(drop)
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
        match &self.auth {
            Auth::Kubernetes { audience, .. } => Some(audience),
            Auth::TokenFile { .. } => None,
        }
    }

    fn identity(&self, caller: &Caller<'_>, role: Option<&str>) -> Result<Identity, Error> {
        let backend = self.name.clone();
        match &self.auth {
            // Every caller is the platform to the server.
            Auth::TokenFile { .. } => Ok(Identity {
                backend,
                mount: String::new(),
                role: String::new(),
                audience: String::new(),
                caller: None,
            }),
            Auth::Kubernetes { mount, role: default, audience } => Ok(Identity {
                backend,
                mount: mount.to_string(),
                role: match role {
                    Some(role) => RoleTemplate::parse(role)?.fill(caller.workload),
                    None => default.fill(caller.workload),
                },
                audience: audience.to_string(),
                caller: Some(Principal::service_account(caller)),
            }),
        }
    }

    /// Secrets of KV version 2. Whatever else a path is, a read of it may make something.
    fn shareable(&self, grant: &Grant) -> bool {
        self.mounts.metadata(grant.path()).is_some()
    }

    fn login(&self) -> Login {
        let (performed, method) = match &self.auth {
            Auth::Kubernetes { .. } => (true, "kubernetes"),
            Auth::TokenFile { .. } => (false, "token-file"),
        };
        Login { performed, method, endpoint: Some(self.addresses.first().endpoint()), ..Login::default() }
    }

    fn patience(&self, one: Duration) -> Duration {
        one.saturating_mul(u32::try_from(self.addresses.len()).unwrap_or(u32::MAX))
    }

    async fn open(&self, caller: &Caller<'_>, identity: &Identity) -> Result<Box<dyn Session>, BackendError> {
        let config = self.trust.config().await?;
        let proof = self.proof(caller, identity).await?;
        let mut walk = Walk::begin(&self.addresses);
        loop {
            let connections = walk.server().connect(&config, self.proxy.as_ref())?;
            match login::log_in(&connections, &proof, self.addresses.len() > 1).await {
                Ok(LoggedIn { token, mut login }) => {
                    login.endpoint = Some(walk.server().endpoint());
                    let (at, mounts) = (walk.stay(), Arc::clone(&self.mounts));
                    return Ok(Box::new(VaultSession { at, connections, mounts, token, login }));
                }
                Err(error) => walk.go_on(error)?,
            }
        }
    }

    async fn probe(&self) -> Result<(), BackendError> {
        let config = self.trust.config().await?;
        let mut walk = Walk::begin(&self.addresses);
        loop {
            match healthy(&walk.server().connect(&config, self.proxy.as_ref())?).await {
                Ok(()) => {
                    walk.stay();
                    return Ok(());
                }
                Err(error) => walk.go_on(error)?,
            }
        }
    }
}

impl VaultBackend {
    /// What the caller logs in with.
    async fn proof<'a>(&self, caller: &Caller<'a>, identity: &'a Identity) -> Result<Proof<'a>, BackendError> {
        match &self.auth {
            Auth::TokenFile { file } => login::token_file(self.credentials.as_ref(), file).await.map(Proof::Token),
            Auth::Kubernetes { audience, .. } => match caller.token {
                Some(token) => Ok(Proof::Kubernetes { mount: &identity.mount, role: &identity.role, token }),
                None => {
                    let message = format!("there is no token for audience {:?} to log in with", audience.as_str());
                    Err(BackendError::new(BackendErrorKind::Unauthenticated, message))
                }
            },
        }
    }
}

async fn healthy(connections: &Connections) -> Result<(), BackendError> {
    let (path, query) = HEALTH;
    let answer = connections.send(Request { body: None, path, query: Some(query), token: None }).await?;
    if answer.status == 200 { Ok(()) } else { Err(failure::refusal(Doing::Probe, connections.name(), path, &answer)) }
}
