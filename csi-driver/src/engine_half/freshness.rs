// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Whether what a volume shows is what its backends have.
//!
//! Asked by scrapes and by kubelet, who must not wait for a refresh that waits for a backend: so it has a lock of its own,
//! which nobody holds for longer than a glance.

use std::sync::{Mutex, MutexGuard, PoisonError};

use evanesce_engine::error::{Error, Kind};
use tokio::time::Instant;

/// What is known of one volume.
#[derive(Debug, Default)]
pub struct Freshness(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    fresh_at: Option<Instant>,
    stale: Option<Stale>,
}

/// Why a volume shows what it last could.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    /// What kind of failure its last refresh had.
    pub kind: Kind,
    /// In words for whoever has the pod: those of the error.
    pub message: String,
    /// When it was last known to be fresh; since a restart of this half, the restart at the earliest.
    pub since: Option<Instant>,
}

impl Freshness {
    /// The backends have what is shown; whether it was stale before.
    pub fn renew(&self, now: Instant) -> bool {
        let mut known = self.known();
        known.fresh_at = Some(now);
        known.stale.take().is_some()
    }

    /// A refresh failed; whether that is news, and not the same again.
    pub fn fail(&self, error: &Error) -> bool {
        let mut known = self.known();
        let now = Stale { kind: error.kind(), message: error.message().to_owned(), since: known.fresh_at };
        let news = known.stale.as_ref() != Some(&now);
        known.stale = Some(now);
        news
    }

    /// Why the volume is stale, if it is.
    pub fn stale(&self) -> Option<Stale> {
        self.known().stale.clone()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_failure_again_is_no_news_and_another_one_is() {
        let freshness = Freshness::default();
        let now = Instant::now();
        assert!(!freshness.renew(now));
        assert!(freshness.fail(&Error::missing("a")) && !freshness.fail(&Error::missing("a").with_detail("other")));
        assert!(freshness.fail(&Error::missing("b")) && freshness.fail(&Error::refused("b")));
        assert_eq!(freshness.stale().map(|stale| (stale.kind, stale.since)), Some((Kind::Refused, Some(now))));
        assert!(freshness.renew(now) && freshness.stale().is_none());
        assert!(freshness.fail(&Error::refused("b")), "after it was fresh it is news again");
    }
}
