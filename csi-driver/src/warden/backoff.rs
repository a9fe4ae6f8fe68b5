// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! How long to wait before the engine half is started again (decision 0011).

use std::time::Duration;

/// The first restart is at once. The wait doubles with every death after it, is never longer than the engine half had
/// served, and is forgotten after a time of health.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    next: Duration,
    deaths: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(10);
    const HEALTHY: Duration = Duration::from_secs(60);

    /// How long to wait now that it ended, having served for this long; `None` where it never came to serving.
    pub(super) fn after(&mut self, served: Option<Duration>) -> Duration {
        if served.is_some_and(|served| served >= Self::HEALTHY) {
            *self = Self::default();
        }
        let longest = served.map_or(Self::LONGEST, |served| served.max(Self::FIRST));
        let wait = self.next.min(longest);
        self.next = (wait * 2).clamp(Self::FIRST, Self::LONGEST);
        self.deaths += 1;
        wait
    }

    /// Deaths since it was healthy for the last time.
    pub(super) fn deaths(&self) -> u32 {
        self.deaths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn what_never_serves_is_waited_for_twice_as_long_each_time_up_to_ten_seconds() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..10).map(|_| backoff.after(None).as_millis()).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff.deaths(), 10);
    }

    #[test]
    fn a_minute_of_health_makes_the_next_restart_immediate_again() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.after(None);
        }
        assert_eq!((backoff.after(seconds(60)).as_millis(), backoff.deaths()), (0, 1));
        assert_eq!(backoff.after(None).as_millis(), 100);
    }

    #[test]
    fn what_served_is_not_waited_for_longer_than_it_served() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            backoff.after(None);
        }
        let waits = [5, 5, 1, 0].map(|served| backoff.after(seconds(served)).as_millis());
        assert_eq!(waits, [5000, 5000, 1000, 100]);
        assert_eq!(backoff.after(None).as_millis(), 200);
    }
}
