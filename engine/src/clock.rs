// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Time as an argument, so that a day's refreshes test in a millisecond.

use std::time::SystemTime;

use tokio::time::Instant;

/// Where time comes from.
pub trait Clock: Send + Sync {
    /// Wall time: for events and for expiry times that others set.
    fn now(&self) -> SystemTime;

    /// Time that only goes forward: for deadlines of our own.
    fn monotonic(&self) -> Instant;
}

/// The system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}
