// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! When a volume is due: [`life`] decides, and a table of deadlines keeps it.
//!
//! The engine decides when to ask a backend again; kubelet's republish only brings a fresh token.

pub mod life;

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::Instant;

pub use life::{Due, Life, Wait, edited_after, refresh_after};

/// A number in 0..=1, for what is spread by chance.
pub fn random() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness nothing is spread, which is no reason to fail.
    let _ = SystemRandom::new().fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

/// Deadlines by key, each key at most once; of the clock that only goes forward, or of another one.
#[derive(Debug)]
pub struct Schedule<K, T = Instant> {
    by_time: BTreeSet<(T, K)>,
    by_key: HashMap<K, T>,
}

impl<K, T> Default for Schedule<K, T> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), by_key: HashMap::new() }
    }
}

impl<K: Clone + Eq + Hash + Ord, T: Copy + Ord> Schedule<K, T> {
    /// Sets the deadline of `key`, in place of the one it had.
    pub fn set(&mut self, key: K, at: T) {
        self.remove(&key);
        self.by_key.insert(key.clone(), at);
        self.by_time.insert((at, key));
    }

    /// Brings the deadline of `key` forward to `at`; one that is sooner stays, a key without one gets it.
    pub fn sooner(&mut self, key: K, at: T) {
        if self.by_key.get(&key).is_none_or(|present| *present > at) {
            self.set(key, at);
        }
    }

    /// Forgets `key`.
    pub fn remove(&mut self, key: &K) {
        if let Some(at) = self.by_key.remove(key) {
            self.by_time.remove(&(at, key.clone()));
        }
    }

    /// Takes out every key that is due at `now`, the longest overdue first.
    pub fn due(&mut self, now: T) -> Vec<K> {
        let mut due = Vec::new();
        while let Some((at, _)) = self.by_time.first() {
            if *at > now {
                break;
            }
            if let Some((_, key)) = self.by_time.pop_first() {
                self.by_key.remove(&key);
                due.push(key);
            }
        }
        due
    }

    /// The deadline of `key`.
    pub fn at(&self, key: &K) -> Option<T> {
        self.by_key.get(key).copied()
    }

    /// The next deadline.
    pub fn next(&self) -> Option<T> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// How many keys have a deadline.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether no key has one.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> Instant {
        use std::sync::LazyLock;
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        *START + Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_due_comes_out_once_and_in_order() {
        let mut schedule = Schedule::default();
        schedule.set("b", at(2));
        schedule.set("a", at(1));
        schedule.set("c", at(3));
        assert_eq!(schedule.next(), Some(at(1)));
        assert_eq!(schedule.due(at(2)), ["a", "b"]);
        assert_eq!(schedule.due(at(2)), [""; 0]);
        assert_eq!((schedule.len(), schedule.next()), (1, Some(at(3))));
    }

    #[test]
    fn a_key_has_one_deadline() {
        let mut schedule = Schedule::default();
        schedule.set("a", at(1));
        schedule.set("a", at(5));
        assert!(schedule.due(at(4)).is_empty());
        schedule.sooner("a", at(3));
        schedule.sooner("a", at(9));
        assert_eq!(schedule.due(at(3)), ["a"]);
        assert!(schedule.is_empty() && schedule.next().is_none());
        schedule.set("a", at(1));
        schedule.remove(&"a");
        assert!(schedule.is_empty() && schedule.next().is_none());
    }
}
