// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What is lent, counted: how much there is by its backend's kind, and what became of it.

use std::sync::Arc;

use evanesce_engine::clock::Clock;
use evanesce_engine::lease::ledger::{Became, Ledger, Standing, State as GroupState};
use evanesce_runtime::label;
use evanesce_runtime::metrics::{Counter, Label, Metrics, Unit};

use super::{Backend, backend, count};

label! {
    /// What a lease group is there for.
    pub enum State("state") {
        /// A delivery that is under way.
        Delivering = "delivering",
        /// Its volume shows it.
        Shown = "shown",
        /// Its volume showed it, and its overlap is not over.
        Replaced = "replaced",
        /// Nothing: it is on its way back.
        Returning = "returning",
        /// An earlier engine half borrowed it, for a volume that is not known.
        Found = "found",
    }
}

label! {
    /// What a group that would have ended became.
    pub enum Renewal("outcome") {
        /// Its backend prolonged it.
        Prolonged = "prolonged",
        /// Another one took its place.
        Replaced = "replaced",
    }
}

label! {
    /// Why a group is given back: see [`evanesce_engine::lease::Cause`].
    pub enum Cause("cause") {
        /// Its delivery did not come to its end.
        Undelivered = "undelivered",
        /// Another one took its place.
        Replaced = "replaced",
        /// Its volume is gone.
        Unmounted = "unmounted",
        /// An earlier engine half left it.
        Orphaned = "orphaned",
        /// It lent nothing.
        Empty = "empty",
    }
}

label! {
    /// Whether a backend took back what it lent.
    pub enum Returned("outcome") {
        /// It did.
        Ok = "ok",
        /// It did not, and what it lent ends at its own time.
        Failed = "failed",
    }
}

/// What is counted as it happens.
pub(super) struct Counters {
    renewals: Counter<(Backend, Renewal)>,
    revocations: Counter<(Backend, Cause, Returned)>,
}

impl Counters {
    pub(super) fn declare(all: &mut Metrics) -> Self {
        Self {
            renewals: all
                .counter("lease_renewals", "Lease groups that were prolonged in time, or replaced by another one"),
            revocations: all.counter(
                "lease_revocations",
                "Lease groups that were given back, by why; one that failed ends at its own time",
            ),
        }
    }

    pub(super) fn leased(&self, kind: &str, became: Became) {
        let Some(backend) = backend(kind) else { return };
        match became {
            Became::Prolonged => self.renewals.inc((backend, Renewal::Prolonged)),
            Became::Replaced => self.renewals.inc((backend, Renewal::Replaced)),
            Became::Returned(cause, taken) => {
                let outcome = if taken { Returned::Ok } else { Returned::Failed };
                self.revocations.inc((backend, self::cause(cause), outcome));
            }
        }
    }
}

/// Declares what is only looked at when somebody scrapes.
pub fn look_at(all: &mut Metrics, ledger: Arc<Ledger>, clock: Arc<dyn Clock>) {
    let groups = all.gauge::<(Backend, State)>(
        "lease_groups",
        "Lease groups: logins that were each made for what one volume is lent, and are not ended",
        None,
    );
    let leases = all.gauge::<(Backend,)>("leases", "Leases of these groups, as far as they are known", None);
    let longest = all.gauge::<()>(
        "lease_groups_returning_longest",
        "How long ago the lease group that could not be given back for the longest was to be; 0 without one",
        Some(Unit::Seconds),
    );
    all.before_encode(move || {
        let all = ledger.all();
        let now = clock.monotonic();
        for backend in Backend::ALL {
            let ours: Vec<_> = all.values().filter(|it| it.kind == backend.as_str()).collect();
            for state in State::ALL {
                let here = ours.iter().filter(|it| self::state(&it.state) == *state).count();
                groups.set((*backend, *state), count(here as u64));
            }
            let lent = ours.iter().filter_map(|it| it.leases.as_ref()).map(Vec::len).sum::<usize>();
            leases.set((*backend,), count(lent as u64));
        }
        let since = |standing: &Standing| match &standing.state {
            GroupState::Returning(returning) => Some(now.saturating_duration_since(returning.since)),
            GroupState::Delivering | GroupState::Shown | GroupState::Replaced(_) | GroupState::Found => None,
        };
        longest.set((), all.values().filter_map(since).max().unwrap_or_default().as_secs_f64());
    });
}

fn state(state: &GroupState) -> State {
    match state {
        GroupState::Delivering => State::Delivering,
        GroupState::Shown => State::Shown,
        GroupState::Replaced(_) => State::Replaced,
        GroupState::Returning(_) => State::Returning,
        GroupState::Found => State::Found,
    }
}

fn cause(cause: evanesce_engine::lease::Cause) -> Cause {
    use evanesce_engine::lease::Cause as Why;
    match cause {
        Why::Undelivered => Cause::Undelivered,
        Why::Replaced => Cause::Replaced,
        Why::Unmounted => Cause::Unmounted,
        Why::Orphaned => Cause::Orphaned,
        Why::Empty => Cause::Empty,
    }
}
