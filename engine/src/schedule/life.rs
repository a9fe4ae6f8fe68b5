// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! When what a backend answered is asked for again. Pure: time and chance are arguments.
//!
//! - What ends (a lease, a certificate) is replaced when two thirds of its life are over, or a little earlier, never later.
//!   Its class's period does not count: to ask for it is to make another one.
//! - What its server changes by itself (a static role) is asked for just after the change, and at the class's period.
//! - Everything else is asked for at the class's period, spread to both sides.
//!
//! A volume is due when the first of its secrets is.

use std::time::{Duration, SystemTime};

use crate::secret::Secret;
use crate::spec::volume::Refresh;

/// No answer is asked for again sooner than this, however short it lives.
pub const SOONEST: Duration = Duration::from_millis(500);
/// No volume waits longer than this, so that sums with times of any clock stay in its range.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// A server's whole seconds, rounded down, may say that a change is over when it is not.
const ROUNDING: Duration = Duration::from_secs(1);
/// The longest that a change of a static role waits to be read: from the change on, what the pod has is wrong.
const ROTATED: Duration = Duration::from_secs(10);

/// How long an answer is good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// It ends then.
    pub ends_in: Option<Duration>,
    /// Its server replaces it then.
    pub rotates_in: Option<Duration>,
}

impl Life {
    /// What the answer says of itself. A length of zero says nothing, and neither does an end that has passed by this
    /// machine's clock: whoever believed either would ask without a pause.
    pub fn of(secret: &Secret, now: SystemTime) -> Self {
        let leased = secret.lease.as_ref().map(|lease| lease.duration);
        let left = secret.expires_at.and_then(|end| end.duration_since(now).ok());
        let ends_in = [leased, left].into_iter().flatten().filter(|life| !life.is_zero()).min();
        Self { ends_in, rotates_in: secret.rotates_in }
    }
}

/// When a volume is asked for again, by the clock that goes on while nobody runs: what the next engine half reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Due {
    /// When this was decided.
    pub asked: SystemTime,
    /// When its backends are asked again.
    pub at: SystemTime,
    /// When what ends is replaced; absent where nothing does.
    pub renew: Option<SystemTime>,
}

impl Due {
    /// After this wait.
    pub fn after(wait: Wait, now: SystemTime) -> Self {
        Self { asked: now, at: now + wait.first(), renew: wait.renew.map(|wait| now + wait) }
    }

    /// The same for a volume of which only the versions were asked: what ends, ends when it did.
    #[must_use]
    pub fn again(self, every: Duration, now: SystemTime) -> Self {
        let next = now + every;
        Self { asked: now, at: self.renew.map_or(next, |renew| next.min(renew)), renew: self.renew }
    }

    /// How long until then. A clock that was set back to before this was decided says nothing: then it is due.
    pub fn left(self, now: SystemTime) -> Duration {
        let left = self.at.duration_since(now).unwrap_or_default();
        if now < self.asked { Duration::ZERO } else { left.min(LONGEST) }
    }

    /// How long it was to wait in all.
    pub fn wait(self) -> Duration {
        self.at.duration_since(self.asked).unwrap_or_default()
    }

    /// How long until what ends is replaced.
    pub fn renews_in(self, now: SystemTime) -> Option<Duration> {
        self.renew.map(|renew| renew.duration_since(now).unwrap_or_default().min(LONGEST))
    }
}

/// How long a volume waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Until its backends are asked what is new; absent where all it has ends by itself.
    pub refresh: Option<Duration>,
    /// Until what ends is replaced; absent where nothing does.
    pub renew: Option<Duration>,
}

impl Wait {
    /// For a volume with secrets of these lives. `chance`, in 0..=1, says where in the spread it falls.
    pub fn of(lives: impl IntoIterator<Item = Life>, refresh: Refresh, chance: f64) -> Self {
        let soonest = |waits: [Option<Duration>; 2]| waits.into_iter().flatten().min();
        let mut wait = Self { refresh: None, renew: None };
        for Life { ends_in, rotates_in } in lives {
            let renew = ends_in.map(|life| renew_after(life, refresh, chance));
            let asked = ends_in.is_none().then(|| refresh_after(refresh, chance));
            let rotated = rotates_in.map(|change| rotated_after(change, refresh, chance));
            wait.renew = soonest([wait.renew, renew]);
            wait.refresh = soonest([wait.refresh, soonest([asked, rotated])]);
        }
        if wait.renew.is_none() {
            wait.refresh = wait.refresh.or_else(|| Some(refresh_after(refresh, chance)));
        }
        wait
    }

    /// Until the first of both.
    pub fn first(self) -> Duration {
        [self.refresh, self.renew].into_iter().flatten().min().unwrap_or(LONGEST)
    }
}

/// How long until a volume is asked for again: `every`, spread by the jitter to each side. `chance` lies in 0..=1.
pub fn refresh_after(refresh: Refresh, chance: f64) -> Duration {
    let spread = f64::from(refresh.jitter_percent) / 100.0;
    bounded(refresh.every, 1.0 - spread + 2.0 * spread * chance.clamp(0.0, 1.0))
}

/// How long until a volume whose class was edited is asked for again: soon, spread over a fiftieth of its period and at
/// most five seconds, so that one edit does not send every pod of the node to the backend at once.
pub fn edited_after(refresh: Refresh, chance: f64) -> Duration {
    (refresh.every / 50).min(Duration::from_secs(5)).mul_f64(chance.clamp(0.0, 1.0))
}

/// Two thirds of a life at the latest: the last third is for what goes wrong.
fn renew_after(life: Duration, refresh: Refresh, chance: f64) -> Duration {
    let spread = f64::from(refresh.jitter_percent) / 100.0;
    bounded(life, (1.0 - spread * chance.clamp(0.0, 1.0)) * 2.0 / 3.0)
}

/// After the change, spread over as much as the class's period is spread to one side, and at most [`ROTATED`].
fn rotated_after(change: Duration, refresh: Refresh, chance: f64) -> Duration {
    let spread = f64::from(refresh.jitter_percent) / 100.0;
    let window = bounded(refresh.every, spread).min(ROTATED);
    change.min(LONGEST) + ROUNDING + window.mul_f64(chance.clamp(0.0, 1.0))
}

fn bounded(whole: Duration, share: f64) -> Duration {
    whole.min(LONGEST).mul_f64(share).max(SOONEST)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::secret::{Lease, SecretBytes};
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);
    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    const CLASS: Refresh = Refresh { every: Duration::from_secs(100), jitter_percent: 10 };

    fn secret(lease: Option<Duration>, expires_at: Option<SystemTime>) -> Secret {
        let lease = lease.map(|duration| Lease { id: SecretBytes::from(&b"x"[..]), duration, renewable: true });
        Secret { values: BTreeMap::new(), version: None, lease, expires_at, rotates_in: None, request_id: None }
    }

    fn ends(life: Duration) -> Life {
        Life { ends_in: Some(life), rotates_in: None }
    }

    fn rotates(change: Duration) -> Life {
        Life { ends_in: None, rotates_in: Some(change) }
    }

    #[test]
    fn a_static_secret_is_spread_to_both_sides_of_its_period() {
        let waits = [0.0, 0.5, 1.0].map(|chance| Wait::of([Life::default()], CLASS, chance).refresh.unwrap());
        assert_eq!(waits, [90, 100, 110].map(Duration::from_secs));
        assert_eq!(Wait::of([], CLASS, 0.5).first(), CLASS.every, "a volume with nothing in it has its period");
    }

    #[test]
    fn an_edit_is_asked_for_soon() {
        assert_eq!([0.0, 1.0].map(|chance| edited_after(CLASS, chance)), [Duration::ZERO, 2 * SECOND]);
    }

    #[test]
    fn what_ends_is_replaced_at_two_thirds_and_its_period_does_not_count() {
        for (chance, wait) in [(0.0, 2 * HOUR / 3), (1.0, 6 * HOUR / 10)] {
            assert_eq!(Wait::of([ends(HOUR)], CLASS, chance), Wait { refresh: None, renew: Some(wait) });
        }
    }

    #[test]
    fn the_first_end_of_an_answer_counts_and_one_of_zero_or_in_the_past_does_not() {
        let of = |lease, end: Option<i32>| {
            let at = end.map(|end| if end < 0 { NOW - HOUR } else { NOW + end.unsigned_abs() * SECOND });
            Life::of(&secret(lease, at), NOW).ends_in
        };
        assert_eq!(of(None, None), None);
        assert_eq!(of(Some(HOUR), None), Some(HOUR));
        assert_eq!(of(Some(HOUR), Some(60)), Some(60 * SECOND));
        assert_eq!(of(Some(Duration::ZERO), None), None, "a lease without a length");
        assert_eq!((of(None, Some(0)), of(None, Some(-1))), (None, None), "ended");
        assert_eq!(of(Some(HOUR), Some(-1)), Some(HOUR));
    }

    #[test]
    fn a_static_role_is_read_after_its_change_and_at_its_period() {
        let class = Refresh { every: HOUR, jitter_percent: 10 };
        let wait = |chance| Wait::of([rotates(60 * SECOND)], class, chance).first();
        assert_eq!((wait(0.0), wait(1.0)), (61 * SECOND, 71 * SECOND));
        assert_eq!(Wait::of([rotates(24 * HOUR)], class, 0.5).first(), HOUR);
        assert!(Wait::of([rotates(Duration::ZERO)], class, 0.0).first() >= SECOND, "the change is under way");
    }

    #[test]
    fn a_volume_is_due_with_the_first_of_its_secrets() {
        let wait = Wait::of([Life::default(), ends(HOUR), ends(30 * SECOND)], CLASS, 0.0);
        assert_eq!(wait, Wait { refresh: Some(90 * SECOND), renew: Some(20 * SECOND) });
        assert_eq!(wait.first(), 20 * SECOND);
    }

    /// Twenty nodes know nothing of each other: only chance keeps them apart.
    #[test]
    fn two_hundred_volumes_of_a_static_role_on_twenty_nodes_read_its_change_spread_over_the_window() {
        let class = Refresh { every: HOUR, jitter_percent: 10 };
        let mut seed = 1_u64;
        let mut chance = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 40) as f64 / (1_u64 << 24) as f64
        };
        let change = 600 * SECOND;
        let mut seconds = [0_u32; 10];
        for _node in 0..20 {
            let mut table = crate::schedule::Schedule::default();
            for volume in 0..10 {
                // They came at other times, and the server told each how long is left.
                let came = SECOND.mul_f64(500.0 * chance());
                table.set(volume, came + Wait::of([rotates(change - came)], class, chance()).first());
            }
            while let Some(at) = table.next() {
                assert!(at >= change + ROUNDING && at <= change + ROUNDING + ROTATED, "{at:?}");
                for _ in table.due(at) {
                    seconds[((at - change - ROUNDING).as_secs() as usize).min(9)] += 1;
                }
            }
        }
        assert_eq!(seconds.iter().sum::<u32>(), 200);
        assert!(seconds.iter().all(|here| (8..=36).contains(here)), "twenty each, more or less: {seconds:?}");
    }

    #[test]
    fn a_clock_that_is_set_back_makes_a_volume_due_and_never_late() {
        let (start, wait) = (NOW + 10 * HOUR, Wait { refresh: Some(HOUR), renew: Some(2 * HOUR) });
        let due = Due::after(wait, start);
        assert_eq!(
            (due.left(start), due.left(start + HOUR / 2), due.left(start + 3 * HOUR)),
            (HOUR, HOUR / 2, Duration::ZERO)
        );
        assert_eq!(due.left(start - SECOND), Duration::ZERO);
        assert_eq!((due.renews_in(start + HOUR), due.renews_in(start + 3 * HOUR)), (Some(HOUR), Some(Duration::ZERO)));
        let again = due.again(HOUR, start + HOUR + SECOND);
        assert_eq!((again.at, again.renew), (start + 2 * HOUR, due.renew), "the end comes first");
    }

    proptest! {
        #[test]
        fn what_ends_is_replaced_before_its_end(
            millis in 1_000_u64..,
            jitter_percent in 0_u8..=50,
            every in 0_u64..1_000_000,
            chance in 0.0..=1.0,
        ) {
            let (life, every) = (Duration::from_millis(millis), Duration::from_millis(every));
            let wait = Wait::of([ends(life)], Refresh { every, jitter_percent }, chance).first();
            prop_assert!(wait <= life.mul_f64(0.67) && wait >= life.min(LONGEST).mul_f64(0.33).max(SOONEST));
        }

        #[test]
        fn a_volume_never_waits_longer_for_one_secret_more(
            lives in proptest::collection::vec((any::<Option<u32>>(), any::<Option<u32>>()), 1..8),
            jitter_percent in 0_u8..=50,
            every in 0_u64..100_000_000,
            chance in 0.0..=1.0,
        ) {
            let class = Refresh { every: Duration::from_millis(every), jitter_percent };
            let seconds = |it: Option<u32>| it.map(|it| Duration::from_secs(it.into()));
            let life = |(end, change)| Life { ends_in: seconds(end), rotates_in: seconds(change) };
            let lives: Vec<_> = lives.into_iter().map(life).collect();
            let waits: Vec<_> =
                (1..=lives.len()).map(|many| Wait::of(lives[..many].iter().copied(), class, chance).first()).collect();
            prop_assert!(waits.is_sorted_by(|a, b| a >= b), "{waits:?}");
            prop_assert!(waits.iter().all(|wait| *wait >= SOONEST && *wait <= LONGEST + ROUNDING + ROTATED));
        }

        #[test]
        fn a_period_is_spread_within_its_jitter(
            every in 1_000_u64..100_000_000,
            jitter_percent in 0_u8..=50,
            chance in 0.0..=1.0,
        ) {
            let class = Refresh { every: Duration::from_millis(every), jitter_percent };
            let wait = refresh_after(class, chance).as_secs_f64() * 1000.0 / every as f64;
            let spread = f64::from(jitter_percent) / 100.0;
            prop_assert!((1.0 - spread - 0.001..=1.0 + spread + 0.001).contains(&wait), "{wait}");
        }
    }
}
