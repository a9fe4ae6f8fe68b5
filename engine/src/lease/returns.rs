// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Gives back what was dropped: each group on its own, again and again until its backend has heard it or there is nothing
//! left to give back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::group::{Cause, GroupId, Held};
use super::lender::{Lender, is_final};
use crate::audit::{Event, Outcome, Subject};
use crate::backend::BackendError;
use crate::names::BackendName;
use crate::schedule::{random, refresh_after};
use crate::spec::volume::Refresh;

/// How many groups are given back side by side.
const PARALLEL: usize = 16;
/// A backend that cannot be reached is asked again after this long, then twice as long, up to the longest.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// A group on its way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returning {
    /// The volume it was borrowed for.
    pub subject: Subject,
    /// Who lent it.
    pub backend: BackendName,
    /// Why it is given back.
    pub cause: Cause,
    /// When it ends by itself, where it does.
    pub ends: Option<SystemTime>,
}

/// The groups on their way back, and what gives them back.
pub struct Returns {
    lender: Arc<Lender>,
    returned: UnboundedReceiver<Box<Held>>,
    waiting: Waiting,
}

/// Which groups are on their way back.
#[derive(Clone, Default)]
pub struct Waiting(Arc<Mutex<BTreeMap<GroupId, Returning>>>);

impl Waiting {
    /// All of them, by name.
    pub fn all(&self) -> BTreeMap<GroupId, Returning> {
        self.entries().clone()
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<GroupId, Returning>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Returns {
    pub(super) fn new(lender: Arc<Lender>, returned: UnboundedReceiver<Box<Held>>) -> Self {
        Self { lender, returned, waiting: Waiting::default() }
    }

    /// Which groups are on their way back.
    pub fn waiting(&self) -> Waiting {
        self.waiting.clone()
    }

    /// Gives back until `stop`. What is not given back by then is in the journal.
    pub async fn run(mut self, stop: CancellationToken) {
        let wide = Semaphore::new(PARALLEL);
        let mut under_way = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(()) = under_way.next() => {}
                held = self.returned.recv() => {
                    let Some(held) = held else { return };
                    let Held { subject, identity, cause, ends, .. } = held.as_ref();
                    let (subject, backend) = (subject.clone(), identity.backend.clone());
                    let returning = Returning { subject, backend, cause: *cause, ends: *ends };
                    self.waiting.entries().insert(held.id.clone(), returning);
                    under_way.push(give_back(&self.lender, &wide, &self.waiting, held));
                }
            }
        }
    }
}

async fn give_back(lender: &Lender, wide: &Semaphore, waiting: &Waiting, held: Box<Held>) {
    let mut wait = FIRST_RETRY;
    let outcome = loop {
        let asked = {
            // The semaphore is never closed.
            let _permit = wide.acquire().await;
            revoke(lender, &held).await
        };
        match asked {
            Ok(()) => break Outcome::Success,
            Err(error) if lender.is_over(held.ends) => {
                debug!(group = %held.id, %error, "a lease group has ended by itself");
                break Outcome::Failure(error.kind.into());
            }
            Err(error) if is_final(error.kind) => {
                warn!(
                    group = %held.id, backend = %held.identity.backend, volume_id = held.subject.volume, ends = ?held.ends, %error,
                    "a login is not ended: it is over, or was being ended when the driver died, or its policies lack update on \
                     auth/token/revoke-self, which the policy `default` has; what it lent ends at its own time at the latest"
                );
                break Outcome::Failure(error.kind.into());
            }
            Err(error) => {
                debug!(group = %held.id, backend = %held.identity.backend, %error, ?wait, "a lease group is not given back yet");
                tokio::time::sleep(refresh_after(Refresh { every: wait, jitter_percent: 50 }, random())).await;
                wait = (2 * wait).min(LONGEST_RETRY);
            }
        }
    };
    crate::crash_point!("lease:revoked");
    if let Err(error) = lender.journal.remove(&held.id).await {
        // The next process gives it back once more, and hears that it is gone.
        warn!(group = %held.id, %error, "the journal still names a lease group that is given back");
    }
    lender.auditor.record(Event::Revoked {
        subject: held.subject.clone(),
        identity: held.identity.clone(),
        group: held.id.to_string(),
        leases: held.lent.len(),
        cause: held.cause,
        outcome,
    });
    waiting.entries().remove(&held.id);
}

async fn revoke(lender: &Lender, held: &Held) -> Result<(), BackendError> {
    let (handle, session) = lender.resume(held).await?;
    lender.fetcher.through(&handle, false, session.revoke()).await
}
