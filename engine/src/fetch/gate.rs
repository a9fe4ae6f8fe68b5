// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! How much of one node a backend has to bear at a time; the rest waits, and can be seen waiting.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::audit::Source;

/// Hears how busy backends are. The `kind` is [`Backend::kind`](crate::backend::Backend::kind).
pub trait Meter: Send + Sync {
    /// So many more requests (fewer, below zero) wait for their turn.
    fn waiting(&self, kind: &'static str, more: i32);

    /// So many more requests (fewer, below zero) are under way.
    fn under_way(&self, kind: &'static str, more: i32);

    /// A delivery has its answer to one question.
    fn answered(&self, kind: &'static str, source: Source);
}

/// Counts nothing.
impl Meter for () {
    fn waiting(&self, _: &'static str, _: i32) {}

    fn under_way(&self, _: &'static str, _: i32) {}

    fn answered(&self, _: &'static str, _: Source) {}
}

/// Lets so many requests to one backend through at a time, in the order they came.
pub(super) struct Gate(Semaphore);

impl Gate {
    /// A gate for `wide` requests side by side.
    pub(super) fn new(wide: usize) -> Self {
        Self(Semaphore::new(wide.clamp(1, Semaphore::MAX_PERMITS)))
    }

    /// Waits for its turn, then makes the request.
    pub(super) async fn pass<T>(
        &self,
        meter: &Arc<dyn Meter>,
        kind: &'static str,
        request: impl Future<Output = T>,
    ) -> T {
        let waiting = Counted::new(|more| meter.waiting(kind, more));
        // The semaphore is never closed; a permit that is none lets through.
        let _permit = self.0.acquire().await;
        drop(waiting);
        let _under_way = Counted::new(|more| meter.under_way(kind, more));
        request.await
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
