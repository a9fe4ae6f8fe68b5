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

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::BackendHandle;
use super::alive::Alive;
use super::flight::Flight;
use super::gate::{Meter, Passer};
use super::login::Login;
use super::question::{Asker, Question};
use super::reuse::{Bounds, Endpoint, Reuse};
use super::share::Shares;
use super::{cut_short, failure, shown, timed};
use crate::audit::{Auditor, Event, Outcome, Source, Subject};
use crate::backend::{BackendError, BackendErrorKind, Caller, Session};
use crate::clock::Clock;
use crate::keep::Keep;
use crate::policy::Grant;
use crate::secret::Secret;
use crate::token::Token;

/// Asks backends for all deliveries of a node.
pub struct Fetcher {
    state: Mutex<State>,
    /// What volumes of one identity are lent together.
    pub(super) shares: Shares,
    clock: Arc<dyn Clock>,
    meter: Arc<dyn Meter>,
}

struct State {
    reuse: Reuse,
    /// Last answers, for pods that start while a backend is away.
    memory: Reuse,
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
    /// A pod starts and waits for it.
    pub(super) urgent: bool,
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
    /// Answers that may stay for a moment do so in the first place, within its bounds; those that classes want remembered
    /// in the second.
    pub fn new(
        (keep, bounds): (Arc<dyn Keep>, Bounds),
        (memory, most): (Arc<dyn Keep>, Bounds),
        clock: Arc<dyn Clock>,
        meter: Arc<dyn Meter>,
    ) -> Arc<Self> {
        let (reuse, memory) = (Reuse::new(keep, bounds), Reuse::new(memory, most));
        let state = State { reuse, memory, asked: Alive::default(), logins: Alive::default() };
        Arc::new(Self { state: Mutex::new(state), shares: Shares::default(), clock, meter })
    }

    /// Who counts.
    pub(crate) fn meter(&self) -> Arc<dyn Meter> {
        Arc::clone(&self.meter)
    }

    /// Time.
    pub(super) fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    /// Monotonic time.
    pub(super) fn now(&self) -> Instant {
        self.clock.monotonic()
    }

    /// The last answer that the asker had to this question, and how old it is, where its class wants it remembered and it
    /// is not too old.
    pub(super) fn remembered(&self, order: &Order, grant: &Grant) -> Option<(Answer, Duration)> {
        let grace = order.remembers(grant)?;
        let (question, now) = (Question::new(&order.asker, grant), self.now());
        let state = self.state();
        let age = state.memory.age(&question, (now, self.clock.now())).filter(|age| *age < grace)?;
        let (secret, endpoint) = state.memory.find(&question, now, None)?;
        Some((Answer { result: Ok(Arc::new(secret)), endpoint }, age))
    }

    /// Whether the answer is to be remembered and will soon be too old: a version proves no right to read it.
    pub(super) fn forgets(&self, order: &Order, grant: &Grant) -> bool {
        let Some(grace) = order.remembers(grant) else { return false };
        let age = self.state().memory.age(&Question::new(&order.asker, grant), (self.now(), self.clock.now()));
        age.is_none_or(|age| age > grace / 2)
    }

    /// A backend says no: whatever this identity was told is not told again while the backend is away.
    fn heed(&self, order: &Order, error: &BackendError) {
        if is_denial(error) {
            self.state().memory.forget(|question| question.is_of(&order.asker.identity));
        }
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

    /// Makes a request in its turn, if its backend is asked at all; see [`Gate::pass`](super::gate::Gate::pass).
    pub(super) async fn pass<T>(
        &self,
        order: &Order,
        request: impl Future<Output = T>,
        failure: impl FnOnce(&T) -> Option<&BackendError>,
    ) -> Result<T, BackendError> {
        self.pass_gate(&order.handle, order.urgent, request, failure).await
    }

    /// The same for a request that has an answer or none, within its backend's time.
    pub(crate) async fn through<T>(
        &self,
        handle: &BackendHandle,
        urgent: bool,
        request: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        let patience = handle.backend.patience(handle.limits.timeout);
        self.pass_gate(handle, urgent, timed(patience, request), |answer| answer.as_ref().err()).await?
    }

    async fn pass_gate<T>(
        &self,
        handle: &BackendHandle,
        urgent: bool,
        request: impl Future<Output = T>,
        failure: impl FnOnce(&T) -> Option<&BackendError>,
    ) -> Result<T, BackendError> {
        let passer = Passer { clock: self.clock.as_ref(), meter: &self.meter, kind: handle.backend.kind(), urgent };
        handle.gate.pass(&passer, request, failure).await
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
        let there = state.logins.get(&order.asker).filter(|login| login.takes_newcomers(now));
        if let Some(login) = there.filter(|_| order.is_told_apart()) {
            return (login, false);
        }
        let login = Arc::new(Login::begin(now, Arc::clone(self).open(Arc::clone(order))));
        state.logins.insert(Arc::clone(&order.asker), &login);
        (login, true)
    }

    /// Logs in. The event is recorded here, because whoever began it may have left when others still wait.
    pub(super) async fn open(self: Arc<Self>, order: Arc<Order>) -> Result<Arc<dyn Session>, BackendError> {
        let Order { handle, asker, token, subject, auditor, .. } = order.as_ref();
        let caller = Caller { workload: &subject.workload, token: token.as_deref() };
        let patience = handle.backend.patience(handle.limits.timeout);
        let open = timed(patience, handle.backend.open(&caller, &asker.identity));
        let opened = self.pass(&order, open, |opened| opened.as_ref().err()).await?;
        let (login, outcome) = match &opened {
            Ok(session) => (session.login().clone(), Outcome::Success),
            Err(error) => (handle.backend.login(), failure(error)),
        };
        if let Err(error) = &opened {
            self.heed(&order, error);
        }
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
        let (sent, answers) = self.ask_with(&order, session.as_ref(), &grants).await?;
        // That a secret is not there is no login's fault.
        let failed =
            |answer: &Answer| answer.result.as_ref().is_err_and(|error| error.kind != BackendErrorKind::NotFound);
        if answers.iter().any(failed) {
            login.retire();
        }
        self.settle(&order, questions, &answers, (begun, sent));
        Ok(answers.into())
    }

    /// Asks a batch with this session and records what came; with when it was sent.
    pub(super) async fn ask_with(
        &self,
        order: &Order,
        session: &dyn Session,
        grants: &[Grant],
    ) -> Result<(Instant, Vec<Answer>), BackendError> {
        let limit = order.handle.limits.timeout;
        let batch: Vec<&Grant> = grants.iter().collect();
        let (sent, results) = self
            .pass(
                order,
                async {
                    let sent = self.now();
                    let results = timed(limit, async { Ok(session.fetch_batch(&batch).await) }).await;
                    (sent, results.unwrap_or_else(|late| batch.iter().map(|_| Err(late.clone())).collect()))
                },
                // One answer shows that it answers.
                |(_, results)| {
                    let answers = results.iter().any(Result::is_ok);
                    results.first().filter(|_| !answers).and_then(|result| result.as_ref().err())
                },
            )
            .await?;
        let endpoint = session.endpoint();
        let answer = |result: Result<Secret, _>| Answer { result: result.map(Arc::new), endpoint: endpoint.clone() };
        let answers: Vec<Answer> = results.into_iter().map(answer).collect();
        for (grant, answer) in grants.iter().zip(&answers) {
            self.answered(order, grant, answer, Source::Asked);
            if let Err(error) = &answer.result {
                self.heed(order, error);
            }
        }
        Ok((sent, answers))
    }

    /// Keeps what may stay and forgets that it was asked, in one step: whoever comes finds the one or the other.
    fn settle(
        self: &Arc<Self>,
        order: &Order,
        questions: Vec<Option<Question>>,
        answers: &[Answer],
        (begun, sent): (Instant, Instant),
    ) {
        let now = self.now();
        // The wall's time of the question, which was put a moment ago.
        let sent_at = self.clock.now() - now.saturating_duration_since(sent);
        let grace = order.offline_grace();
        // A denial in the same batch has just had everything forgotten.
        let denied = answers.iter().any(|it| it.result.as_ref().is_err_and(is_denial));
        let mut state = self.state();
        for (question, answer) in questions.into_iter().zip(answers) {
            let Some(question) = question else { continue };
            match &answer.result {
                Ok(secret) if is_static(secret) => {
                    let answer = || (secret.as_ref(), answer.endpoint.clone());
                    let reuse = sent + order.handle.limits.reuse;
                    if reuse > now {
                        let expiry = |number| self.expire(reuse, number, |state| &mut state.reuse);
                        state.reuse.keep(&question, answer(), (sent, sent_at, reuse), expiry);
                    }
                    if let Some(grace) = grace.filter(|grace| !denied && sent + *grace > now) {
                        let until = sent + grace;
                        let expiry = |number| self.expire(until, number, |state| &mut state.memory);
                        state.memory.keep(&question, answer(), (sent, sent_at, until), expiry);
                    }
                }
                // What is no more, or not static any more.
                Ok(_) => state.memory.forget(|other| *other == question),
                Err(error) if error.kind == BackendErrorKind::NotFound => {
                    state.memory.forget(|other| *other == question);
                }
                Err(_) => {}
            }
            // A refresh may have begun it anew meanwhile.
            if state.asked.get(&question).is_none_or(|place| place.batch.begun() == begun) {
                state.asked.remove(&question);
            }
        }
    }

    /// Wipes the answer of this number when its time has come.
    fn expire(self: &Arc<Self>, until: Instant, number: u64, of: fn(&mut State) -> &mut Reuse) -> AbortHandle {
        let fetcher = Arc::downgrade(self);
        let expire = async move {
            tokio::time::sleep_until(until).await;
            if let Some(fetcher) = fetcher.upgrade() {
                of(&mut fetcher.state()).expire(number);
            }
        };
        tokio::spawn(expire).abort_handle()
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
    /// Whether the answer may serve others.
    fn shares(&self, grant: &Grant) -> bool {
        self.is_told_apart() && self.handle.backend.shareable(grant)
    }

    /// How long answers to this asker are remembered, if at all: it has to be told apart to the service account's uid, and
    /// not to the pod's, which no other pod has. A login of the platform's proves nothing about a pod.
    fn offline_grace(&self) -> Option<Duration> {
        let caller = self.asker.identity.caller.as_ref();
        let is_account = caller.is_some_and(|it| it.service_account_uid.is_some() && it.pod_uid.is_none());
        self.handle.limits.offline_grace.filter(|_| is_account)
    }

    /// The same for the answer to one question.
    fn remembers(&self, grant: &Grant) -> Option<Duration> {
        self.offline_grace().filter(|_| self.shares(grant))
    }

    /// Whether the identity's volumes may share what they are lent: its logins are its own, and it is told apart.
    pub(super) fn shares_leases(&self) -> bool {
        self.is_told_apart() && self.asker.identity.caller.is_some()
    }

    /// Where a token is wanted but does not name the account's uid, a re-created account cannot be told from the one
    /// before, so nothing is shared.
    fn is_told_apart(&self) -> bool {
        self.token.as_ref().is_none_or(|token| token.claims().service_account_uid.is_some())
    }
}

impl Place {
    /// The answer; an error where nothing was asked, because there was no login.
    pub(super) async fn answer(&self) -> Result<Answer, BackendError> {
        let answers = self.batch.wait().await.unwrap_or_else(|| Err(cut_short()))?;
        answers.get(self.index).cloned().ok_or_else(cut_short)
    }
}

/// Whether a backend says no to whoever asks.
fn is_denial(error: &BackendError) -> bool {
    matches!(error.kind, BackendErrorKind::Denied | BackendErrorKind::Unauthenticated)
}

/// Whether an answer has no end of its own: one with a lease or an expiry was made for who asked, and one that changes at
/// a time is as old as it says only when it comes.
pub(super) fn is_static(secret: &Secret) -> bool {
    secret.lease.is_none() && secret.expires_at.is_none() && secret.rotates_in.is_none()
}
