// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What somebody still holds, by key. Nothing is kept alive by being in here.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

/// Entries that nobody holds any more are looked for when there are so many.
const FIRST_TIDYING: usize = 64;

/// See the module.
pub(super) struct Alive<K, T> {
    entries: HashMap<K, Weak<T>>,
    tidy_at: usize,
}

impl<K, T> Default for Alive<K, T> {
    fn default() -> Self {
        Self { entries: HashMap::new(), tidy_at: FIRST_TIDYING }
    }
}

impl<K: Eq + Hash, T> Alive<K, T> {
    /// What is there and still held.
    pub(super) fn get(&self, key: &K) -> Option<Arc<T>> {
        self.entries.get(key)?.upgrade()
    }

    /// Adds an entry.
    pub(super) fn insert(&mut self, key: K, value: &Arc<T>) {
        if self.entries.len() >= self.tidy_at {
            self.entries.retain(|_, value| value.strong_count() > 0);
            self.tidy_at = FIRST_TIDYING.max(2 * self.entries.len());
        }
        self.entries.insert(key, Arc::downgrade(value));
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }
}
