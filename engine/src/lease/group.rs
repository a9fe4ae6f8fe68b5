// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! One login and what it lent.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::ledger::Ledger;
use crate::audit::Subject;
use crate::backend::Identity;
use crate::error::Error;
use crate::fetch::BackendHandle;
use crate::keep::Kept;

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
    /// When it ends by itself, as its backend said last; absent where that says nothing.
    pub(super) ends: Option<Instant>,
}

/// Everything about a group but the duty to give it back.
pub(super) struct Held {
    pub(super) id: GroupId,
    pub(super) subject: Subject,
    pub(super) identity: Identity,
    /// The backend as it was when it lent; absent where an earlier process borrowed.
    pub(super) handle: Option<Arc<BackendHandle>>,
    /// What ends the login.
    pub(super) credential: Box<dyn Kept>,
    /// When the login, and with it all it lent, ends by itself.
    pub(super) ends: Option<SystemTime>,
    pub(super) lent: Vec<Lent>,
    pub(super) cause: Cause,
}

/// See the [module](super). Dropping it gives back what it holds.
pub struct LeaseGroup {
    held: Option<Box<Held>>,
    returns: UnboundedSender<Box<Held>>,
    ledger: Arc<Ledger>,
}

impl LeaseGroup {
    pub(super) fn new(held: Held, returns: UnboundedSender<Box<Held>>, ledger: Arc<Ledger>) -> Self {
        Self { held: Some(Box::new(held)), returns, ledger }
    }

    pub(super) fn held(&self) -> &Held {
        self.held.as_deref().expect("invariant: there until it is dropped")
    }

    pub(super) fn held_mut(&mut self) -> &mut Held {
        self.held.as_deref_mut().expect("invariant: there until it is dropped")
    }

    /// Its name.
    pub fn id(&self) -> &GroupId {
        &self.held().id
    }

    /// The volume it was borrowed for.
    pub fn subject(&self) -> &Subject {
        &self.held().subject
    }

    /// Who lent to whom.
    pub fn identity(&self) -> &Identity {
        &self.held().identity
    }

    /// When its login ends by itself, where it does.
    pub fn ends(&self) -> Option<SystemTime> {
        self.held().ends
    }

    /// When all that it lent has ended by itself; `None` where that is not known.
    pub fn over(&self) -> Option<Instant> {
        self.lent().iter().map(|lent| lent.ends).collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// What it holds; nothing of a group that an earlier process borrowed, which knows its login alone.
    pub fn lent(&self) -> &[Lent] {
        &self.held().lent
    }

    /// Gives it back, and says why.
    pub fn give_back(mut self, cause: Cause) {
        self.held_mut().cause = cause;
    }

    /// Its volume shows what it lent.
    pub fn shown(&self) {
        self.ledger.shown(self.id());
    }

    /// Its volume shows something else, and it stays until then.
    pub fn replaced(&self, until: Instant) {
        self.ledger.replaced(self.id(), until);
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
        if let Some(held) = self.held.take() {
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
