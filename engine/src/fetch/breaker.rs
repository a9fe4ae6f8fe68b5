// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Whether a backend that fails is asked: a circuit breaker with half-open probes, pure, time and chance as arguments.
//!
//! After [`TOLERATED`] failures in a row a backend is not asked for a while that doubles up to [`LONGEST`]; then one request
//! probes it. What counts as a failure is that it did not answer: a backend that says no is well.

use std::time::Duration;

use tokio::time::Instant;

use crate::backend::{BackendError, BackendErrorKind};

/// So many failures in a row are borne.
pub(super) const TOLERATED: u32 = 5;
/// The first pause, before jitter.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause. With the jitter there are two to four probes a minute of a backend that is gone for long.
pub(super) const LONGEST: Duration = Duration::from_secs(30);
/// A pod that starts may have the backend probed so long after the last probe: it waits for the answer, not for a pause.
pub(super) const URGENT: Duration = Duration::from_secs(2);

/// How a backend has been answering.
#[derive(Debug)]
pub(super) struct Breaker {
    /// Failures in a row.
    failures: u32,
    /// How the last of them was.
    last: BackendErrorKind,
    pause: Option<Pause>,
}

#[derive(Clone, Copy, Debug)]
struct Pause {
    /// The last failure.
    since: Instant,
    /// When the next request may go.
    until: Instant,
    /// Whether one has gone that is not answered yet.
    probing: bool,
}

/// May a request go?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It may.
    Goes,
    /// It may, and its answer decides for all the others: whoever has this says how it [ended](Breaker::ended).
    Probes,
    /// Not before this instant.
    Waits(Instant),
}

impl Breaker {
    /// Of a backend that nobody has asked yet.
    pub(super) const fn new() -> Self {
        Self { failures: 0, last: BackendErrorKind::Unavailable, pause: None }
    }

    /// Whether a request may go at `now`. `urgent`: a pod waits for it.
    pub(super) fn admit(&mut self, now: Instant, urgent: bool) -> Admission {
        let Some(pause) = &mut self.pause else { return Admission::Goes };
        let until = if urgent { pause.until.min(pause.since + URGENT) } else { pause.until };
        if pause.probing {
            // Its end is heard; this is the answer to whoever does not listen for it.
            return Admission::Waits(until.max(now + URGENT));
        }
        if now < until {
            return Admission::Waits(until);
        }
        pause.probing = true;
        Admission::Probes
    }

    /// A request came to its end, after `Some` failure or an answer. `random` lies in 0..=1.
    pub(super) fn ended(&mut self, now: Instant, failure: Option<&BackendError>, random: f64) {
        let Some(failure) = failure.filter(|error| is_failure(error)) else {
            *self = Self::new();
            return;
        };
        (self.failures, self.last) = (self.failures.saturating_add(1), failure.kind);
        let asked_for = failure.retry_after;
        if self.failures < TOLERATED && asked_for.is_none() {
            return;
        }
        let doubled = FIRST.saturating_mul(1 << self.failures.saturating_sub(TOLERATED).min(8)).min(LONGEST);
        // Equal jitter: half of it for certain, so that the number of probes has a bound.
        let wait = doubled.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0).max(asked_for.unwrap_or_default());
        // Those that went before the pause began say nothing new.
        if self.pause.is_none_or(|pause| pause.probing || now >= pause.until) {
            self.pause = Some(Pause { since: now, until: now + wait, probing: false });
        }
    }

    /// A probe was dropped before its end: the next one may go at once.
    pub(super) fn abandoned(&mut self, now: Instant) {
        if let Some(pause) = self.pause.as_mut().filter(|pause| pause.probing) {
            (pause.probing, pause.until) = (false, now);
        }
    }

    /// How the last failure in a row was: whoever is held back for it hears of the same trouble, not of another.
    pub(super) fn last(&self) -> BackendErrorKind {
        self.last
    }

    /// Whether a probe has gone that is not answered yet.
    pub(super) fn is_probing(&self) -> bool {
        self.pause.is_some_and(|pause| pause.probing)
    }

    /// Whether it is being left alone.
    pub(super) fn is_open(&self) -> bool {
        self.pause.is_some()
    }
}

/// Whether it means that the backend itself is not well.
fn is_failure(error: &BackendError) -> bool {
    match error.kind {
        BackendErrorKind::Throttled | BackendErrorKind::TimedOut | BackendErrorKind::Unavailable => true,
        BackendErrorKind::Credential
        | BackendErrorKind::Denied
        | BackendErrorKind::Malformed
        | BackendErrorKind::NotFound
        | BackendErrorKind::Unauthenticated => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn gone() -> BackendError {
        BackendError::new(BackendErrorKind::Unavailable, "gone")
    }

    /// A breaker that has just opened.
    fn open(now: Instant) -> Breaker {
        let mut breaker = Breaker::new();
        (0..TOLERATED).for_each(|_| breaker.ended(now, Some(&gone()), 1.0));
        breaker
    }

    #[test]
    fn a_few_failures_are_borne_and_an_answer_makes_them_forgotten() {
        let (mut breaker, now) = (Breaker::new(), Instant::now());
        for _ in 0..10 {
            (1..TOLERATED).for_each(|_| breaker.ended(now, Some(&gone()), 1.0));
            assert_eq!(breaker.admit(now, false), Admission::Goes);
            breaker.ended(now, Some(&BackendError::new(BackendErrorKind::Denied, "no")), 1.0);
        }
        assert!(!breaker.is_open());
    }

    #[test]
    fn an_open_one_lets_one_probe_through_and_its_answer_decides() {
        let start = Instant::now();
        let mut breaker = open(start);
        assert_eq!(breaker.admit(start, false), Admission::Waits(start + SECOND));
        let later = start + SECOND;
        assert_eq!(breaker.admit(later, false), Admission::Probes);
        assert!(matches!(breaker.admit(later, false), Admission::Waits(_)), "one at a time");
        breaker.ended(later, Some(&gone()), 1.0);
        assert_eq!(breaker.admit(later, false), Admission::Waits(later + 2 * SECOND), "twice as long");
        assert_eq!(breaker.admit(later + 2 * SECOND, false), Admission::Probes);
        breaker.ended(later + 2 * SECOND, None, 1.0);
        assert_eq!(breaker.admit(later + 2 * SECOND, false), Admission::Goes);
    }

    #[test]
    fn requests_that_went_before_it_opened_do_not_make_the_pause_longer() {
        let start = Instant::now();
        let mut breaker = open(start);
        (0..100).for_each(|_| breaker.ended(start, Some(&gone()), 1.0));
        assert_eq!(breaker.admit(start, false), Admission::Waits(start + SECOND));
    }

    #[test]
    fn a_pod_that_starts_waits_for_a_probe_and_not_for_the_pause() {
        let start = Instant::now();
        let mut breaker = open(start);
        let mut now = start;
        for _ in 0..10 {
            now += LONGEST;
            assert_eq!(breaker.admit(now, false), Admission::Probes);
            breaker.ended(now, Some(&gone()), 1.0);
        }
        assert_eq!(breaker.admit(now, false), Admission::Waits(now + LONGEST));
        assert_eq!(breaker.admit(now, true), Admission::Waits(now + URGENT));
        assert_eq!(breaker.admit(now + URGENT, true), Admission::Probes);
    }

    #[test]
    fn what_a_backend_asks_for_is_kept_and_begins_at_once() {
        let (mut breaker, now) = (Breaker::new(), Instant::now());
        let asks = BackendError { retry_after: Some(90 * SECOND), ..gone() };
        breaker.ended(now, Some(&asks), 0.0);
        assert_eq!(breaker.admit(now, false), Admission::Waits(now + 90 * SECOND));
    }

    #[test]
    fn a_probe_that_is_dropped_gives_its_turn_to_the_next() {
        let start = Instant::now();
        let mut breaker = open(start);
        assert_eq!(breaker.admit(start + SECOND, false), Admission::Probes);
        breaker.abandoned(start + SECOND);
        assert_eq!(breaker.admit(start + SECOND, false), Admission::Probes);
    }

    /// The bound that the documentation states.
    #[test]
    fn a_backend_that_is_gone_is_probed_at_most_four_times_a_minute_once_it_is_gone_for_long() {
        let start = Instant::now();
        let mut breaker = open(start);
        let (mut now, mut probes) = (start, Vec::new());
        while now < start + 600 * SECOND {
            if breaker.admit(now, false) == Admission::Probes {
                probes.push(now);
                breaker.ended(now, Some(&gone()), 0.0);
            }
            now += Duration::from_millis(100);
        }
        let long = start + 60 * SECOND;
        for from in probes.iter().filter(|at| **at > long) {
            let minute = probes.iter().filter(|at| *at >= from && **at < *from + 60 * SECOND).count();
            assert!(minute <= 4, "{minute} probes in a minute");
        }
        assert!(probes.len() < 50, "{} probes in ten minutes", probes.len());
    }
}
