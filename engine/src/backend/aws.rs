// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! AWS Secrets Manager.
//!
//! A pod proves itself by its own service-account token: STS gives temporary credentials of an IAM role for it
//! (`AssumeRoleWithWebIdentity`), and secrets are read with those through `aws-sdk-secretsmanager`. There is no other way in:
//! nothing is taken from the environment, from files or from the node's metadata service, so that no pod ever reads as the node.
//!
//! What is sent and how is decided in [`connections`] alone, which is also the SDK's HTTP client: the trust, the proxy, the
//! bounds and the single use of connections are those of every other backend. Credentials are kept per identity in the
//! program's protected memory until shortly before they end ([`credentials`]); connections are not kept.

mod connections;
mod credentials;
mod failure;
mod names;
mod session;
mod sts;

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

use crate::backend::role::RoleTemplate;
use crate::backend::vault::tls::Trust;
use crate::backend::{Backend, BackendError, BackendErrorKind, Caller, Identity, Login, Principal, Session};
use crate::credentials::CredentialFiles;
use crate::error::Error;
use crate::keep::Keep;
use crate::names::BackendName;
use crate::policy::Grant;
use crate::proxy::HttpsProxy;
use crate::secret_ref::{SecretRef, WirePath};
use crate::spec::backend::{AwsSpec, Limits};
use crate::token::Audience;

pub(crate) use names::{NOT_A_REGION, check_pattern, check_region, check_role, endpoints};

use connections::{Connections, Endpoint};
use credentials::Shelf;
use session::AwsSession;

/// The method of the login, in events.
const METHOD: &str = "web-identity";

/// An `aws` backend.
pub struct AwsBackend {
    name: BackendName,
    region: String,
    secrets: Endpoint,
    sts: Endpoint,
    role: RoleTemplate,
    audience: Audience,
    limits: Limits,
    trust: Trust,
    proxy: Option<HttpsProxy>,
    shelf: Option<Arc<Shelf>>,
}

impl AwsBackend {
    /// Checks the settings; nothing is opened or sent yet.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid), with the field.
    pub fn new(
        spec: &AwsSpec,
        name: BackendName,
        limits: Limits,
        credentials: Arc<dyn CredentialFiles>,
    ) -> Result<Self, Error> {
        let AwsSpec { region, role, audience, endpoint: _, sts_endpoint: _, ca } = spec;
        check_region(region)?;
        let [secrets, sts] = endpoints(spec);
        let secrets = Endpoint::parse(&secrets).map_err(|error| error.context("endpoint"))?;
        let sts = Endpoint::parse(&sts).map_err(|error| error.context("stsEndpoint"))?;
        if secrets.tls() != sts.tls() {
            return Err(Error::invalid("endpoint and stsEndpoint: both are https://, or both http://"));
        }
        let role = RoleTemplate::parse(role)
            .and_then(|template| check_role(role).map(|()| template))
            .map_err(|error| error.context("auth.webIdentity.role"))?;
        let trust = Trust::new(ca.as_ref(), None, secrets.tls(), credentials)?;
        let (region, audience) = (region.clone(), Audience::new(audience));
        Ok(Self { name, region, secrets, sts, role, audience, limits, trust, proxy: None, shelf: None })
    }

    /// The same by way of a proxy, where its endpoints are `https://`.
    #[must_use]
    pub fn by_way_of(self, proxy: Option<HttpsProxy>) -> Self {
        Self { proxy, ..self }
    }

    /// The same with a place for temporary credentials between sessions; without one, each session gets its own.
    #[must_use]
    pub fn keeping(self, keep: Option<Arc<dyn Keep>>) -> Self {
        Self { shelf: keep.map(Shelf::new), ..self }
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<Connections, BackendError> {
        endpoint.connect(self.trust.config().await?.as_ref(), self.proxy.as_ref(), &self.limits)
    }
}

#[async_trait]
impl Backend for AwsBackend {
    fn name(&self) -> &BackendName {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "aws"
    }

    fn canonical(&self, reference: &SecretRef) -> Result<WirePath, Error> {
        names::canonical(&self.region, reference)
    }

    fn canonical_pattern(&self, pattern: &str) -> Result<String, Error> {
        check_pattern(&self.region, pattern)?;
        Ok(pattern.to_owned())
    }

    fn audience(&self) -> Option<&Audience> {
        Some(&self.audience)
    }

    /// The service account, its role and where that is asked for: AWS sees the service account in the token's subject, and
    /// gives its roles to it and not to a pod.
    fn identity(&self, caller: &Caller<'_>, role: Option<&str>) -> Result<Identity, Error> {
        let role = match role {
            Some(role) => RoleTemplate::parse(role)?.fill(caller.workload),
            None => self.role.fill(caller.workload),
        };
        check_role(&role)?;
        Ok(Identity {
            backend: self.name.clone(),
            mount: self.sts.name().to_owned(),
            role,
            audience: self.audience.to_string(),
            caller: Some(Principal::service_account(caller)),
        })
    }

    /// Every secret: reading one makes nothing, and none of them has an end that AWS would say.
    fn shareable(&self, _grant: &Grant) -> bool {
        true
    }

    fn login(&self) -> Login {
        Login { performed: true, method: METHOD, endpoint: Some(self.sts.host_and_port()), ..Login::default() }
    }

    async fn open(&self, caller: &Caller<'_>, identity: &Identity) -> Result<Box<dyn Session>, BackendError> {
        let Some(token) = caller.token else {
            let message = format!("there is no token for audience {:?} to log in with", self.audience.as_str());
            return Err(BackendError::new(BackendErrorKind::Unauthenticated, message));
        };
        // Where the token does not name the account's uid, a re-created account cannot be told from the one before.
        let shelf = self.shelf.as_ref().filter(|_| caller.service_account_uid().is_some());
        let kept = shelf.and_then(|shelf| shelf.find(identity, SystemTime::now()));
        let (credentials, login) = match kept {
            Some(credentials) => (credentials, Login { performed: false, ..self.login() }),
            None => {
                let issued = sts::assume(&self.connect(&self.sts).await?, identity, token).await?;
                let ttl = issued.expires_at.duration_since(SystemTime::now()).ok();
                let login = Login { request_id: issued.request_id.clone(), ttl, ..self.login() };
                let credentials = issued.to_sdk();
                if let Some(shelf) = shelf {
                    shelf.keep(identity, issued, SystemTime::now());
                }
                (credentials, login)
            }
        };
        let connections = self.connect(&self.secrets).await?;
        let shelf = self.shelf.clone();
        Ok(Box::new(AwsSession::new(connections, &self.region, credentials, identity.clone(), shelf, login)))
    }

    /// Any answer will do: whoever is not known is answered too.
    async fn probe(&self) -> Result<(), BackendError> {
        self.connect(&self.secrets).await?.look().await
    }
}
