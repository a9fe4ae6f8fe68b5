// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! OpenBao and HashiCorp Vault.
//!
//! Logs in with the pod's own token (the Kubernetes method) or with a token of the platform's, reads KV version 2 with its
//! versions and any other path as it is, with its lease. It keeps nothing between sessions: neither tokens nor
//! connections. The requests and answers of logins are those of `vaultrs`; what is sent and how is decided in
//! [`transport`] alone, and secrets are read in [`answer`] alone.

mod answer;
mod failure;
mod login;
mod paths;
mod session;
mod tls;
mod transport;

use std::sync::Arc;

use async_trait::async_trait;

use crate::backend::role::RoleTemplate;
use crate::backend::{Backend, BackendError, BackendErrorKind, Caller, Identity, Login, Session};
use crate::credentials::CredentialFiles;
use crate::error::Error;
use crate::names::BackendName;
use crate::secret_ref::{SecretPath, SecretRef, WirePath};
use crate::spec::backend::{Limits, VaultAuth, VaultSpec};
use crate::token::Audience;

use failure::Doing;
use login::LoggedIn;
use paths::KvMounts;
use session::VaultSession;
use tls::Trust;
use transport::{Request, Server};

/// Where a server says how it is; standbys are as good as the active node.
const HEALTH: (&str, &str) = ("sys/health", "standbyok=true&perfstandbyok=true");

/// A `vault` backend.
pub struct VaultBackend {
    name: BackendName,
    server: Server,
    trust: Trust,
    mounts: Arc<KvMounts>,
    auth: Auth,
    credentials: Arc<dyn CredentialFiles>,
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
    ) -> Result<Self, Error> {
        let server = Server::new(&spec.address, spec.namespace.as_deref(), limits.timeout, limits.parallel)?;
        let trust = Trust::new(spec.ca.as_ref(), server.tls(), Arc::clone(&credentials))?;
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
        Ok(Self { name, server, trust, mounts, auth, credentials })
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

    fn canonical_prefix(&self, prefix: &str) -> Result<String, Error> {
        self.mounts.canonical_prefix(prefix)
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
                caller: String::new(),
            }),
            Auth::Kubernetes { mount, role: default, audience } => Ok(Identity {
                backend,
                mount: mount.to_string(),
                role: match role {
                    Some(role) => RoleTemplate::parse(role)?.fill(caller.workload),
                    None => default.fill(caller.workload),
                },
                audience: audience.to_string(),
                caller: Identity::service_account(caller),
            }),
        }
    }

    fn login(&self) -> Login {
        let (performed, method) = match &self.auth {
            Auth::Kubernetes { .. } => (true, "kubernetes"),
            Auth::TokenFile { .. } => (false, "token-file"),
        };
        Login { performed, method, endpoint: Some(self.server.endpoint()), ..Login::default() }
    }

    async fn open(&self, caller: &Caller<'_>, identity: &Identity) -> Result<Box<dyn Session>, BackendError> {
        let config = self.trust.config().await?;
        let connections = self.server.connect(&config)?;
        let LoggedIn { token, mut login } = match &self.auth {
            Auth::TokenFile { file } => login::token_file(self.credentials.as_ref(), file).await?,
            Auth::Kubernetes { audience, .. } => {
                let token = caller.token.ok_or_else(|| {
                    let message = format!("there is no token for audience {:?} to log in with", audience.as_str());
                    BackendError::new(BackendErrorKind::Unauthenticated, message)
                })?;
                login::kubernetes(&connections, &identity.mount, &identity.role, token).await?
            }
        };
        login.endpoint = Some(self.server.endpoint());
        Ok(Box::new(VaultSession { connections, mounts: Arc::clone(&self.mounts), token, login }))
    }

    async fn probe(&self) -> Result<(), BackendError> {
        let config = self.trust.config().await?;
        let connections = self.server.connect(&config)?;
        let (path, query) = HEALTH;
        let answer = connections.send(Request { body: None, path, query: Some(query), token: None }).await?;
        if answer.status == 200 {
            Ok(())
        } else {
            Err(failure::refusal(Doing::Probe, connections.name(), path, &answer))
        }
    }
}
