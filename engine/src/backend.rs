// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Where secrets live, behind one trait.
//!
//! A backend is a file or folder under `backend/`, a line in `registry.rs`, a section of the `SecretBackend` class, a
//! run of the contract suite and a page in the docs. If adding one touches another file, this trait is wrong.
//!
//! One [`Session`] (one login, one burst of connections) serves all who ask as one identity at the same time, and is
//! dropped with the last of them: dropping closes its connections, so that no idle connection keeps a secret in its read
//! buffer.

pub mod aws;
#[cfg(feature = "testing")]
pub mod contract;
#[cfg(feature = "testing")]
pub mod fake;
mod fields;
mod https;
pub mod registry;
pub(crate) mod retry_after;
pub(crate) mod role;
pub mod sealed;
pub mod vault;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::{Error, Kind};
use crate::folder_watch::FolderWatch;
use crate::names::{BackendName, Namespace, PodUid, ServiceAccountName, ServiceAccountUid};
use crate::policy::grant::Grant;
use crate::secret::{Secret, SecretBytes, Version};
use crate::secret_ref::{SecretRef, WirePath};
use crate::token::{Audience, Token};
use crate::workload::Workload;

/// A place where secrets live.
#[async_trait]
pub trait Backend: Send + Sync {
    /// The name of its `SecretBackend`.
    fn name(&self) -> &BackendName;

    /// Which kind it is: `vault`, `sealed`, …; a label in metrics and events.
    fn kind(&self) -> &'static str;

    /// The exact path that is sent for `reference`; policy is asked about this and nothing else is ever sent.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where the reference cannot be one of this backend's (its path, or a version or arguments that
    /// would change what the request means), with how to write it.
    fn canonical(&self, reference: &SecretRef) -> Result<WirePath, Error>;

    /// The same for an allow pattern, which is a path in which `*` stands for parts of it. One that nothing can match is
    /// refused, with how to write it.
    fn canonical_pattern(&self, pattern: &str) -> Result<String, Error>;

    /// The audience of the token it wants; `None` where it wants no token of the pod.
    fn audience(&self) -> Option<&Audience>;

    /// Whom the backend takes the caller for. Two callers share an answer only if their identities are equal, so
    /// it names everything that the backend could tell them apart by.
    fn identity(&self, caller: &Caller<'_>, role: Option<&str>) -> Result<Identity, Error>;

    /// Whether the answer is the same for every caller of one identity, has no end of its own, and changes nothing by
    /// being asked for: only then may it serve more than one volume. Nothing is, unless a backend knows.
    fn shareable(&self, _grant: &Grant) -> bool {
        false
    }

    /// Whether an answer may come with a lease: then it is asked for with a login of its volume's own, whose end is the
    /// lease's.
    fn lends(&self, _grant: &Grant) -> bool {
        false
    }

    /// How many grants one [`Session::fetch_batch`] takes; 1 where there is no batch call.
    fn batch_size(&self) -> usize {
        1
    }

    /// How and where [`Backend::open`] logs in, before it is tried: what the event of a login that fails says. The default
    /// is that of a backend where nobody logs in.
    fn login(&self) -> Login {
        Login::default()
    }

    /// How long [`Backend::open`] may take where `one` request may take so long: more where it asks several servers, one
    /// after the other.
    fn patience(&self, one: Duration) -> Duration {
        one
    }

    /// Calls `changed` whenever what it holds may have changed, while what is returned lives. `None` where it notices
    /// nothing by itself; then a refresh finds out when it is due.
    fn watch(&self, _changed: Box<dyn Fn() + Send>) -> Option<FolderWatch> {
        None
    }

    /// Logs the caller in. `identity` is what [`Backend::identity`] answered for the same caller.
    async fn open(&self, caller: &Caller<'_>, identity: &Identity) -> Result<Box<dyn Session>, BackendError>;

    /// The session of a login that was made as `identity` before, by what [`Session::credential`] said of it. Nothing is asked: whether the
    /// login is still good is for the requests to hear.
    async fn resume(&self, _identity: &Identity, _credential: SecretBytes) -> Result<Box<dyn Session>, BackendError> {
        Err(BackendError::new(
            BackendErrorKind::Malformed,
            "this backend lends nothing, so there is nothing to give back",
        ))
    }

    /// Whether it can be reached at all; cheap, without a login.
    async fn probe(&self) -> Result<(), BackendError>;
}

/// One login and what can be asked with it. Dropping it closes its connections.
#[async_trait]
pub trait Session: Send + Sync {
    /// Reads what was granted.
    async fn fetch(&self, grant: &Grant) -> Result<Secret, BackendError>;

    /// Reads many at once: one answer for each grant, in their order. A backend with a batch call overrides this; the
    /// default asks one after the other, and the caller bounds how many run side by side.
    async fn fetch_batch(&self, grants: &[&Grant]) -> Vec<Result<Secret, BackendError>> {
        let mut answers = Vec::with_capacity(grants.len());
        for grant in grants {
            answers.push(self.fetch(grant).await);
        }
        answers
    }

    /// The newest version, where asking is cheaper than fetching; `None` where it is not or there is none.
    async fn version(&self, _grant: &Grant) -> Result<Option<Version>, BackendError> {
        Ok(None)
    }

    /// What the login gave, for the audit event.
    fn login(&self) -> &Login;

    /// What this login is prolonged and ended with later; `None` where it is not its asker's alone, or never ends.
    fn credential(&self) -> Option<SecretBytes> {
        None
    }

    /// Prolongs the login: how long it is good for from now on; `None` where its backend does not prolong it.
    async fn renew_login(&self) -> Result<Option<Duration>, BackendError> {
        Ok(None)
    }

    /// Prolongs a lease: how long it is good for from now on; `None` where its backend does not prolong it.
    async fn renew(&self, _lease: &[u8]) -> Result<Option<Duration>, BackendError> {
        Ok(None)
    }

    /// Ends the login and every lease that came with it. Done twice, it is done.
    async fn revoke(&self) -> Result<(), BackendError> {
        Ok(())
    }

    /// Where its questions are sent: host name and port. Where the login was sent, unless a backend knows better.
    fn endpoint(&self) -> Option<(String, u16)> {
        self.login().endpoint.clone()
    }
}

/// What a login gave; none of it is secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// Whether a login took place at all.
    pub performed: bool,
    /// The method: `kubernetes`, `token-file`, ….
    pub method: &'static str,
    /// Where it was sent: host name and port.
    pub endpoint: Option<(String, u16)>,
    /// The backend's own name for the request.
    pub request_id: Option<String>,
    /// How long the login lasts.
    pub ttl: Option<Duration>,
}

/// A workload with what it proves itself by: what a backend logs in with.
pub struct Caller<'a> {
    /// Who asks.
    pub workload: &'a Workload,
    /// The token for the backend's audience; absent for backends that ask for none.
    pub token: Option<&'a Token>,
}

impl Caller<'_> {
    /// The service account's uid, as its token says; part of every identity, because a deleted and re-created account
    /// of the same name is somebody else.
    pub fn service_account_uid(&self) -> Option<&ServiceAccountUid> {
        self.token.and_then(|token| token.claims().service_account_uid.as_ref())
    }
}

/// Whom a backend takes a caller for: the key under which answers may be shared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// The backend.
    pub backend: BackendName,
    /// Where the login is sent: the auth mount; empty where there is none.
    pub mount: String,
    /// The role that is asked for; empty where there is none.
    pub role: String,
    /// The token's audience; empty where there is no token.
    pub audience: String,
    /// Whom the backend sees behind the login; absent where all callers are one to it.
    pub caller: Option<Principal>,
}

/// A caller as a backend tells callers apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Principal {
    /// The service account's namespace.
    pub namespace: Namespace,
    /// The service account.
    pub service_account: ServiceAccountName,
    /// Its uid, as the token says: an account that is deleted and made again is another one.
    pub service_account_uid: Option<ServiceAccountUid>,
    /// The pod's uid, for backends that tell the pods of one account apart.
    pub pod_uid: Option<PodUid>,
}

impl Principal {
    /// For a backend that sees the service account and not the pod.
    pub fn service_account(caller: &Caller<'_>) -> Self {
        let Workload { namespace, service_account, .. } = caller.workload;
        Self {
            namespace: namespace.clone(),
            service_account: service_account.clone(),
            service_account_uid: caller.service_account_uid().cloned(),
            pod_uid: None,
        }
    }
}

/// As events name it: namespace, service account, its uid, and the pod's where the backend sees pods.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, service_account, service_account_uid, pod_uid } = self;
        write!(f, "{namespace}/{service_account}/{}", service_account_uid.as_ref().map_or("", |uid| uid.as_str()))?;
        pod_uid.as_ref().map_or(Ok(()), |uid| write!(f, "/{uid}"))
    }
}

/// Why a backend did not answer: a closed list, with a message for the operator that never holds a value or a body.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct BackendError {
    /// What kind of failure.
    pub kind: BackendErrorKind,
    /// For the operator: address, status, what to look at.
    pub message: String,
    /// When the backend wants to be asked again.
    pub retry_after: Option<Duration>,
}

/// What kind of failure of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackendErrorKind {
    /// The platform's own credential is missing, broken or not accepted.
    Credential,
    /// It knows the caller and says no.
    Denied,
    /// It answered what no such server answers.
    Malformed,
    /// It has no such secret or version.
    NotFound,
    /// It asks for fewer requests.
    Throttled,
    /// It did not answer in time.
    TimedOut,
    /// It does not accept the caller's proof.
    Unauthenticated,
    /// It cannot be reached or cannot answer now.
    Unavailable,
}

impl BackendError {
    /// An error without a wish for when to come back.
    pub fn new(kind: BackendErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }

    /// The tenant's view: which backend and reference, what it means, what to do. The operator's message moves to the
    /// detail, so that addresses and other names of the platform stay in the log.
    pub fn into_error(self, backend: &BackendName, what: &str) -> Error {
        let text = match self.kind {
            BackendErrorKind::Credential => format!(
                "backend {backend} does not accept the platform's own credential for {what}: \
                 the platform team has to renew it; it is tried again"
            ),
            BackendErrorKind::Denied => {
                format!("backend {backend} refuses {what} to this service account: ask for its policy to be extended")
            }
            BackendErrorKind::Malformed => {
                format!("backend {backend} answered {what} with something that is not a secret")
            }
            BackendErrorKind::NotFound => {
                format!("backend {backend} has no {what}: check the path and the version, and that it was not deleted")
            }
            BackendErrorKind::Throttled => {
                format!("backend {backend} asks for fewer requests; {what} is tried again")
            }
            BackendErrorKind::TimedOut => {
                format!("backend {backend} did not answer {what} in time; it is tried again")
            }
            BackendErrorKind::Unauthenticated => format!(
                "backend {backend} does not accept this pod's login: \
                 check the role's service account, namespace and audience"
            ),
            BackendErrorKind::Unavailable => {
                format!("backend {backend} cannot be reached for {what}; it is tried again")
            }
        };
        Error::new(self.kind.into(), text).with_detail(self.message).with_retry_after(self.retry_after)
    }
}

impl From<BackendErrorKind> for Kind {
    fn from(kind: BackendErrorKind) -> Self {
        match kind {
            // Nothing that the pod could mend, or that would be final.
            BackendErrorKind::Credential => Self::Unavailable,
            BackendErrorKind::Denied => Self::Refused,
            BackendErrorKind::Malformed => Self::Malformed,
            BackendErrorKind::NotFound => Self::Missing,
            BackendErrorKind::Throttled => Self::Throttled,
            BackendErrorKind::TimedOut => Self::TimedOut,
            BackendErrorKind::Unauthenticated => Self::Unauthenticated,
            BackendErrorKind::Unavailable => Self::Unavailable,
        }
    }
}
