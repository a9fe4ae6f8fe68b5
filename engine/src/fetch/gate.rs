// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! How much of one node a backend has to bear; the rest waits or is sent home, and can be seen doing so.
//!
//! Every request goes through here, in this order: the [breaker](super::breaker) says whether the backend is asked at all,
//! the [bucket](super::bucket) how soon, the semaphore how many at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};

use super::breaker::{Admission, Breaker};
use super::bucket::Bucket;
use crate::audit::Source;
use crate::backend::BackendError;
use crate::clock::Clock;
use crate::lease::ledger::Became;
use crate::schedule::random;
use crate::spec::backend::Limits;

/// Hears how busy backends are. The `kind` is [`Backend::kind`](crate::backend::Backend::kind).
pub trait Meter: Send + Sync {
    /// So many more requests (fewer, below zero) wait for this.
    fn waiting(&self, kind: &'static str, wait: Wait, more: i32);

    /// So many more requests (fewer, below zero) are under way.
    fn under_way(&self, kind: &'static str, more: i32);

    /// A delivery has its answer to one question.
    fn answered(&self, kind: &'static str, source: Source);

    /// So many more backends (fewer, below zero) are left alone because they fail.
    fn left_alone(&self, kind: &'static str, more: i32);

    /// A request was not sent, because its backend is left alone.
    fn held_back(&self, kind: &'static str);

    /// A backend that is left alone was asked whether it is back; whether it is.
    fn probed(&self, kind: &'static str, is_back: bool);

    /// A lease group of such a backend became this.
    fn leased(&self, kind: &str, became: Became);
}

/// What a request waits for before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// That a probe of a backend that is left alone ends.
    Probe,
    /// `limits.requestsPerSecond`.
    Rate,
    /// A free place below `limits.parallelPerNode`.
    Turn,
}

/// Counts nothing.
impl Meter for () {
    fn waiting(&self, _: &'static str, _: Wait, _: i32) {}

    fn under_way(&self, _: &'static str, _: i32) {}

    fn answered(&self, _: &'static str, _: Source) {}

    fn left_alone(&self, _: &'static str, _: i32) {}

    fn held_back(&self, _: &'static str) {}

    fn probed(&self, _: &'static str, _: bool) {}

    fn leased(&self, _: &str, _: Became) {}
}

/// What stands before one backend.
pub(super) struct Gate {
    wide: Semaphore,
    state: Mutex<State>,
    /// A probe has ended.
    probed: Notify,
}

struct State {
    breaker: Breaker,
    bucket: Bucket,
    /// While the breaker is open.
    left_alone: Option<LeftAlone>,
}

/// Counts a backend that is left alone, for as long as its gate says so and is there: an edit of its class makes another gate.
struct LeftAlone {
    meter: Arc<dyn Meter>,
    kind: &'static str,
}

impl LeftAlone {
    fn new(passer: &Passer<'_>) -> Self {
        passer.meter.left_alone(passer.kind, 1);
        Self { meter: Arc::clone(passer.meter), kind: passer.kind }
    }
}

impl Drop for LeftAlone {
    fn drop(&mut self) {
        self.meter.left_alone(self.kind, -1);
    }
}

/// Whoever makes a request: whose time, who counts, and whether a pod waits for it.
pub(super) struct Passer<'a> {
    pub(super) clock: &'a dyn Clock,
    pub(super) meter: &'a Arc<dyn Meter>,
    /// The backend's kind.
    pub(super) kind: &'static str,
    /// A pod starts: it waits for the next probe, where a refresh comes back later.
    pub(super) urgent: bool,
}

impl Gate {
    /// A gate for so many requests side by side, and so many a second.
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            wide: Semaphore::new(limits.parallel_per_node.clamp(1, Semaphore::MAX_PERMITS)),
            state: Mutex::new(State {
                breaker: Breaker::new(),
                bucket: Bucket::new(limits.requests_per_second),
                left_alone: None,
            }),
            probed: Notify::new(),
        }
    }

    /// Waits for its turn, then makes the request; `failure` tells from its answer whether the backend is well.
    ///
    /// # Errors
    /// What the last failure was, and nothing was sent, where the backend is left alone; it says when to come back.
    pub(super) async fn pass<T>(
        &self,
        passer: &Passer<'_>,
        request: impl Future<Output = T>,
        failure: impl FnOnce(&T) -> Option<&BackendError>,
    ) -> Result<T, BackendError> {
        let Passer { clock, meter, kind, .. } = passer;
        let waits_for = |wait| Counted::new(move |more| meter.waiting(kind, wait, more));
        let waiting = waits_for(Wait::Probe);
        let _probe = self.admitted(passer).await?;
        drop(waiting);
        let wait = self.state().bucket.take(clock.monotonic());
        if !wait.is_zero() {
            let _waiting = waits_for(Wait::Rate);
            tokio::time::sleep(wait).await;
        }
        let waiting = waits_for(Wait::Turn);
        // The semaphore is never closed; a permit that is none lets through.
        let _permit = self.wide.acquire().await;
        drop(waiting);
        let _under_way = Counted::new(|more| meter.under_way(kind, more));
        let answer = request.await;
        self.ended(passer, failure(&answer));
        Ok(answer)
    }

    /// Comes back when the request may go; with a guard where it is a probe.
    async fn admitted<'a>(&'a self, passer: &'a Passer<'_>) -> Result<Option<Probe<'a>>, BackendError> {
        loop {
            // Made before the look, so that a probe that ends in between is heard.
            let probed = self.probed.notified();
            let now = passer.clock.monotonic();
            let (admission, last) = {
                let breaker = &mut self.state().breaker;
                (breaker.admit(now, passer.urgent), breaker.last())
            };
            let until = match admission {
                Admission::Goes => return Ok(None),
                Admission::Probes => return Ok(Some(Probe { gate: self, clock: passer.clock })),
                Admission::Waits(until) => until,
            };
            if !passer.urgent {
                passer.meter.held_back(passer.kind);
                let text = "not asked: it did not answer several times in a row, and is left alone for a moment";
                let again = Some(until.saturating_duration_since(now));
                return Err(BackendError { retry_after: again, ..BackendError::new(last, text) });
            }
            tokio::select! {
                () = probed => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    fn ended(&self, passer: &Passer<'_>, failure: Option<&BackendError>) {
        let mut state = self.state();
        let was_open = state.breaker.is_open();
        let probed = state.breaker.is_probing();
        state.breaker.ended(passer.clock.monotonic(), failure, random());
        if state.breaker.is_open() {
            state.left_alone.get_or_insert_with(|| LeftAlone::new(passer));
        } else {
            state.left_alone = None;
        }
        if probed {
            passer.meter.probed(passer.kind, !state.breaker.is_open());
        }
        drop(state);
        if was_open {
            self.probed.notify_waiters();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A probe that is under way; dropped before its answer was heard, it lets the next one go.
struct Probe<'a> {
    gate: &'a Gate,
    clock: &'a dyn Clock,
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.gate.state().breaker.abandoned(self.clock.monotonic());
        self.gate.probed.notify_waiters();
    }
}

/// Counted while it lives, however it ends.
struct Counted<F: Fn(i32)>(F);

impl<F: Fn(i32)> Counted<F> {
    fn new(count: F) -> Self {
        count(1);
        Self(count)
    }
}

impl<F: Fn(i32)> Drop for Counted<F> {
    fn drop(&mut self) {
        (self.0)(-1);
    }
}
