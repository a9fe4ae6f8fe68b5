// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! How much memory volumes may take: a ceiling for the node and one for each namespace.
//!
//! A tmpfs is charged to whoever writes it, which is this driver, so a tenant could spend the driver's memory. Sizes are
//! reserved before a volume is made; who asks for too much is refused, and nobody who has a volume loses anything.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use evanesce_engine::error::Error;
use evanesce_engine::names::Namespace;

/// The node's ceilings, in bytes.
#[derive(Debug)]
pub struct Budget {
    node: u64,
    namespace: u64,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    node: u64,
    namespaces: HashMap<Namespace, u64>,
}

/// A volume's share; dropping it gives it back.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    namespace: Namespace,
    bytes: u64,
}

impl Budget {
    /// `node` bytes for all volumes, of which one namespace may have `namespace`.
    pub fn new(node: u64, namespace: u64) -> Arc<Self> {
        Arc::new(Self { node, namespace, taken: Mutex::default() })
    }

    /// Reserves `bytes` for a volume of `namespace`.
    ///
    /// # Errors
    /// [`Kind::Exhausted`](evanesce_engine::error::Kind::Exhausted), naming the ceiling and the flag.
    pub fn reserve(self: &Arc<Self>, namespace: &Namespace, bytes: u64) -> Result<Reservation, Error> {
        let mut reservation = Reservation { budget: Arc::clone(self), namespace: namespace.clone(), bytes: 0 };
        reservation.resize(bytes)?;
        Ok(reservation)
    }

    /// Takes a share that exists already: a volume that is adopted has its memory whatever the ceilings say now.
    pub fn adopt(self: &Arc<Self>, namespace: &Namespace, bytes: u64) -> Reservation {
        self.taken().add(namespace, bytes);
        Reservation { budget: Arc::clone(self), namespace: namespace.clone(), bytes }
    }

    /// Bytes that are reserved now.
    pub fn reserved(&self) -> u64 {
        self.taken().node
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn add(&mut self, namespace: &Namespace, bytes: u64) {
        self.node += bytes;
        *self.namespaces.entry(namespace.clone()).or_default() += bytes;
    }

    fn give_back(&mut self, namespace: &Namespace, bytes: u64) {
        self.node -= bytes;
        if let Some(share) = self.namespaces.get_mut(namespace) {
            *share -= bytes;
            if *share == 0 {
                self.namespaces.remove(namespace);
            }
        }
    }
}

impl Reservation {
    /// The share, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Changes the share; what was reserved stays where more is refused.
    ///
    /// # Errors
    /// [`Kind::Exhausted`](evanesce_engine::error::Kind::Exhausted), naming the ceiling and the flag.
    pub fn resize(&mut self, bytes: u64) -> Result<(), Error> {
        let Budget { node, namespace, .. } = *self.budget;
        let mut taken = self.budget.taken();
        let others = taken.node - self.bytes;
        let neighbours = taken.namespaces.get(&self.namespace).copied().unwrap_or(0) - self.bytes;
        if bytes > self.bytes && neighbours.saturating_add(bytes) > namespace {
            return Err(Error::exhausted(format!(
                "namespace {} would have {} bytes of secret volumes on this node and may have {namespace}: \
                 use fewer or smaller volumes, or ask for a larger --namespace-tmpfs-limit",
                self.namespace,
                neighbours.saturating_add(bytes)
            )));
        }
        if bytes > self.bytes && others.saturating_add(bytes) > node {
            return Err(Error::exhausted(
                "this node has no room for another secret volume of this size: ask for a larger --node-tmpfs-limit",
            )
            .with_detail(format!("{} bytes would be reserved of {node}", others.saturating_add(bytes))));
        }
        taken.give_back(&self.namespace, self.bytes);
        taken.add(&self.namespace, bytes);
        drop(taken);
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.taken().give_back(&self.namespace, self.bytes);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use evanesce_engine::error::Kind;

    fn namespace(name: &str) -> Namespace {
        Namespace::parse(name).unwrap()
    }

    #[test]
    fn a_tenant_at_its_ceiling_is_refused_and_its_neighbour_is_not() {
        let budget = Budget::new(100, 60);
        let (greedy, modest) = (namespace("greedy"), namespace("modest"));
        let first = budget.reserve(&greedy, 50).unwrap();
        assert_eq!(budget.reserve(&greedy, 20).unwrap_err().kind(), Kind::Exhausted);
        let _second = budget.reserve(&modest, 40).unwrap();
        assert_eq!(budget.reserve(&modest, 20).unwrap_err().kind(), Kind::Exhausted);
        drop(first);
        assert_eq!(budget.reserved(), 40);
        assert!(budget.reserve(&modest, 20).is_ok());
    }

    #[test]
    fn a_volume_that_may_not_grow_keeps_what_it_has() {
        let budget = Budget::new(100, 100);
        let mut volume = budget.reserve(&namespace("a"), 60).unwrap();
        assert!(volume.resize(101).is_err());
        assert_eq!((volume.bytes(), budget.reserved()), (60, 60));
        volume.resize(100).unwrap();
        volume.resize(10).unwrap();
        assert_eq!(budget.reserved(), 10);
    }

    #[test]
    fn an_adopted_volume_counts_even_above_the_ceiling() {
        let budget = Budget::new(100, 100);
        let mut adopted = budget.adopt(&namespace("a"), 150);
        assert!(budget.reserve(&namespace("b"), 1).is_err());
        adopted.resize(120).unwrap();
        drop(adopted);
        assert_eq!(budget.reserved(), 0);
    }
}
