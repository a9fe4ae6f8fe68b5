// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! One login and what it lent.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::ledger::Ledger;
use super::lender::Prolonged;
use crate::audit::Subject;
use crate::backend::Identity;
use crate::clock::Clock;
use crate::error::Error;
use crate::fetch::BackendHandle;
use crate::keep::{Kept, KeptSecret};
use crate::secret::{Lease, Secret, SecretBytes};

/// Names a group in the journal and to operators; random, so it says nothing of what was lent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupId(String);

/// What is not a group's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a lease group's id is {} lower-case hexadecimal digits", 2 * GroupId::BYTES)]
pub struct GroupIdError;

impl GroupId {
    const BYTES: usize = 16;

    /// A new one.
    ///
    /// # Errors
    /// [`Kind::Internal`](crate::error::Kind::Internal) where the system has no randomness.
    pub fn random() -> Result<Self, Error> {
        let mut bytes = [0; Self::BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| Error::internal("no randomness for a lease group's name"))?;
        Ok(bytes.into())
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<[u8; GroupId::BYTES]> for GroupId {
    fn from(random: [u8; Self::BYTES]) -> Self {
        Self(format!("{:032x}", u128::from_be_bytes(random)))
    }
}

impl TryFrom<String> for GroupId {
    type Error = GroupIdError;

    fn try_from(text: String) -> Result<Self, GroupIdError> {
        let fits = text.len() == 2 * Self::BYTES && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        fits.then_some(Self(text)).ok_or(GroupIdError)
    }
}

impl FromStr for GroupId {
    type Err = GroupIdError;

    fn from_str(text: &str) -> Result<Self, GroupIdError> {
        text.to_owned().try_into()
    }
}

impl From<GroupId> for String {
    fn from(id: GroupId) -> Self {
        id.0
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a group is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It was borrowed for a delivery that did not come to its end.
    Undelivered,
    /// Another group took its place, and its overlap is over.
    Replaced,
    /// Its volume is gone.
    Unmounted,
    /// An earlier process left it, and no volume shows it.
    Orphaned,
    /// It turned out to have lent nothing.
    Empty,
}

impl Cause {
    /// The name used in events and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Undelivered => "undelivered",
            Self::Replaced => "replaced",
            Self::Unmounted => "unmounted",
            Self::Orphaned => "orphaned",
            Self::Empty => "empty",
        }
    }
}

/// One lease of a group.
pub struct Lent {
    /// The exact path that was asked.
    pub path: String,
    /// What it is prolonged with.
    pub(super) id: Box<dyn Kept>,
    /// How long it was good for when it was lent.
    pub duration: Duration,
    /// Whether its backend prolongs it.
    pub renewable: bool,
}

/// Everything about a group but the duty to give it back.
pub(super) struct Held {
    pub(super) id: GroupId,
    /// The volume it was borrowed for first.
    pub(super) subject: Subject,
    pub(super) identity: Identity,
    /// The one path that was asked, where all volumes of the identity may show what it lent.
    pub(super) shared: Option<String>,
    /// The backend as it was when it lent; absent where an earlier process borrowed.
    pub(super) handle: Option<Arc<BackendHandle>>,
    /// What ends the login.
    pub(super) credential: Box<dyn Kept>,
    pub(super) lent: Vec<Lent>,
    /// What changes.
    pub(super) terms: Mutex<Terms>,
    /// One prolongs, and who comes meanwhile hears what came of it.
    pub(super) turn: tokio::sync::Mutex<()>,
}

/// What changes of a group.
pub(super) struct Terms {
    /// When the login, and with it all it lent, ends by itself.
    pub(super) login: Option<SystemTime>,
    /// When each lease ends by itself, as its backend said last; absent where that says nothing.
    pub(super) leases: Vec<Option<Instant>>,
    /// When this was said, by both clocks.
    pub(super) as_of: Option<(Instant, SystemTime)>,
    /// For how long it was prolonged then, if it was.
    pub(super) prolonged: Option<Duration>,
    /// It is not prolonged any more.
    pub(super) spent: bool,
    /// When an attempt to prolong it failed last.
    pub(super) failed: Option<Instant>,
    /// What it lent, for the volumes that are yet to come.
    pub(super) answer: Option<KeptSecret>,
    /// How many volumes show it.
    showing: usize,
    /// Until when those use it that do not show it any more.
    used_until: Option<Instant>,
    /// What whoever gave it up last said.
    cause: Cause,
}

impl Terms {
    /// Those of a group that is given back for this reason if nothing comes of it.
    pub(super) fn new(login: Option<SystemTime>, cause: Cause) -> Self {
        let (leases, as_of, prolonged, spent, failed) = (Vec::new(), None, None, false, None);
        Self { login, leases, as_of, prolonged, spent, failed, answer: None, showing: 0, used_until: None, cause }
    }

    /// What an attempt to prolong it came to that is as good as another one for who `came` then: one that failed for good or since,
    /// or one that was made a moment ago, as seen from its life.
    pub(super) fn still_prolonged(&self, came: Instant, clock: &dyn Clock) -> Option<Prolonged> {
        if self.spent || self.failed.is_some_and(|at| at >= came) {
            return Some(Prolonged::Not);
        }
        let (life, since) = (self.prolonged?, self.age(clock));
        (since < life / 3).then(|| Prolonged::For(life - since))
    }

    /// How long ago this was said, by the clock that says more: a machine may have slept.
    fn age(&self, clock: &dyn Clock) -> Duration {
        let Some((at, at_wall)) = self.as_of else { return Duration::ZERO };
        let wall = clock.now().duration_since(at_wall).unwrap_or_default();
        clock.monotonic().saturating_duration_since(at).max(wall)
    }
}

impl Held {
    pub(super) fn terms(&self) -> MutexGuard<'_, Terms> {
        self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it goes back, and when it would have ended by itself.
    pub(super) fn end(&self) -> (Cause, Option<SystemTime>) {
        let terms = self.terms();
        (terms.cause, terms.login)
    }
}

/// What the handles of a group have in common. Dropping the last of them gives it back.
pub(crate) struct Whole {
    held: Option<Box<Held>>,
    returns: UnboundedSender<Box<Held>>,
    ledger: Arc<Ledger>,
}

/// See the [module](super). Dropping the last one gives back what they hold.
pub struct LeaseGroup {
    whole: Arc<Whole>,
    shows: bool,
}

impl Whole {
    pub(super) fn held(&self) -> &Held {
        self.held.as_deref().expect("invariant: there until it is dropped")
    }

    /// For one volume more.
    pub(crate) fn hold(self: &Arc<Self>) -> LeaseGroup {
        LeaseGroup { whole: Arc::clone(self), shows: false }
    }

    /// What it lent, for as long as it is still good, and how long its login is, for a volume that has not seen it; nothing where
    /// another group should take its place soon.
    pub(crate) fn answer(&self, clock: &dyn Clock) -> Option<(Secret, Option<Duration>)> {
        let held = self.held();
        let terms = held.terms();
        let ([lent], [ends], Some(answer)) = (&held.lent[..], &terms.leases[..], &terms.answer) else { return None };
        let now = terms.as_of.map_or_else(|| clock.monotonic(), |(at, _)| at + terms.age(clock));
        let left = ends.map(|ends| ends.saturating_duration_since(now));
        let login = terms.login.map(|ends| ends.duration_since(clock.now()).unwrap_or_default());
        // Who comes in the last third would have to replace it at once.
        if terms.spent || left.is_some_and(|left| left <= lent.duration / 3) {
            return None;
        }
        // Its id stays with the group, which alone prolongs it.
        let lease =
            Lease { id: SecretBytes::new(Vec::new()), duration: left.unwrap_or_default(), renewable: lent.renewable };
        Some((Secret { lease: Some(lease), ..answer.secret() }, login))
    }

    /// Another group answers from now on.
    pub(crate) fn forget_answer(&self) {
        self.held().terms().answer = None;
    }
}

impl LeaseGroup {
    pub(super) fn new(held: Held, returns: UnboundedSender<Box<Held>>, ledger: Arc<Ledger>) -> Self {
        Self { whole: Arc::new(Whole { held: Some(Box::new(held)), returns, ledger }), shows: false }
    }

    pub(super) fn held(&self) -> &Held {
        self.whole.held()
    }

    /// Nobody else holds it before all of it is lent.
    pub(super) fn held_mut(&mut self) -> Option<&mut Held> {
        Arc::get_mut(&mut self.whole)?.held.as_deref_mut()
    }

    /// What other volumes may hold, too.
    pub(crate) fn whole(&self) -> &Arc<Whole> {
        &self.whole
    }

    /// The same group for one volume more.
    pub fn hold(&self) -> Self {
        self.whole.hold()
    }

    /// Its name.
    pub fn id(&self) -> &GroupId {
        &self.held().id
    }

    /// The volume it was borrowed for first.
    pub fn subject(&self) -> &Subject {
        &self.held().subject
    }

    /// Who lent to whom.
    pub fn identity(&self) -> &Identity {
        &self.held().identity
    }

    /// The one path that was asked, where all volumes of the identity may show what it lent.
    pub fn shared(&self) -> Option<&str> {
        self.held().shared.as_deref()
    }

    /// When its login ends by itself, where it does.
    pub fn ends(&self) -> Option<SystemTime> {
        self.held().terms().login
    }

    /// When all that it lent has ended by itself; `None` where that is not known.
    pub fn over(&self) -> Option<Instant> {
        self.held().terms().leases.iter().copied().collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// What it holds; nothing of a group that an earlier process borrowed, which knows its login alone.
    pub fn lent(&self) -> &[Lent] {
        &self.held().lent
    }

    /// Has no more to do with it, and says why, should nobody else hold it.
    pub fn give_back(self, cause: Cause) {
        self.held().terms().cause = cause;
    }

    /// Its volume shows what it lent.
    pub fn shown(&mut self) {
        if !std::mem::replace(&mut self.shows, true) {
            let mut terms = self.held().terms();
            terms.showing += 1;
            self.whole.ledger.shown(self.id(), terms.showing);
        }
    }

    /// Its volume shows something else, and uses it until then.
    pub fn replaced(&mut self, until: Instant) {
        let mut terms = self.held().terms();
        terms.used_until = terms.used_until.max(Some(until));
        drop(terms);
        self.hide();
    }

    fn hide(&mut self) {
        if std::mem::take(&mut self.shows) {
            let mut terms = self.held().terms();
            terms.showing -= 1;
            self.whole.ledger.hidden(self.id(), terms.showing, terms.used_until);
        }
    }
}

/// Its name, and nothing of what it holds.
impl fmt::Debug for LeaseGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseGroup({})", self.id())
    }
}

impl Drop for LeaseGroup {
    fn drop(&mut self) {
        self.hide();
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            held.terms().answer = None;
            // Nobody listens any more where the process ends: the journal tells the next one.
            let _ = self.returns.send(held);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_hexadecimal_and_nothing_else() {
        let id = GroupId::from([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(id.as_str(), "000102030405060708090a0b0c0d0eff");
        assert_eq!(id.as_str().parse::<GroupId>().unwrap(), id);
        assert_ne!(GroupId::random().unwrap(), GroupId::random().unwrap());
        for bad in [
            "",
            "..",
            "/etc/passwd",
            &"g".repeat(32),
            &"A".repeat(32),
            &"0".repeat(31),
            &"0".repeat(33),
            &"é".repeat(16),
        ] {
            assert_eq!(bad.parse::<GroupId>(), Err(GroupIdError), "{bad:?}");
        }
    }
}
