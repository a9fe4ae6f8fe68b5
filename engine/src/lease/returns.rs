// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Gives back what was dropped: each group on its own, again and again until its backend has heard it or there is nothing
//! left to give back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::group::Held;
use super::lender::{Lender, is_final};
use crate::audit::{Event, Outcome};
use crate::backend::BackendError;
use crate::schedule::{random, refresh_after};
use crate::spec::volume::Refresh;

/// How many groups are given back side by side.
const PARALLEL: usize = 16;
/// A backend that cannot be reached is asked again after this long, then twice as long, up to the longest.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// The groups on their way back, and what gives them back.
pub struct Returns {
    lender: Arc<Lender>,
    returned: UnboundedReceiver<Box<Held>>,
}

impl Returns {
    pub(super) fn new(lender: Arc<Lender>, returned: UnboundedReceiver<Box<Held>>) -> Self {
        Self { lender, returned }
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
                    under_way.push(give_back(&self.lender, &wide, held));
                }
            }
        }
    }
}

async fn give_back(lender: &Lender, wide: &Semaphore, held: Box<Held>) {
    let mut wait = FIRST_RETRY;
    let (cause, ends) = held.end();
    lender.ledger.returning(&held.id, cause, lender.clock.monotonic());
    let outcome = loop {
        let asked = {
            // The semaphore is never closed.
            let _permit = wide.acquire().await;
            revoke(lender, &held).await
        };
        match asked {
            Ok(()) => break Outcome::Success,
            Err(error) if lender.is_over(ends) => {
                debug!(group = %held.id, %error, "a lease group has ended by itself");
                break Outcome::Failure(error.kind.into());
            }
            Err(error) if is_final(error.kind) => {
                warn!(
                    group = %held.id, backend = %held.identity.backend, volume_id = held.subject.volume, ?ends, %error,
                    "a login is not ended: it is over, or was being ended when the driver died, or its policies lack update on \
                     auth/token/revoke-self, which the policy `default` has; what it lent ends at its own time at the latest"
                );
                break Outcome::Failure(error.kind.into());
            }
            Err(error) => {
                debug!(group = %held.id, backend = %held.identity.backend, %error, ?wait, "a lease group is not given back yet");
                let again =
                    lender.clock.monotonic() + refresh_after(Refresh { every: wait, jitter_percent: 50 }, random());
                lender.ledger.failed(&held.id, error.into_error(&held.identity.backend, "the end of a login"), again);
                tokio::time::sleep_until(again).await;
                wait = (2 * wait).min(LONGEST_RETRY);
            }
        }
    };
    crate::crash_point!("lease:revoked");
    if let Err(error) = lender.journal.remove(&held.id).await {
        // The next process gives it back once more, and hears that it is gone.
        warn!(group = %held.id, %error, "the journal still names a lease group that is given back");
    }
    lender.ledger.close(&held.id, cause, &outcome);
    lender.auditor.record(Event::Revoked {
        subject: held.subject.clone(),
        identity: held.identity.clone(),
        group: held.id.to_string(),
        leases: held.lent.len(),
        cause,
        outcome,
    });
}

async fn revoke(lender: &Lender, held: &Held) -> Result<(), BackendError> {
    let handle = lender.handle(held)?;
    let revoke = async { lender.resume(&handle, held).await?.revoke().await };
    lender.fetcher.through(&handle, false, revoke).await
}
