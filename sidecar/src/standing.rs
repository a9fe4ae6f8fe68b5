// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! How a volume stands, for metrics: what is seen of it, and since when the application is behind.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use tokio::time::Instant;

use crate::sight::Sight;

/// One volume.
#[derive(Debug, Default)]
pub struct Standing(Mutex<State>);

/// What is known of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    /// Whether it is there.
    pub mounted: bool,
    /// Whether its files are marked as too old.
    pub stale: bool,
    /// Whether the kernel tells of its changes.
    pub rings: bool,
    /// Since when it shows what it shows.
    pub since: Option<SystemTime>,
    /// Since when the application should have been told something that it was not.
    pub behind: Option<Instant>,
}

impl Standing {
    /// What it is now.
    pub fn state(&self) -> State {
        *self.lock()
    }

    /// A look found `sight`; `rings`: the kernel will tell of the next change.
    pub fn saw(&self, sight: &Sight, rings: bool) {
        let mut state = self.lock();
        let shown = if let Sight::Shown(shown) = sight { Some(shown) } else { None };
        state.mounted = shown.is_some();
        state.stale = shown.is_some_and(|shown| shown.stale);
        state.since = shown.and_then(|shown| shown.since);
        state.rings = rings;
    }

    /// There is something to tell.
    pub fn behind(&self) {
        self.lock().behind.get_or_insert_with(Instant::now);
    }

    /// It was told.
    pub fn told(&self) {
        self.lock().behind = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All volumes that are watched; who is dropped is gone from here.
#[derive(Debug, Default)]
pub struct Standings(Mutex<Vec<Weak<Standing>>>);

impl Standings {
    /// One more.
    pub fn add(&self) -> Arc<Standing> {
        let standing = Arc::new(Standing::default());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&standing));
        standing
    }

    /// How all of them stand.
    pub fn states(&self) -> Vec<State> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).map(|standing| standing.state()).collect()
    }
}
