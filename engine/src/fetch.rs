// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Grants become secrets: one login for each identity, each question asked once, so many side by side and no more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{FutureExt, join_all};
use futures_util::stream::{self, StreamExt};

use crate::audit::{Event, Outcome, Scope, Shown};
use crate::backend::{Backend, BackendError, BackendErrorKind, Caller, Identity, Session};
use crate::error::Error;
use crate::names::BackendName;
use crate::policy::{Allow, Grant};
use crate::secret::Secret;
use crate::secret_ref::SecretRef;
use crate::spec::backend::Limits;
use crate::token::{Token, Tokens};

/// A backend with who may use it and how hard.
pub struct BackendHandle {
    /// The backend.
    pub backend: Arc<dyn Backend>,
    /// Who may ask for what.
    pub allow: Vec<Allow>,
    /// How hard it may be asked.
    pub limits: Limits,
    /// Differs whenever its class does.
    pub revision: u64,
}

/// Finds the backend of a name; a program brings the classes that define them.
pub trait Backends: Send + Sync {
    /// The backend of this name.
    ///
    /// # Errors
    /// [`Kind::Missing`](crate::error::Kind::Missing), [`Kind::NotReady`](crate::error::Kind::NotReady) while classes
    /// load, [`Kind::Invalid`](crate::error::Kind::Invalid) where its class is broken.
    fn find(&self, name: &BackendName) -> Result<Arc<BackendHandle>, Error>;
}

/// One burst: what one identity asks of one backend.
struct Burst {
    handle: Arc<BackendHandle>,
    token: Option<Arc<Token>>,
    grants: Vec<Grant>,
}

/// Everything one delivery asks, in bursts.
pub struct Fetch<'a> {
    scope: &'a Scope,
    bursts: BTreeMap<Identity, Burst>,
}

impl<'a> Fetch<'a> {
    /// Sorts grants by whom their backend takes the caller for. Nothing is sent.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`](crate::error::Kind::Unauthenticated) where a backend's token is missing or expired.
    pub fn plan(
        scope: &'a Scope,
        tokens: &Tokens,
        now: std::time::SystemTime,
        grants: Vec<(Arc<BackendHandle>, Grant)>,
    ) -> Result<Self, Error> {
        let mut bursts = BTreeMap::<Identity, Burst>::new();
        for (handle, grant) in grants {
            let token = handle.backend.audience().map(|audience| tokens.get(audience, now).cloned()).transpose()?;
            let caller = Caller { workload: &scope.subject().workload, token: token.as_deref() };
            let identity = handle.backend.identity(&caller, grant.role())?;
            let burst = bursts.entry(identity).or_insert_with(|| Burst { handle, token, grants: Vec::new() });
            if !burst.grants.iter().any(|other| other.reference() == grant.reference()) {
                burst.grants.push(grant);
            }
        }
        Ok(Self { scope, bursts })
    }

    /// Logs in and asks. With `known`, versions are asked first where that is cheaper, and `None` is the answer if all
    /// are as before.
    ///
    /// # Errors
    /// The first failure in the order of the questions. Every question that was sent is audited, also beside a failure.
    pub async fn run(&self, known: Option<&[Shown]>) -> Result<Option<Answers>, Error> {
        let logins = self.bursts.iter().map(|(identity, burst)| self.log_in(identity, burst).boxed());
        let sessions = join_all(logins).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        crate::crash_point!("deliver:logged-in");
        let open = || {
            self.bursts.iter().zip(&sessions).map(|((identity, burst), session)| (identity, burst, session.as_ref()))
        };
        if let Some(known) = known {
            let mut same = true;
            for (_, burst, session) in open() {
                same = same && unchanged(burst, session, known).await?;
            }
            if same {
                return Ok(None);
            }
        }
        let mut answers = Answers::default();
        let mut failed = None;
        let asked = open().map(|(identity, burst, session)| self.ask(identity, burst, session).boxed());
        for (grant, answer) in join_all(asked).await.into_iter().flatten() {
            match answer {
                Ok(secret) => answers.add(grant, secret),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(Some(answers)), Err)
    }

    async fn log_in(&self, identity: &Identity, burst: &Burst) -> Result<Box<dyn Session>, Error> {
        let caller = Caller { workload: &self.scope.subject().workload, token: burst.token.as_deref() };
        let patience = burst.handle.backend.patience(burst.handle.limits.timeout);
        let opened = timed(patience, burst.handle.backend.open(&caller, identity)).await;
        let (login, outcome) = match &opened {
            Ok(session) => (session.login().clone(), Outcome::Success),
            Err(error) => (burst.handle.backend.login(), failure(error)),
        };
        if login.performed {
            let subject = self.scope.subject().clone();
            self.scope.record(Event::LoggedIn { subject, identity: identity.clone(), login, outcome });
        }
        opened.map_err(|error| error.into_error(&identity.backend, "a login"))
    }

    /// Asks one burst's questions, so many side by side as the backend's limits say.
    async fn ask<'b>(
        &self,
        identity: &Identity,
        burst: &'b Burst,
        session: &dyn Session,
    ) -> Vec<(&'b Grant, Result<Secret, Error>)> {
        let Limits { timeout, parallel } = burst.handle.limits;
        let mut asked = Vec::new();
        for batch in burst.grants.chunks(session.batch_size().max(1)) {
            asked.push(self.ask_batch(identity, timeout, session, batch).boxed());
        }
        stream::iter(asked).buffered(parallel.max(1)).concat().await
    }

    async fn ask_batch<'b>(
        &self,
        identity: &Identity,
        limit: Duration,
        session: &dyn Session,
        batch: &'b [Grant],
    ) -> Vec<(&'b Grant, Result<Secret, Error>)> {
        let grants: Vec<&Grant> = batch.iter().collect();
        let answers = match tokio::time::timeout(limit, session.fetch_batch(&grants)).await {
            Ok(answers) => answers,
            Err(_) => grants.iter().map(|_| Err(late(limit))).collect(),
        };
        let audited = |(grant, answer): (&'b Grant, Result<Secret, BackendError>)| {
            self.audit(identity, session, grant, &answer);
            (grant, answer.map_err(|error| error.into_error(&identity.backend, grant.reference().path.as_str())))
        };
        batch.iter().zip(answers).map(audited).collect()
    }

    fn audit(&self, identity: &Identity, session: &dyn Session, grant: &Grant, answer: &Result<Secret, BackendError>) {
        let secret = answer.as_ref().ok();
        self.scope.record(Event::Fetched {
            subject: self.scope.subject().clone(),
            identity: identity.clone(),
            secret: shown(grant, secret),
            request_id: secret.and_then(|secret| secret.request_id.clone()),
            ttl: secret.and_then(|secret| secret.lease.as_ref()).map(|lease| lease.duration),
            endpoint: session.login().endpoint.clone(),
            outcome: answer.as_ref().err().map_or(Outcome::Success, failure),
        });
    }
}

/// What the backends answered.
#[derive(Default)]
pub struct Answers {
    /// The secrets by question.
    pub secrets: BTreeMap<SecretRef, Secret>,
    /// What they are, by name and version.
    pub shown: Vec<Shown>,
}

impl Answers {
    fn add(&mut self, grant: &Grant, secret: Secret) {
        self.shown.push(shown(grant, Some(&secret)));
        self.secrets.insert(grant.reference().clone(), secret);
    }
}

fn shown(grant: &Grant, secret: Option<&Secret>) -> Shown {
    Shown {
        backend: grant.reference().backend.clone(),
        path: grant.path().as_str().to_owned(),
        version: secret.and_then(|secret| secret.version.clone()),
    }
}

/// Whether each secret has the version that is shown; `false` where a backend cannot say.
async fn unchanged(burst: &Burst, session: &dyn Session, known: &[Shown]) -> Result<bool, Error> {
    for grant in &burst.grants {
        let path = grant.path().as_str();
        let before = known.iter().find(|shown| shown.backend == grant.reference().backend && shown.path == path);
        let Some(before) = before.and_then(|shown| shown.version.as_ref()) else { return Ok(false) };
        match timed(burst.handle.limits.timeout, session.version(grant)).await {
            Ok(Some(version)) if version == *before => {}
            // A version that may not be asked for says nothing about the secret itself: the fetch decides.
            Ok(_) | Err(BackendError { kind: BackendErrorKind::Denied | BackendErrorKind::NotFound, .. }) => {
                return Ok(false);
            }
            Err(error) => return Err(error.into_error(&grant.reference().backend, path)),
        }
    }
    Ok(true)
}

async fn timed<T>(limit: Duration, call: impl Future<Output = Result<T, BackendError>>) -> Result<T, BackendError> {
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| Err(late(limit)))
}

fn late(limit: Duration) -> BackendError {
    BackendError::new(BackendErrorKind::TimedOut, format!("no answer within limits.timeout ({limit:?})"))
}

fn failure(error: &BackendError) -> Outcome {
    Outcome::Failure(error.kind.into())
}
