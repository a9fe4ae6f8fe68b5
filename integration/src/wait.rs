// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Waiting for a condition, with a deadline and a sentence that says what was waited for.
//!
//! This is the only place of the harness that lets time pass; no test sleeps.

use std::time::{Duration, Instant};

/// Patience for something that takes milliseconds on an idle machine, and may not on a busy one.
pub const SOON: Duration = Duration::from_secs(20);

/// Pause between two looks: too short to add noticeable time, long enough to leave the CPU to
/// the one who is waited for.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Waits until `condition` holds, at most [`SOON`].
///
/// # Panics
/// When it does not, with `what` in the message.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    until_some(what, || condition().then_some(())).await;
}

/// Waits until `look` finds something, at most [`SOON`], and returns what it found.
///
/// # Panics
/// When it finds nothing, with `what` in the message.
pub async fn until_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    until_ready(what, async || look()).await
}

/// As [`until_some`], for a look that is itself asynchronous.
///
/// # Panics
/// When it finds nothing, with `what` in the message.
pub async fn until_ready<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until_ready_within(SOON, what, look).await
}

/// As [`until_ready`], for what may take longer than [`SOON`] on a busy machine.
///
/// # Panics
/// When it finds nothing, with `what` in the message.
pub async fn until_ready_within<T>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let patience = Patience { limit, ..Patience::new(what) };
    loop {
        if let Some(found) = look().await {
            return found;
        }
        patience.a_moment().await;
    }
}

/// A wait whose loop is the caller's own; it ends [soon](SOON) after it began.
pub struct Patience<'a> {
    what: &'a str,
    begun: Instant,
    limit: Duration,
}

impl<'a> Patience<'a> {
    /// Begins to wait until `what`.
    #[must_use]
    pub fn new(what: &'a str) -> Self {
        Self { what, begun: Instant::now(), limit: SOON }
    }

    /// Lets a moment pass.
    ///
    /// # Panics
    /// When it has taken too long, with `what` in the message.
    pub async fn a_moment(&self) {
        assert!(self.begun.elapsed() < self.limit, "waited {:?} in vain until {}", self.limit, self.what);
        a_moment().await;
    }
}

/// The pause of somebody who looks again and again for as long as something else goes on.
pub async fn a_moment() {
    tokio::time::sleep(BETWEEN_LOOKS).await;
}

/// Watches for `span` that `condition` keeps holding: for properties of the form "this never
/// happens", which no condition can announce.
///
/// # Panics
/// At the first look that finds it broken.
pub async fn holds_for(span: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        assert!(condition(), "for {span:?} it should hold that {what}");
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}
