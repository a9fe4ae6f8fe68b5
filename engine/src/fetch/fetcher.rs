// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Where the questions of all deliveries meet: the same question of the same asker is under way once, and its answer
//! serves everybody who may have it.
//!
//! - A login lives while anybody of its identity asks with it, and goes with the last of them, connections included.
//! - A question that a backend calls [shareable](crate::backend::Backend::shareable) is asked once for all who ask it
//!   while it is under way, and its answer stays for `limits.reuse`. A failure is heard by those who wait, and forgotten.
//! - An answer that turns out to end (a lease, a certificate) is its asker's alone.
//!
//! Policy is not asked here: who comes with a [`Grant`] has been through it. Nothing here holds a lock across a wait.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::BackendHandle;
use super::flight::Flight;
use super::gate::Meter;
use super::question::{Asker, Question};
use super::reuse::{Bounds, Endpoint, Reuse};
use super::{failure, late, shown, timed};
use crate::audit::{Auditor, Event, Outcome, Source, Subject};
use crate::backend::{BackendError, BackendErrorKind, Caller, Session};
use crate::clock::Clock;
use crate::keep::Keep;
use crate::policy::Grant;
use crate::secret::Secret;
use crate::token::Token;

/// A login that is older takes no newcomers, so that a right that was taken away ends also where somebody always asks.
const OLDEST_LOGIN: Duration = Duration::from_secs(30);
/// Ended flights are looked for when there are so many entries.
const FIRST_TIDYING: usize = 64;

/// Asks backends for all deliveries of a node.
pub struct Fetcher {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    meter: Arc<dyn Meter>,
}

struct State {
    reuse: Reuse,
    asked: Alive<Question, Place>,
    logins: Alive<Arc<Asker>, Login>,
}

/// Whatever asks for one delivery and one identity.
pub(super) struct Order {
    pub(super) handle: Arc<BackendHandle>,
    pub(super) asker: Arc<Asker>,
    pub(super) token: Option<Arc<Token>>,
    pub(super) subject: Subject,
    pub(super) auditor: Arc<dyn Auditor>,
}

/// A login, under way or made.
pub(super) struct Login {
    flight: Flight<Result<Arc<dyn Session>, BackendError>>,
    /// Something failed with it: newcomers make their own.
    retired: AtomicBool,
}

/// What one question of a batch was answered.
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) result: Result<Arc<Secret>, BackendError>,
    pub(super) endpoint: Endpoint,
}

/// The answers in the order of the questions; an error where nothing was asked, because there was no login.
type Answers = Result<Arc<[Answer]>, BackendError>;

/// One question's place in a batch that is under way.
pub(super) struct Place {
    batch: Arc<Flight<Answers>>,
    index: usize,
}

/// Where the answer to a question is or will be.
pub(super) enum Found {
    /// It was kept.
    Kept(Answer),
    /// Somebody else asks.
    Shared(Arc<Place>),
    /// This delivery asks, with a login that it makes itself (`own`) or found.
    Asked { place: Arc<Place>, login: Arc<Login>, own: bool },
}

impl Fetcher {
    /// Answers that may stay do so in `keep`, within `bounds`.
    pub fn new(keep: Arc<dyn Keep>, bounds: Bounds, clock: Arc<dyn Clock>, meter: Arc<dyn Meter>) -> Arc<Self> {
        let state = State { reuse: Reuse::new(keep, bounds), asked: Alive::default(), logins: Alive::default() };
        Arc::new(Self { state: Mutex::new(state), clock, meter })
    }

    /// Monotonic time.
    pub(super) fn now(&self) -> Instant {
        self.clock.monotonic()
    }

    /// Finds or begins what answers these questions, in their order. What was asked before `since` does not count.
    pub(super) fn find(self: &Arc<Self>, order: &Arc<Order>, grants: &[Grant], since: Option<Instant>) -> Vec<Found> {
        let now = self.now();
        let mut state = self.state();
        let questions = grants.iter().map(|grant| order.shares(grant).then(|| Question::new(&order.asker, grant)));
        let questions: Vec<_> = questions.collect();
        let there = |question: &Option<Question>| state.find(question.as_ref()?, now, since);
        let mut found: Vec<_> = questions.iter().map(there).collect();
        let missing = grants.iter().zip(questions).zip(&found).filter(|(_, found)| found.is_none());
        let (ask, questions): (Vec<_>, Vec<_>) =
            missing.map(|((grant, question), _)| (grant.clone(), question)).unzip();
        if !ask.is_empty() {
            let mut begun = self.begin(&mut state, order, ask, questions, now).into_iter();
            found.iter_mut().filter(|found| found.is_none()).for_each(|found| *found = begun.next());
        }
        drop(state);
        found.into_iter().flatten().collect()
    }

    /// The same for one question.
    pub(super) fn find_one(self: &Arc<Self>, order: &Arc<Order>, grant: &Grant, since: Option<Instant>) -> Found {
        let found = self.find(order, std::slice::from_ref(grant), since).pop();
        found.expect("invariant: each question is found or begun")
    }

    /// Begins a question whose answer is this delivery's alone.
    pub(super) fn ask_alone(self: &Arc<Self>, order: &Arc<Order>, grant: &Grant) -> Found {
        let begun = self.begin(&mut self.state(), order, vec![grant.clone()], vec![None], self.now()).pop();
        begun.expect("invariant: each question is begun")
    }

    fn begin(
        self: &Arc<Self>,
        state: &mut State,
        order: &Arc<Order>,
        grants: Vec<Grant>,
        questions: Vec<Option<Question>>,
        now: Instant,
    ) -> Vec<Found> {
        let (login, own) = self.join_login(state, order, now);
        let work = Arc::clone(self).ask(Arc::clone(order), Arc::clone(&login), grants, questions.clone(), now);
        let batch = Arc::new(Flight::begin(now, work));
        let begun = questions.into_iter().enumerate().map(|(index, question)| {
            let place = Arc::new(Place { batch: Arc::clone(&batch), index });
            if let Some(question) = question {
                state.asked.insert(question, &place);
            }
            Found::Asked { place, login: Arc::clone(&login), own }
        });
        begun.collect()
    }

    /// The login of this identity, and whether this delivery makes it.
    pub(super) fn log_in(self: &Arc<Self>, order: &Arc<Order>) -> (Arc<Login>, bool) {
        self.join_login(&mut self.state(), order, self.now())
    }

    /// Makes a request in its turn.
    pub(super) async fn pass<T>(&self, handle: &BackendHandle, request: impl Future<Output = T>) -> T {
        handle.gate.pass(&self.meter, handle.backend.kind(), request).await
    }

    /// Records what a delivery was answered.
    pub(super) fn answered(&self, order: &Order, grant: &Grant, answer: &Answer, source: Source) {
        let secret = answer.result.as_ref().ok();
        order.auditor.record(Event::Fetched {
            subject: order.subject.clone(),
            identity: order.asker.identity.clone(),
            secret: shown(grant, secret.map(AsRef::as_ref)),
            source,
            request_id: secret.and_then(|secret| secret.request_id.clone()),
            ttl: secret.and_then(|secret| secret.lease.as_ref()).map(|lease| lease.duration),
            endpoint: answer.endpoint.clone(),
            outcome: answer.result.as_ref().err().map_or(Outcome::Success, failure),
        });
        self.meter.answered(order.handle.backend.kind(), source);
    }

    fn join_login(self: &Arc<Self>, state: &mut State, order: &Arc<Order>, now: Instant) -> (Arc<Login>, bool) {
        if let Some(login) = state.logins.get(&order.asker).filter(|login| login.takes_newcomers(now)) {
            return (login, false);
        }
        let flight = Flight::begin(now, Arc::clone(self).open(Arc::clone(order)));
        let login = Arc::new(Login { flight, retired: AtomicBool::new(false) });
        state.logins.insert(Arc::clone(&order.asker), &login);
        (login, true)
    }

    /// Logs in. The event is recorded here, because whoever began it may have left when others still wait.
    async fn open(self: Arc<Self>, order: Arc<Order>) -> Result<Arc<dyn Session>, BackendError> {
        let Order { handle, asker, token, subject, auditor } = order.as_ref();
        let caller = Caller { workload: &subject.workload, token: token.as_deref() };
        let patience = handle.backend.patience(handle.limits.timeout);
        let open = timed(patience, handle.backend.open(&caller, &asker.identity));
        let opened = self.pass(handle, open).await;
        let (login, outcome) = match &opened {
            Ok(session) => (session.login().clone(), Outcome::Success),
            Err(error) => (handle.backend.login(), failure(error)),
        };
        if login.performed {
            let (subject, identity) = (subject.clone(), asker.identity.clone());
            auditor.record(Event::LoggedIn { subject, identity, login, outcome });
        }
        opened.map(Arc::from)
    }

    /// Asks a batch, records and keeps what came.
    async fn ask(
        self: Arc<Self>,
        order: Arc<Order>,
        login: Arc<Login>,
        grants: Vec<Grant>,
        questions: Vec<Option<Question>>,
        begun: Instant,
    ) -> Answers {
        let session = login.session().await?;
        crate::crash_point!("deliver:logged-in");
        let limit = order.handle.limits.timeout;
        let batch: Vec<&Grant> = grants.iter().collect();
        let (sent, results) = self
            .pass(&order.handle, async {
                let sent = self.now();
                match tokio::time::timeout(limit, session.fetch_batch(&batch)).await {
                    Ok(results) => (sent, results),
                    Err(_) => (sent, batch.iter().map(|_| Err(late(limit))).collect()),
                }
            })
            .await;
        let endpoint = session.login().endpoint.clone();
        let answer = |result: Result<Secret, _>| Answer { result: result.map(Arc::new), endpoint: endpoint.clone() };
        let answers: Vec<Answer> = results.into_iter().map(answer).collect();
        for (grant, answer) in grants.iter().zip(&answers) {
            self.answered(&order, grant, answer, Source::Asked);
            // That a secret is not there is no login's fault.
            if answer.result.as_ref().is_err_and(|error| error.kind != BackendErrorKind::NotFound) {
                login.retire();
            }
        }
        self.settle(&order, questions, &answers, (begun, sent));
        Ok(answers.into())
    }

    /// Keeps what may stay and forgets that it was asked, in one step: whoever comes finds the one or the other.
    fn settle(
        self: &Arc<Self>,
        order: &Order,
        questions: Vec<Option<Question>>,
        answers: &[Answer],
        (begun, sent): (Instant, Instant),
    ) {
        let (now, until) = (self.now(), sent + order.handle.limits.reuse);
        let mut state = self.state();
        for (question, answer) in questions.into_iter().zip(answers) {
            let Some(question) = question else { continue };
            if let Ok(secret) = &answer.result
                && is_static(secret)
                && until > now
            {
                let answer = (secret.as_ref(), answer.endpoint.clone());
                state.reuse.keep(&question, answer, (sent, until), |number| {
                    let fetcher = Arc::downgrade(self);
                    let expire = async move {
                        tokio::time::sleep_until(until).await;
                        if let Some(fetcher) = fetcher.upgrade() {
                            fetcher.state().reuse.expire(number);
                        }
                    };
                    tokio::spawn(expire).abort_handle()
                });
            }
            // A refresh may have begun it anew meanwhile.
            if state.asked.get(&question).is_none_or(|place| place.batch.begun() == begun) {
                state.asked.remove(&question);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn find(&self, question: &Question, now: Instant, since: Option<Instant>) -> Option<Found> {
        if let Some((secret, endpoint)) = self.reuse.find(question, now, since) {
            return Some(Found::Kept(Answer { result: Ok(Arc::new(secret)), endpoint }));
        }
        let place = self.asked.get(question)?;
        let joins = !place.batch.is_over() && since.is_none_or(|since| place.batch.begun() >= since);
        joins.then(|| Found::Shared(place))
    }
}

impl Order {
    /// Whether the answer may serve others. Where a token is wanted but does not name the account's uid, a re-created
    /// account cannot be told from the one before, so nothing is.
    fn shares(&self, grant: &Grant) -> bool {
        let told_apart = self.token.as_ref().is_none_or(|token| token.claims().service_account_uid.is_some());
        told_apart && self.handle.backend.shareable(grant)
    }
}

impl Login {
    /// The session, once it is open.
    pub(super) async fn session(&self) -> Result<Arc<dyn Session>, BackendError> {
        self.flight.wait().await.unwrap_or_else(|| Err(cut_short()))
    }

    /// Takes no newcomers any more: they log in anew, so that a token that the server no longer honours is not handed
    /// from one to the next.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    fn takes_newcomers(&self, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.flight.begun());
        let young = |session: &Arc<dyn Session>| {
            let half = session.login().ttl.map_or(OLDEST_LOGIN, |ttl| ttl / 2);
            age < half.min(OLDEST_LOGIN)
        };
        !self.retired.load(Ordering::Relaxed)
            && match self.flight.landed() {
                None => true,
                Some(opened) => opened.as_ref().is_ok_and(young),
            }
    }
}

impl Place {
    /// The answer; an error where nothing was asked, because there was no login.
    pub(super) async fn answer(&self) -> Result<Answer, BackendError> {
        let answers = self.batch.wait().await.unwrap_or_else(|| Err(cut_short()))?;
        answers.get(self.index).cloned().ok_or_else(cut_short)
    }
}

/// Whether an answer has no end of its own: one with a lease or an expiry was made for who asked.
pub(super) fn is_static(secret: &Secret) -> bool {
    secret.lease.is_none() && secret.expires_at.is_none()
}

fn cut_short() -> BackendError {
    BackendError::new(BackendErrorKind::Unavailable, "the question was cut short before its answer")
}

/// What somebody still holds, by key. Nothing is kept alive by being in here.
struct Alive<K, T> {
    entries: HashMap<K, Weak<T>>,
    tidy_at: usize,
}

impl<K, T> Default for Alive<K, T> {
    fn default() -> Self {
        Self { entries: HashMap::new(), tidy_at: FIRST_TIDYING }
    }
}

impl<K: Eq + Hash, T> Alive<K, T> {
    fn get(&self, key: &K) -> Option<Arc<T>> {
        self.entries.get(key)?.upgrade()
    }

    fn insert(&mut self, key: K, value: &Arc<T>) {
        if self.entries.len() >= self.tidy_at {
            self.entries.retain(|_, value| value.strong_count() > 0);
            self.tidy_at = FIRST_TIDYING.max(2 * self.entries.len());
        }
        self.entries.insert(key, Arc::downgrade(value));
    }

    fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }
}
