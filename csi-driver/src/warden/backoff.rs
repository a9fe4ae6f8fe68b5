// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! How long to wait before the engine half is started again.

use std::time::Duration;

/// Doubles with every failure, and forgets them after a time of health.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(10);
    const HEALTHY: Duration = Duration::from_secs(60);

    /// As after a time of health.
    #[must_use]
    pub(super) fn new() -> Self {
        Self { next: Self::FIRST }
    }

    /// How long to wait now that it ended, having been healthy for this long.
    pub(super) fn after(&mut self, healthy: Duration) -> Duration {
        if healthy >= Self::HEALTHY {
            self.next = Self::FIRST;
        }
        let wait = self.next;
        self.next = (wait * 2).min(Self::LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_to_ten_seconds_and_starts_again_after_a_minute_of_health() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..9).map(|_| backoff.after(Duration::from_secs(59)).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff.after(Duration::from_secs(60)).as_millis(), 100);
        assert_eq!(backoff.after(Duration::ZERO).as_millis(), 200);
    }
}
