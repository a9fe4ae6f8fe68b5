// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Grants become secrets: one login for each identity, each question asked once, so many side by side and no more.
//!
//! This file is one delivery's side of it. What deliveries have in common is in the [`Fetcher`]: logins and questions
//! that are under way, and answers that stay for a moment.

mod alive;
mod borrow;
mod breaker;
mod bucket;
mod fetcher;
mod flight;
mod gate;
mod login;
mod question;
mod reuse;
mod share;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::{FutureExt, join_all};
use futures_util::stream::{self, StreamExt};
use tokio::time::Instant;

use crate::audit::{Outcome, Purpose, Scope, Shown, Source};
use crate::backend::{Backend, BackendError, BackendErrorKind, Caller};
use crate::error::Error;
use crate::lease::{GroupId, LeaseGroup, Lender};
use crate::names::BackendName;
use crate::policy::{Allow, Grant};
use crate::schedule::Life;
use crate::secret::Secret;
use crate::secret_ref::SecretRef;
use crate::spec::backend::Limits;
use crate::token::Tokens;

use borrow::Borrowed;
pub use fetcher::Fetcher;
use fetcher::{Answer, Found, Order, is_static};
use gate::Gate;
pub use gate::{Meter, Wait};
use login::Login;
use question::Asker;
pub use reuse::Bounds;

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
    gate: Gate,
}

impl BackendHandle {
    /// The handle of one revision of a backend.
    pub fn new(backend: Arc<dyn Backend>, allow: Vec<Allow>, limits: Limits, revision: u64) -> Self {
        let gate = Gate::new(&limits);
        Self { backend, allow, limits, revision, gate }
    }
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
    order: Arc<Order>,
    grants: Vec<Grant>,
    /// Its answers may come with leases.
    lends: bool,
    /// They are for all volumes of the identity; then it is one question.
    shared: bool,
    /// The login, from the first question that needs one to the burst's end.
    login: Mutex<Option<Arc<Login>>>,
}

/// What one burst was told.
struct Asked<'b> {
    told: Vec<(&'b Grant, Result<Arc<Secret>, Error>)>,
    /// What has to be given back.
    group: Option<LeaseGroup>,
    /// How long the login is good for that ends with what was lent.
    login: Option<Duration>,
}

/// What a delivery has that was remembered.
#[derive(Debug)]
pub struct Offline {
    /// How old the oldest answer is.
    pub age: Duration,
    /// Why the backend was not asked.
    pub error: Error,
}

/// A question without an answer: why, and what was asked for.
type Unanswered<'a> = (BackendError, &'a str);

/// Everything one delivery asks, in bursts.
pub struct Fetch<'a> {
    fetcher: &'a Arc<Fetcher>,
    lender: &'a Arc<Lender>,
    bursts: Vec<Burst>,
    /// What the volume was lent and shows.
    shows: &'a [GroupId],
    /// A refresh is there to see what is new: an answer that was asked for before it began is none.
    since: Option<Instant>,
    /// When it began, by the wall.
    now: SystemTime,
    /// What was remembered, because it could not be asked.
    offline: Mutex<Option<Offline>>,
}

impl<'a> Fetch<'a> {
    /// Sorts grants by whom their backend takes the caller for. Nothing is sent. Where volumes of a service account `share` what
    /// they are lent, this one shows that already.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`](crate::error::Kind::Unauthenticated) where a backend's token is missing or expired.
    pub fn plan(
        fetcher: &'a Arc<Fetcher>,
        lender: &'a Arc<Lender>,
        scope: &Scope,
        tokens: &Tokens,
        now: SystemTime,
        grants: Vec<(Arc<BackendHandle>, Grant)>,
        share: Option<&'a [GroupId]>,
    ) -> Result<Self, Error> {
        let mut bursts = Vec::<Burst>::new();
        for (handle, grant) in grants {
            let token = handle.backend.audience().map(|audience| tokens.get(audience, now).cloned()).transpose()?;
            let caller = Caller { workload: &scope.subject().workload, token: token.as_deref() };
            let identity = handle.backend.identity(&caller, grant.role())?;
            let (asker, lends) = (Asker { identity, revision: handle.revision }, handle.backend.lends(&grant));
            let same = |it: &&mut Burst| *it.order.asker == asker && it.lends == lends;
            let asks = |it: &Burst| it.grants.iter().any(|other| other.reference() == grant.reference());
            if let Some(burst) = bursts.iter_mut().filter(same).find(|it| !it.shared || asks(it)) {
                if !asks(burst) {
                    burst.grants.push(grant);
                }
                continue;
            }
            let (subject, auditor) = (scope.subject().clone(), Arc::clone(scope.auditor()));
            let mut order = Order { handle, asker: Arc::new(asker), token, subject, auditor, urgent: false };
            // A pod that can start without waits for no probe.
            order.urgent = scope.purpose() == Purpose::First && fetcher.remembered(&order, &grant).is_none();
            let shared = lends && share.is_some() && order.shares_leases();
            let order = Arc::new(order);
            bursts.push(Burst { order, grants: vec![grant], lends, shared, login: Mutex::default() });
        }
        let since = (scope.purpose() == Purpose::Refresh).then(|| fetcher.now());
        let shows = share.unwrap_or_default();
        Ok(Self { fetcher, lender, bursts, shows, since, now, offline: Mutex::default() })
    }

    /// Asks. With `known`, versions are asked first where that is cheaper, and `None` is the answer if all are as before.
    ///
    /// # Errors
    /// The first failure in the order of the questions. Every question that was sent is audited, also beside a failure.
    pub async fn run(&self, known: Option<&[Shown]>) -> Result<Option<Answers>, Error> {
        if let Some(known) = known {
            let mut same = true;
            for burst in &self.bursts {
                same = same && self.unchanged(burst, known).await?;
            }
            if same {
                return Ok(None);
            }
        }
        let mut answers = Answers::default();
        let mut failed = None;
        let asked = self.bursts.iter().map(|burst| self.ask(burst).boxed());
        for Asked { told, group, login } in join_all(asked).await {
            for (grant, answer) in told {
                match answer {
                    Ok(secret) => answers.add(grant, secret, login, self.now),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            answers.borrowed.extend(group);
        }
        answers.offline = self.offline.lock().unwrap_or_else(PoisonError::into_inner).take();
        // With a failure, what was borrowed goes back here.
        failed.map_or(Ok(Some(answers)), Err)
    }

    /// Asks one burst's questions, so many side by side as the backend's limits say.
    async fn ask<'b>(&self, burst: &'b Burst) -> Asked<'b> {
        let Order { handle, .. } = burst.order.as_ref();
        if burst.lends {
            return self.borrow(burst).await;
        }
        let batches = burst.grants.chunks(handle.backend.batch_size().max(1));
        let asked: Vec<_> = batches.map(|batch| self.ask_batch(burst, batch).boxed()).collect();
        let told = stream::iter(asked).buffered(handle.limits.parallel.max(1)).concat().await;
        Asked { told, group: None, login: None }
    }

    async fn borrow<'b>(&self, burst: &'b Burst) -> Asked<'b> {
        let borrowed = match &burst.grants[..] {
            [grant] if burst.shared => share::share(self.fetcher, self.lender, &burst.order, grant, self.shows).await,
            grants => borrow::borrow(self.fetcher, self.lender, &burst.order, grants, false).await,
        };
        match borrowed {
            Ok(Borrowed { answers, group, login }) => {
                let told = burst.grants.iter().zip(answers).map(|(grant, answer)| (grant, told(grant, answer)));
                Asked { told: told.collect(), group, login }
            }
            // One failure is as many as a delivery tells.
            Err(error) => {
                let told = burst.grants.first().map(|grant| (grant, Err(error)));
                Asked { told: told.into_iter().collect(), group: None, login: None }
            }
        }
    }

    async fn ask_batch<'b>(&self, burst: &Burst, batch: &'b [Grant]) -> Vec<(&'b Grant, Result<Arc<Secret>, Error>)> {
        let found = self.fetcher.find(&burst.order, batch, self.since);
        let told = batch.iter().zip(found).map(async |(grant, found)| {
            let answer = match self.take(burst, grant, found).await {
                Ok(secret) => Ok(secret),
                Err(unanswered) => self.remember(burst, grant, unanswered),
            };
            (grant, answer)
        });
        join_all(told).await
    }

    /// What the asker was told last, where this is a first delivery and the backend is away: what it answers counts,
    /// whatever it is.
    fn remember(&self, burst: &Burst, grant: &Grant, (error, what): Unanswered<'_>) -> Result<Arc<Secret>, Error> {
        let away = matches!(error.kind, BackendErrorKind::Unavailable | BackendErrorKind::TimedOut);
        let error = error.into_error(&grant.reference().backend, what);
        let remembered = self.fetcher.remembered(&burst.order, grant).filter(|_| away && self.since.is_none());
        let Some((answer, age)) = remembered else { return Err(error) };
        self.fetcher.answered(&burst.order, grant, &answer, Source::Remembered);
        let mut offline = self.offline.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = offline.as_ref().map_or(age, |other| other.age.max(age));
        *offline = Some(Offline { age: oldest, error });
        told(grant, answer)
    }

    /// Waits for an answer. What this delivery asked itself is recorded where it is asked, everything else here.
    async fn take<'g>(&self, burst: &Burst, grant: &'g Grant, mut found: Found) -> Result<Arc<Secret>, Unanswered<'g>> {
        let told = |answer: Answer| answer.result.map_err(|error| (error, grant.reference().path.as_str()));
        let mut again = true;
        loop {
            let (place, own, source) = match found {
                Found::Kept(answer) => {
                    self.fetcher.answered(&burst.order, grant, &answer, Source::Reused);
                    return told(answer);
                }
                Found::Shared(place) => (place, false, Source::Shared),
                Found::Asked { place, login, own } => {
                    burst.hold(login);
                    (place, own, Source::Asked)
                }
            };
            found = match place.answer().await {
                // What another pod could not prove says nothing about this one: once more, with its own proof.
                Err(error) if again && !own && error.kind == BackendErrorKind::Unauthenticated => {
                    again = false;
                    self.fetcher.find_one(&burst.order, grant, self.since)
                }
                Err(error) => return Err((error, "a login")),
                Ok(answer) if source == Source::Shared && answer.result.as_ref().is_ok_and(|it| !is_static(it)) => {
                    self.fetcher.ask_alone(&burst.order, grant)
                }
                Ok(answer) => {
                    if source == Source::Shared {
                        self.fetcher.answered(&burst.order, grant, &answer, source);
                    }
                    return told(answer);
                }
            };
        }
    }

    /// Whether each secret has the version that is shown; `false` where a backend cannot say. What ends is as it was until
    /// its time has come, and nobody is asked about it.
    async fn unchanged(&self, burst: &Burst, known: &[Shown]) -> Result<bool, Error> {
        let Order { handle, .. } = burst.order.as_ref();
        // One path may be shown in several versions.
        let shown = |grant: &Grant| {
            let (backend, path) = (&grant.reference().backend, grant.path().as_str());
            known.iter().filter(|shown| shown.backend == *backend && shown.path == path).collect::<Vec<_>>()
        };
        let asked = |grant: &&Grant| !shown(grant).iter().any(|shown| shown.ends);
        let mut grants = burst.grants.iter().filter(asked).peekable();
        if grants.peek().is_none() {
            return Ok(true);
        }
        if burst.lends {
            // What may have been lent has no version, and what was not lent now may be next time.
            return Ok(false);
        }
        let (login, _) = self.fetcher.log_in(&burst.order);
        burst.hold(Arc::clone(&login));
        let session = login.session().await.map_err(|error| error.into_error(handle.backend.name(), "a login"))?;
        for grant in grants {
            if self.fetcher.forgets(&burst.order, grant) {
                return Ok(false);
            }
            let path = grant.path().as_str();
            let before: Vec<_> = shown(grant).into_iter().filter_map(|shown| shown.version.as_ref()).collect();
            if before.is_empty() {
                return Ok(false);
            }
            let version = timed(handle.limits.timeout, session.version(grant));
            let version = self.fetcher.pass(&burst.order, version, |answer| answer.as_ref().err()).await;
            match version.and_then(|version| version) {
                Ok(Some(version)) if before.contains(&&version) => {}
                // A version that may not be asked for says nothing about the secret itself: the fetch decides.
                Ok(_) | Err(BackendError { kind: BackendErrorKind::Denied | BackendErrorKind::NotFound, .. }) => {
                    return Ok(false);
                }
                Err(error) => {
                    login.retire();
                    return Err(error.into_error(&grant.reference().backend, path));
                }
            }
        }
        Ok(true)
    }
}

impl Burst {
    fn hold(&self, login: Arc<Login>) {
        *self.login.lock().unwrap_or_else(PoisonError::into_inner) = Some(login);
    }
}

fn told(grant: &Grant, answer: Answer) -> Result<Arc<Secret>, Error> {
    answer.result.map_err(|error| error.into_error(&grant.reference().backend, grant.reference().path.as_str()))
}

/// What the backends answered.
#[derive(Default)]
pub struct Answers {
    /// The secrets by question.
    pub secrets: BTreeMap<SecretRef, Arc<Secret>>,
    /// What they are, by name and version.
    pub shown: Vec<Shown>,
    /// How long they are good for.
    pub lives: Vec<Life>,
    /// What was borrowed for it.
    pub borrowed: Vec<LeaseGroup>,
    /// What of it was remembered.
    pub offline: Option<Offline>,
}

impl Answers {
    /// A lease ends with the login that it came with, whatever it says itself.
    fn add(&mut self, grant: &Grant, secret: Arc<Secret>, login: Option<Duration>, now: SystemTime) {
        let mut life = Life::of(&secret, now);
        if secret.lease.is_some() {
            life.ends_in = [life.ends_in, login].into_iter().flatten().min();
        }
        self.shown.push(Shown { ends: life.ends_in.is_some(), ..shown(grant, Some(&secret)) });
        self.lives.push(life);
        self.secrets.insert(grant.reference().clone(), secret);
    }
}

fn shown(grant: &Grant, secret: Option<&Secret>) -> Shown {
    Shown {
        backend: grant.reference().backend.clone(),
        path: grant.path().as_str().to_owned(),
        version: secret.and_then(|secret| secret.version.clone()),
        ends: false,
    }
}

/// A backend keeps its own limits, and can say which of its servers did not: it gets a moment to do so.
const GRACE: Duration = Duration::from_millis(500);

async fn timed<T>(limit: Duration, call: impl Future<Output = Result<T, BackendError>>) -> Result<T, BackendError> {
    let late = || BackendError::new(BackendErrorKind::TimedOut, format!("no answer within limits.timeout ({limit:?})"));
    tokio::time::timeout(limit + GRACE, call).await.unwrap_or_else(|_| Err(late()))
}

fn cut_short() -> BackendError {
    BackendError::new(BackendErrorKind::Unavailable, "the question was cut short before its answer")
}

fn failure(error: &BackendError) -> Outcome {
    Outcome::Failure(error.kind.into())
}
