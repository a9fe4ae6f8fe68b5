// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Whether what a volume shows is what its backends have.
//!
//! Asked by scrapes and by kubelet, who must not wait for a refresh that waits for a backend: so it has a lock of its own,
//! which nobody holds for longer than a glance.

use std::sync::{Mutex, MutexGuard, PoisonError};

use evanesce_engine::error::{Error, Kind};
use evanesce_engine::spec::volume::OnStale;
use tokio::time::Instant;

/// What is known of one volume.
#[derive(Debug, Default)]
pub struct Freshness(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    fresh_at: Option<Instant>,
    stale: Option<Stale>,
    too_old: Option<OnStale>,
}

/// Why a volume shows what it last could.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    /// What kind of failure its last refresh had.
    pub kind: Kind,
    /// In words for whoever has the pod: those of the error.
    pub message: String,
    /// When it was last known to be fresh; where nobody remembers, when this half took the volume over.
    pub since: Option<Instant>,
    /// Attempts that failed since.
    pub failures: u32,
}

/// What one more failure makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Whether it is another failure than the last one.
    pub news: bool,
    /// Attempts that failed in a row.
    pub failures: u32,
}

impl Freshness {
    /// The backends have what is shown; whether it was stale before.
    pub fn renew(&self, now: Instant) -> bool {
        let mut known = self.known();
        known.fresh_at = Some(now);
        known.stale.take().is_some()
    }

    /// An attempt failed.
    pub fn fail(&self, error: &Error) -> Failed {
        let mut known = self.known();
        let before = known.stale.take();
        let news = before.as_ref().is_none_or(|it| (it.kind, it.message.as_str()) != (error.kind(), error.message()));
        let failures = before.map_or(0, |it| it.failures).saturating_add(1);
        let message = error.message().to_owned();
        known.stale = Some(Stale { kind: error.kind(), message, since: known.fresh_at, failures });
        Failed { news, failures }
    }

    /// When the volume was last known to be fresh.
    pub fn fresh_at(&self) -> Option<Instant> {
        self.known().fresh_at
    }

    /// Why the volume is stale, if it is.
    pub fn stale(&self) -> Option<Stale> {
        self.known().stale.clone()
    }

    /// What became of files that are older than their class allows; nothing where they are not.
    pub fn too_old(&self) -> Option<OnStale> {
        self.known().too_old
    }

    /// Says what became of files that are too old.
    pub fn set_too_old(&self, too_old: Option<OnStale>) {
        self.known().too_old = too_old;
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
        let news = |error: Error| freshness.fail(&error).news;
        assert!(!freshness.renew(now));
        assert!(news(Error::missing("a")) && !news(Error::missing("a").with_detail("other")));
        assert!(news(Error::missing("b")) && news(Error::refused("b")));
        let stale = freshness.stale();
        assert_eq!(stale.map(|it| (it.kind, it.since, it.failures)), Some((Kind::Refused, Some(now), 4)));
        assert!(freshness.renew(now) && freshness.stale().is_none());
        let again = freshness.fail(&Error::refused("b"));
        assert_eq!(again, Failed { news: true, failures: 1 }, "after it was fresh it is news again");
    }
}
