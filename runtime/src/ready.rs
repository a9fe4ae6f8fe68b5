// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Readiness: what a daemon still waits for, by name.
//!
//! Each part that must be up takes a guard before it starts and marks it when it is. A guard that is dropped unmarked
//! stays pending: a part that failed to start never looks ready. This says nothing about health, which is asked anew
//! each time ([`http`](crate::http)).

use tokio::sync::watch;

/// The names that are still pending; clones share them.
#[derive(Clone, Debug)]
pub struct Readiness(watch::Sender<Vec<&'static str>>);

/// One thing to wait for.
#[derive(Debug)]
#[must_use = "what is not marked ready stays pending"]
pub struct ReadyGuard {
    name: &'static str,
    readiness: Readiness,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// Nothing to wait for: ready.
    pub fn new() -> Self {
        Self(watch::Sender::new(Vec::new()))
    }

    /// Adds something to wait for, at any time: a part that was lost makes the daemon unready again.
    pub fn wait_for(&self, name: &'static str) -> ReadyGuard {
        self.0.send_modify(|pending| pending.push(name));
        ReadyGuard { name, readiness: self.clone() }
    }

    /// What is still pending, in the order in which it was added.
    pub fn pending(&self) -> Vec<&'static str> {
        self.0.borrow().clone()
    }

    /// Whether nothing is pending.
    pub fn is_ready(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Waits until nothing is pending.
    pub async fn ready(&self) {
        // The sender is `self`: the channel cannot close meanwhile.
        let _ = self.0.subscribe().wait_for(Vec::is_empty).await;
    }
}

impl ReadyGuard {
    /// Marks this part as ready.
    pub fn ready(self) {
        self.readiness.0.send_modify(|pending| {
            if let Some(at) = pending.iter().position(|name| *name == self.name) {
                pending.remove(at);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pending_is_named_until_it_is_marked() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let (sockets, engine) = (readiness.wait_for("sockets"), readiness.wait_for("engine"));
        assert_eq!(readiness.pending(), ["sockets", "engine"]);
        sockets.ready();
        assert_eq!(readiness.pending(), ["engine"]);
        engine.ready();
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_part_that_gave_up_stays_pending() {
        let readiness = Readiness::new();
        drop(readiness.wait_for("engine"));
        assert_eq!(readiness.pending(), ["engine"]);
    }

    #[test]
    fn two_parts_of_one_name_are_two() {
        let readiness = Readiness::new();
        let (one, _other) = (readiness.wait_for("backend"), readiness.wait_for("backend"));
        one.ready();
        assert_eq!(readiness.pending(), ["backend"]);
    }

    #[tokio::test]
    async fn who_waits_wakes_when_the_last_part_is_ready() {
        let readiness = Readiness::new();
        let guard = readiness.wait_for("engine");
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        guard.ready();
        waiting.await.expect("the wait ends");
    }
}
