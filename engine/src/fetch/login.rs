// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A login that serves whoever asks as its identity while anybody does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::cut_short;
use super::flight::Flight;
use crate::backend::{BackendError, Session};

/// A login that is older takes no newcomers, so that a right that was taken away ends also where somebody always asks.
const OLDEST: Duration = Duration::from_secs(30);

/// A login, under way or made.
pub(super) struct Login {
    flight: Flight<Result<Arc<dyn Session>, BackendError>>,
    /// Something failed with it: newcomers make their own.
    retired: AtomicBool,
}

impl Login {
    /// Begins to log in.
    pub(super) fn begin(
        now: Instant,
        open: impl Future<Output = Result<Arc<dyn Session>, BackendError>> + Send + 'static,
    ) -> Self {
        Self { flight: Flight::begin(now, open), retired: AtomicBool::new(false) }
    }

    /// The session, once it is open.
    pub(super) async fn session(&self) -> Result<Arc<dyn Session>, BackendError> {
        self.flight.wait().await.unwrap_or_else(|| Err(cut_short()))
    }

    /// Takes no newcomers any more: they log in anew, so that a token that the server no longer honours is not handed
    /// from one to the next.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Whether somebody who comes now may ask with it.
    pub(super) fn takes_newcomers(&self, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.flight.begun());
        let young = |session: &Arc<dyn Session>| {
            let half = session.login().ttl.map_or(OLDEST, |ttl| ttl / 2);
            age < half.min(OLDEST)
        };
        !self.retired.load(Ordering::Relaxed)
            && match self.flight.landed() {
                None => !self.flight.is_over(),
                Some(opened) => opened.as_ref().is_ok_and(young),
            }
    }
}
