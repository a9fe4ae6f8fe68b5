// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Which address of a backend is asked, and when the next one is.
//!
//! Only the request that opens a session goes from one address to the next: it can be repeated without harm. The session then
//! stays where it began, so a read that made credentials before its answer was lost is never sent a second time. What
//! fails is not the first any more, for everybody, from the moment it fails: so what answered last is asked first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::transport::Server;
use crate::backend::{BackendError, BackendErrorKind};
use crate::names::BackendName;
use crate::spec::backend::VaultSpec;

/// How often an address was passed over because it did not answer, by its place in the class's list.
#[derive(Debug, Default)]
pub struct PassedOver([AtomicU64; VaultSpec::MOST_ADDRESSES]);

impl PassedOver {
    /// The counts, in the order of the list.
    pub fn counts(&self) -> [u64; VaultSpec::MOST_ADDRESSES] {
        std::array::from_fn(|place| self.0[place].load(Ordering::Relaxed))
    }
}

/// The addresses of one backend.
pub(super) struct Addresses {
    backend: BackendName,
    servers: Vec<Server>,
    /// The place of the one that is asked first.
    first: AtomicUsize,
    passed_over: Arc<PassedOver>,
}

impl Addresses {
    /// `servers` is not empty.
    pub(super) fn new(backend: BackendName, servers: Vec<Server>, passed_over: Arc<PassedOver>) -> Self {
        Self { backend, servers, first: AtomicUsize::new(0), passed_over }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.servers.len()
    }

    /// The one that is asked first.
    pub(super) fn first(&self) -> &Server {
        &self.servers[self.first.load(Ordering::Relaxed)]
    }

    fn after(&self, place: usize) -> usize {
        (place + 1) % self.servers.len()
    }

    /// Whoever comes next begins with another one.
    fn step_off(&self, place: usize) {
        // Unless somebody has found a better one meanwhile.
        let _ = self.first.compare_exchange(place, self.after(place), Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// One way through the addresses. An attempt that is given up half-way, because the delivery's time is over, counts as
/// one that failed: or the next delivery would spend its time there too.
pub(super) struct Walk {
    addresses: Arc<Addresses>,
    place: usize,
    left: usize,
    failed: Option<BackendError>,
    settled: bool,
}

/// Where a session is.
pub(super) struct At {
    addresses: Arc<Addresses>,
    place: usize,
}

impl Walk {
    pub(super) fn begin(addresses: &Arc<Addresses>) -> Self {
        let place = addresses.first.load(Ordering::Relaxed);
        Self { addresses: Arc::clone(addresses), place, left: addresses.len() - 1, failed: None, settled: false }
    }

    /// The server to ask now.
    pub(super) fn server(&self) -> &Server {
        &self.addresses.servers[self.place]
    }

    /// Goes on to the next address after a failure.
    ///
    /// # Errors
    /// The failure itself where it is an answer, which another address would give too; everything that failed where
    /// there is no next one.
    pub(super) fn go_on(&mut self, error: BackendError) -> Result<(), BackendError> {
        if !is_elsewhere_better(error.kind) {
            self.settled = true;
            return Err(error);
        }
        self.addresses.step_off(self.place);
        let failed = match self.failed.take() {
            Some(before) => together(before, error),
            None => error,
        };
        if self.left == 0 {
            self.settled = true;
            return Err(failed);
        }
        self.addresses.passed_over.0[self.place].fetch_add(1, Ordering::Relaxed);
        self.failed = Some(failed);
        self.left -= 1;
        self.place = self.addresses.after(self.place);
        Ok(())
    }

    /// Stays at the address that answered.
    pub(super) fn stay(mut self) -> At {
        self.settled = true;
        if let Some(failed) = &self.failed {
            let (backend, now) = (&self.addresses.backend, self.server().name());
            tracing::warn!(%backend, now, %failed, "an address of the backend does not answer: another one is asked first now");
        }
        At { addresses: Arc::clone(&self.addresses), place: self.place }
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        if !self.settled {
            self.addresses.step_off(self.place);
        }
    }
}

impl At {
    /// Sees how a request of the session ended.
    pub(super) fn note<T>(&self, answer: &Result<T, BackendError>) {
        if answer.as_ref().is_err_and(|error| is_elsewhere_better(error.kind)) {
            self.addresses.step_off(self.place);
        }
    }
}

/// Whether the failure is the address's rather than an answer to the question.
fn is_elsewhere_better(kind: BackendErrorKind) -> bool {
    match kind {
        BackendErrorKind::TimedOut | BackendErrorKind::Unavailable => true,
        BackendErrorKind::Credential
        | BackendErrorKind::Denied
        | BackendErrorKind::Malformed
        | BackendErrorKind::NotFound
        // Whoever asks for fewer requests means all of them, wherever they are sent.
        | BackendErrorKind::Throttled
        | BackendErrorKind::Unauthenticated => false,
    }
}

/// One error of two addresses: both are named. A wish for when to come back counts if both have one.
fn together(before: BackendError, error: BackendError) -> BackendError {
    let kind = if before.kind == error.kind { error.kind } else { BackendErrorKind::Unavailable };
    let retry_after = before.retry_after.zip(error.retry_after).map(|(one, other)| one.min(other));
    BackendError { kind, message: format!("{}; {}", before.message, error.message), retry_after }
}
