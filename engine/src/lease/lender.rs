// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Begins groups, prolongs them, and finds those of an earlier process.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tracing::{debug, warn};

use super::entry::Entry;
use super::group::{Cause, GroupId, Held, LeaseGroup, Lent, Terms};
use super::ledger::{Lease, Ledger, Standing, State};
use super::{Journal, Returns};
use crate::audit::{Auditor, Subject};
use crate::backend::{BackendError, BackendErrorKind, Identity, Session};
use crate::clock::Clock;
use crate::error::Error;
use crate::fetch::{BackendHandle, Backends, Fetcher};
use crate::keep::{Keep, KeptSecret};
use crate::names::BackendName;
use crate::projection::DigestKey;
use crate::secret::{Secret, SecretBytes};

/// What is prolonged by a smaller share than this of what it was lent for comes to its last end: it is replaced while a third
/// of its life is still there for the overlap.
const ENOUGH: f64 = 0.9;

/// Lends on behalf of backends, for all volumes of a node.
pub struct Lender {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) keep: Arc<dyn Keep>,
    pub(super) backends: Arc<dyn Backends>,
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) auditor: Arc<dyn Auditor>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ledger: Arc<Ledger>,
    digests: DigestKey,
    /// Roles of backends that prolong nothing, of which it was said.
    refused: Mutex<BTreeSet<(BackendName, String)>>,
    returns: UnboundedSender<Box<Held>>,
    returned: Mutex<Option<UnboundedReceiver<Box<Held>>>>,
}

/// What a backend gives more.
struct More {
    /// Of the login.
    login: Duration,
    /// Of each lease.
    left: Vec<Duration>,
    /// Until the first of everything ends.
    life: Duration,
    enough: bool,
}

/// What an attempt to prolong came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prolonged {
    /// Everything is good for so long from now on.
    For(Duration),
    /// It ends soon whatever is done: another group has to take its place.
    Not,
}

impl Lender {
    /// Writes down in `journal`, keeps in `keep`, and asks by way of `fetcher`, whose bounds and counts are these too. `digests`
    /// stand for leases' ids.
    pub fn new(
        journal: Arc<dyn Journal>,
        keep: Arc<dyn Keep>,
        backends: Arc<dyn Backends>,
        fetcher: Arc<Fetcher>,
        auditor: Arc<dyn Auditor>,
        clock: Arc<dyn Clock>,
        digests: DigestKey,
    ) -> Arc<Self> {
        let (returns, returned) = mpsc::unbounded_channel();
        let returned = Mutex::new(Some(returned));
        let ledger = Arc::new(Ledger::new(fetcher.meter()));
        Arc::new(Self {
            journal,
            keep,
            backends,
            fetcher,
            auditor,
            clock,
            ledger,
            digests,
            refused: Mutex::default(),
            returns,
            returned,
        })
    }

    /// Which groups there are.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Whoever runs these gives back what is dropped; there is one for each lender.
    pub fn returns(self: &Arc<Self>) -> Option<Returns> {
        let returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner).take();
        returned.map(|returned| Returns::new(Arc::clone(self), returned))
    }

    /// Begins a group with a login that was just made, and writes it down. Nothing may be asked for with it before.
    /// `None` where nothing of the login could be given back: it is the platform's own, or there was none. `shared` is the one
    /// path that is asked, where all volumes of the identity may show what it lends.
    pub(crate) async fn begin(
        &self,
        (subject, identity): (&Subject, &Identity),
        handle: &Arc<BackendHandle>,
        session: &dyn Session,
        shared: Option<&str>,
    ) -> Result<Option<LeaseGroup>, Error> {
        let Some(credential) = session.credential() else { return Ok(None) };
        let ends = session.login().ttl.map(|ttl| self.clock.now() + ttl);
        let kind = handle.backend.kind();
        let entry = Entry::new(subject, identity, kind, shared).with(credential.expose())?;
        let held = Held {
            id: GroupId::random()?,
            subject: subject.clone(),
            identity: identity.clone(),
            shared: shared.map(str::to_owned),
            handle: Some(Arc::clone(handle)),
            credential: self.keep.keep(credential)?,
            lent: Vec::new(),
            terms: Mutex::new(Terms::new(ends, Cause::Undelivered)),
            turn: tokio::sync::Mutex::default(),
        };
        // Before it is written down: an entry that is half there belongs to a group that is given back.
        let group = self.group(held, kind.to_owned(), (State::Delivering, Some(Vec::new())));
        self.journal.put(group.id(), entry).await?;
        crate::crash_point!("lease:journalled");
        Ok(Some(group))
    }

    /// The group holds what came with this answer, too; where others may show it, with its values.
    pub(crate) fn lent(&self, group: &mut LeaseGroup, path: &str, secret: &Secret) -> Result<(), Error> {
        let Some(lease) = &secret.lease else { return Ok(()) };
        let id = self.keep.keep(SecretBytes::from(lease.id.expose()))?;
        let (duration, renewable) = (lease.duration, lease.renewable);
        let now = self.clock.monotonic();
        let ends = (!duration.is_zero()).then(|| now + duration);
        let listed = Lease { path: path.to_owned(), id: self.digests.lease_id(id.expose()), renewable, ends };
        self.ledger.lent(group.id(), listed);
        let held = group.held_mut().ok_or_else(|| Error::internal("a lease group is lent more after it was shared"))?;
        let answer = held.shared.is_some().then(|| KeptSecret::keep(self.keep.as_ref(), secret)).transpose()?;
        let mut terms = held.terms();
        terms.leases.push(ends);
        terms.as_of = Some((now, self.clock.now()));
        terms.answer = answer;
        drop(terms);
        held.lent.push(Lent { path: path.to_owned(), id, duration, renewable });
        Ok(())
    }

    /// The group of an entry that an earlier process wrote.
    ///
    /// # Errors
    /// Where the entry cannot be read, or there is no room for its credential.
    pub fn found(&self, id: GroupId, entry: &SecretBytes) -> Result<LeaseGroup, Error> {
        let read = Entry::read(entry);
        let (entry, credential) = read.ok_or_else(|| Error::internal("an entry of the lease journal is damaged"))?;
        let held = Held {
            id,
            subject: entry.subject(),
            identity: entry.identity,
            shared: entry.shared,
            handle: None,
            credential: self.keep.keep(credential)?,
            lent: Vec::new(),
            // It may have been prolonged since it was written down: only its backend knows when it ends.
            terms: Mutex::new(Terms::new(None, Cause::Orphaned)),
            turn: tokio::sync::Mutex::default(),
        };
        Ok(self.group(held, entry.kind, (State::Found, None)))
    }

    fn group(&self, held: Held, kind: String, (state, leases): (State, Option<Vec<Lease>>)) -> LeaseGroup {
        let (subject, backend, shared) = (held.subject.clone(), held.identity.backend.clone(), held.shared.is_some());
        let ends = held.terms().login;
        self.ledger.open(&held.id, Standing { subject, shared, volumes: 0, backend, kind, state, ends, leases });
        LeaseGroup::new(held, self.returns.clone(), Arc::clone(&self.ledger))
    }

    /// Prolongs the login first, because what it lent ends with it, then each lease. Where that is not enough, or cannot be
    /// said, something else has to take its place: whoever asks for that hears why, too. Of the volumes that share a group,
    /// one prolongs it for all.
    pub async fn prolong(&self, group: &LeaseGroup) -> Prolonged {
        let held = group.held();
        if held.lent.is_empty() || !held.lent.iter().all(|lent| lent.renewable) {
            return Prolonged::Not;
        }
        let came = self.clock.monotonic();
        let _turn = held.turn.lock().await;
        let (asked, begun) = (self.clock.now(), self.clock.monotonic());
        if let Some(known) = held.terms().still_prolonged(came, self.clock.as_ref()) {
            return known;
        }
        match self.ask_for_more(held).await {
            Ok(Some(More { login, left, life, enough })) => {
                let mut terms = held.terms();
                terms.login = Some(asked + login);
                terms.leases = left.into_iter().map(|left| Some(begun + left)).collect();
                (terms.as_of, terms.prolonged) = (Some((begun, asked)), Some(life));
                terms.spent = !enough;
                self.ledger.prolonged(&held.id, &terms);
                if enough { Prolonged::For(life) } else { Prolonged::Not }
            }
            Ok(None) => {
                held.terms().spent = true;
                Prolonged::Not
            }
            Err(error) => {
                debug!(group = %held.id, backend = %held.identity.backend, %error, "a lease group was not prolonged");
                let mut terms = held.terms();
                terms.failed = Some(self.clock.monotonic());
                if is_final(error.kind) {
                    terms.spent = true;
                    self.say_refused(&held.identity, &error);
                }
                Prolonged::Not
            }
        }
    }

    /// Once for each role of a backend: it is asked again with each lease.
    fn say_refused(&self, identity: &Identity, error: &BackendError) {
        let Identity { backend, role, .. } = identity;
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.insert((backend.clone(), role.clone())) {
            warn!(
                %backend, role, %error,
                "what says that it is renewable is not prolonged, and replaced instead: the role's policies lack update on \
                 auth/token/renew-self or sys/leases/renew, which the policy `default` has, or its leases are at their max_ttl from the start"
            );
        }
    }

    async fn ask_for_more(&self, held: &Held) -> Result<Option<More>, BackendError> {
        let handle = self.handle(held)?;
        let renew_login = async {
            let session = self.resume(&handle, held).await?;
            let login = session.renew_login().await?;
            Ok((session, login))
        };
        let (session, login) = self.fetcher.through(&handle, false, renew_login).await?;
        let Some(login) = login else { return Ok(None) };
        let mut more = More { login, left: Vec::new(), life: login, enough: true };
        for lent in &held.lent {
            let left = self.fetcher.through(&handle, false, session.renew(lent.id.expose())).await?;
            let Some(left) = left.map(|left| left.min(login)) else { return Ok(None) };
            more.left.push(left);
            more.life = more.life.min(left);
            // What comes close to its last end is prolonged by less than it was lent for.
            more.enough &= left >= lent.duration.mul_f64(ENOUGH);
        }
        Ok(Some(more))
    }

    /// The backend that lent to a group.
    pub(super) fn handle(&self, held: &Held) -> Result<Arc<BackendHandle>, BackendError> {
        let find = || self.backends.find(&held.identity.backend);
        let handle = held.handle.as_ref().map_or_else(find, |handle| Ok(Arc::clone(handle)));
        handle.map_err(|error| BackendError::new(BackendErrorKind::Unavailable, error.message()))
    }

    /// A session of a group's own login. This may ask the backend nothing, so that it comes back says nothing of how the backend
    /// is: whoever counts answers counts it together with the request it is for.
    pub(super) async fn resume(&self, handle: &BackendHandle, held: &Held) -> Result<Box<dyn Session>, BackendError> {
        handle.backend.resume(&held.identity, SecretBytes::from(held.credential.expose())).await
    }

    /// When a group whose login ends then has nothing left to give back.
    pub(super) fn is_over(&self, ends: Option<SystemTime>) -> bool {
        ends.is_some_and(|ends| ends <= self.clock.now())
    }
}

/// Whether asking again is answered the same.
pub(super) fn is_final(kind: BackendErrorKind) -> bool {
    match kind {
        BackendErrorKind::Denied
        | BackendErrorKind::Malformed
        | BackendErrorKind::NotFound
        | BackendErrorKind::Unauthenticated => true,
        BackendErrorKind::Credential
        | BackendErrorKind::Throttled
        | BackendErrorKind::TimedOut
        | BackendErrorKind::Unavailable => false,
    }
}
