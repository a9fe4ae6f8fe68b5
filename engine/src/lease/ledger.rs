// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Which groups there are, for operators and metrics. Whoever changes a group says so here, so that whoever asks waits for no
//! delivery and no backend.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::time::Instant;

use super::group::{Cause, GroupId, Terms};
use crate::audit::{Outcome, Subject};
use crate::error::Error;
use crate::fetch::Meter;
use crate::names::BackendName;
use crate::projection::Digest;

/// Every group of a node that is not given back.
pub struct Ledger {
    groups: Mutex<BTreeMap<GroupId, Standing>>,
    meter: Arc<dyn Meter>,
}

/// How a group is.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The volume it was borrowed for first.
    pub subject: Subject,
    /// Whether all volumes of its identity may show it.
    pub shared: bool,
    /// How many do.
    pub volumes: usize,
    /// Who lent it.
    pub backend: BackendName,
    /// Which kind of backend that is.
    pub kind: String,
    /// What it is there for.
    pub state: State,
    /// When its login, and with it all it lent, ends by itself, where it does.
    pub ends: Option<SystemTime>,
    /// What it lent; absent where an earlier process borrowed, which wrote down its login alone.
    pub leases: Option<Vec<Lease>>,
}

/// What a group is there for.
#[derive(Clone, Debug)]
pub enum State {
    /// A delivery that is under way.
    Delivering,
    /// Its volume shows it.
    Shown,
    /// Its volume showed it, and whoever has read that may use it until then.
    Replaced(Instant),
    /// Nothing any more.
    Returning(Returning),
    /// An earlier process borrowed it, and what became of its volume is not known yet.
    Found,
}

impl State {
    /// The name used in listings and metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Delivering => "delivering",
            Self::Shown => "shown",
            Self::Replaced(_) => "replaced",
            Self::Returning(_) => "returning",
            Self::Found => "found",
        }
    }
}

/// A group on its way back.
#[derive(Clone, Debug)]
pub struct Returning {
    /// Why it is given back.
    pub cause: Cause,
    /// Since when.
    pub since: Instant,
    /// Attempts that failed.
    pub failures: u32,
    /// Why the last of them did, and when there is another one.
    pub failed: Option<(Arc<Error>, Instant)>,
}

/// One lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The exact path that was asked.
    pub path: String,
    /// Stands for its id, which nobody but its backend is told.
    pub id: Digest,
    /// Whether its backend says that it prolongs it.
    pub renewable: bool,
    /// When it ends by itself, where its backend says that.
    pub ends: Option<Instant>,
}

/// What became of a group, to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// Its backend prolonged it.
    Prolonged,
    /// Another one took its place.
    Replaced,
    /// It was given back for this reason, or, where that is false, is left to its own end.
    Returned(Cause, bool),
}

/// One that nobody writes in.
impl Default for Ledger {
    fn default() -> Self {
        Self::new(Arc::new(()))
    }
}

impl Ledger {
    pub(super) fn new(meter: Arc<dyn Meter>) -> Self {
        Self { groups: Mutex::default(), meter }
    }

    /// All groups, by name.
    pub fn all(&self) -> BTreeMap<GroupId, Standing> {
        self.groups().clone()
    }

    pub(super) fn open(&self, group: &GroupId, standing: Standing) {
        self.groups().insert(group.clone(), standing);
    }

    pub(super) fn lent(&self, group: &GroupId, lease: Lease) {
        self.edit(group, |it| it.leases.get_or_insert_default().push(lease));
    }

    pub(super) fn shown(&self, group: &GroupId, volumes: usize) {
        self.edit(group, |it| (it.state, it.volumes) = (State::Shown, volumes));
    }

    /// One volume fewer shows it; where none does, some may use it until then.
    pub(super) fn hidden(&self, group: &GroupId, volumes: usize, until: Option<Instant>) {
        let kind = self.edit(group, |it| it.volumes = volumes);
        if let Some(until) = until.filter(|_| volumes == 0) {
            self.edit(group, |it| it.state = State::Replaced(until));
            self.count(kind, Became::Replaced);
        }
    }

    /// Its ends are others.
    pub(super) fn prolonged(&self, group: &GroupId, terms: &Terms) {
        let kind = self.edit(group, |it| {
            it.ends = terms.login;
            it.leases.iter_mut().flatten().zip(&terms.leases).for_each(|(lease, ends)| lease.ends = *ends);
        });
        self.count(kind.filter(|_| !terms.spent), Became::Prolonged);
    }

    pub(super) fn returning(&self, group: &GroupId, cause: Cause, now: Instant) {
        self.edit(group, |it| it.state = State::Returning(Returning { cause, since: now, failures: 0, failed: None }));
    }

    /// It could not be given back, and is tried again then.
    pub(super) fn failed(&self, group: &GroupId, error: Error, again: Instant) {
        self.edit(group, |it| {
            if let State::Returning(returning) = &mut it.state {
                returning.failures += 1;
                returning.failed = Some((Arc::new(error), again));
            }
        });
    }

    pub(super) fn close(&self, group: &GroupId, cause: Cause, outcome: &Outcome) {
        let standing = self.groups().remove(group);
        self.count(standing.map(|it| it.kind), Became::Returned(cause, *outcome == Outcome::Success));
    }

    /// Its backend's kind, where there is such a group.
    fn edit(&self, group: &GroupId, change: impl FnOnce(&mut Standing)) -> Option<String> {
        let mut groups = self.groups();
        let standing = groups.get_mut(group)?;
        change(standing);
        Some(standing.kind.clone())
    }

    fn count(&self, kind: Option<String>, became: Became) {
        if let Some(kind) = kind {
            self.meter.leased(&kind, became);
        }
    }

    fn groups(&self) -> MutexGuard<'_, BTreeMap<GroupId, Standing>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
