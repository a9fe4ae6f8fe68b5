// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What one volume has borrowed: the credentials it shows, and those that others still use.

use std::time::Duration;

use evanesce_engine::audit::Shown;
use evanesce_engine::clock::Clock;
use evanesce_engine::lease::{Cause, GroupId, LeaseGroup, Lender, Prolonged};
use tokio::time::Instant;

/// A volume's lease groups. Whatever is dropped here goes back.
#[derive(Default)]
pub struct Borrowed {
    shown: Vec<LeaseGroup>,
    /// Not shown any more, with the time until which they stay valid.
    replaced: Vec<(LeaseGroup, Instant)>,
}

impl Borrowed {
    /// What the volume shows.
    pub fn shown(&self) -> &[LeaseGroup] {
        &self.shown
    }

    /// Its names.
    pub fn names(&self) -> Vec<GroupId> {
        self.shown.iter().map(|group| group.id().clone()).collect()
    }

    /// Shows `groups` from now on; what it showed stays valid for `overlap`, or until all of it has ended by itself.
    pub fn replace(&mut self, mut groups: Vec<LeaseGroup>, overlap: Duration, clock: &dyn Clock) {
        groups.iter_mut().for_each(LeaseGroup::shown);
        let until = clock.monotonic() + overlap;
        let before = std::mem::replace(&mut self.shown, groups);
        self.replaced.extend(before.into_iter().map(|mut group| {
            let until = group.over().map_or(until, |over| over.min(until));
            group.replaced(until);
            (group, until)
        }));
    }

    /// Takes over what an earlier engine half borrowed for the volume. Which of it is shown nobody knows: all of it stays
    /// until something else takes its place.
    pub fn adopt(&mut self, mut group: LeaseGroup) {
        group.shown();
        self.shown.push(group);
    }

    /// Gives back what has stayed long enough.
    pub fn sweep(&mut self, now: Instant) {
        for (group, _) in self.replaced.extract_if(.., |(_, until)| *until <= now) {
            group.give_back(Cause::Replaced);
        }
    }

    /// When there is something to sweep.
    pub fn next_sweep(&self) -> Option<Instant> {
        self.replaced.iter().map(|(_, until)| *until).min()
    }

    /// Gives everything back: the volume is gone.
    pub fn unmounted(&mut self) {
        let replaced = self.replaced.drain(..).map(|(group, _)| group);
        for group in self.shown.drain(..).chain(replaced) {
            group.give_back(Cause::Unmounted);
        }
    }

    /// Has everything that ends prolonged: how long all of it is good for from now on. `None` where something has to take
    /// its place: it cannot be prolonged, or not by enough, or was not borrowed here.
    pub async fn prolong(&self, lender: &Lender, secrets: &[Shown]) -> Option<Duration> {
        let lent = |secret: &&Shown| {
            let of = |group: &&LeaseGroup| group.identity().backend == secret.backend;
            self.shown.iter().filter(of).flat_map(LeaseGroup::lent).any(|lent| lent.path == secret.path)
        };
        if self.shown.is_empty() || !secrets.iter().filter(|secret| secret.ends).all(|secret| lent(&secret)) {
            return None;
        }
        let mut life = Duration::MAX;
        for group in &self.shown {
            match lender.prolong(group).await {
                Prolonged::For(left) => life = life.min(left),
                Prolonged::Not => return None,
            }
        }
        Some(life)
    }
}
