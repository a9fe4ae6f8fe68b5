// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! How many requests a second, with a minute's worth of burst: a token bucket, pure, time as an argument.
//!
//! It is kept as the one instant at which it would be full again (the "virtual scheduling" of ITU-T I.371, GCRA): nothing
//! has to fill it.

use std::time::Duration;

use tokio::time::Instant;

/// The burst: a node that starts asks for everything at once.
const BURST: Duration = Duration::from_secs(60);

/// A bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    /// What one request costs.
    each: Duration,
    /// When it is full.
    full: Option<Instant>,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(per_second: u32) -> Self {
        Self { each: Duration::from_secs(1) / per_second.max(1), full: None }
    }

    /// Takes one request's share and says how long it has to wait for it.
    pub(super) fn take(&mut self, now: Instant) -> Duration {
        let full = self.full.unwrap_or(now).max(now) + self.each;
        self.full = Some(full);
        full.saturating_duration_since(now).saturating_sub(BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_a_minutes_requests_goes_at_once_and_what_is_more_at_the_rate() {
        let (mut bucket, now) = (Bucket::new(1), Instant::now());
        assert!((0..60).all(|_| bucket.take(now).is_zero()));
        for wait in 1..=5 {
            assert_eq!(bucket.take(now), Duration::from_secs(wait));
        }
        let later = now + Duration::from_secs(5 + 30);
        assert!((0..30).all(|_| bucket.take(later).is_zero()), "half a minute fills half of it");
        assert_eq!(bucket.take(later), Duration::from_secs(1));
    }

    #[test]
    fn no_minute_has_more_than_twice_the_rate() {
        let (mut bucket, start) = (Bucket::new(10), Instant::now());
        let mut went = Vec::new();
        for tick in 0..600 {
            let now = start + Duration::from_millis(100) * tick;
            (0..10).for_each(|_| went.push(now + bucket.take(now)));
        }
        for from in &went {
            assert!(went.iter().filter(|at| *at >= from && **at < *from + BURST).count() <= 1200);
        }
    }
}
