// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! One pod's hours, walked through with the functions that the node plugin decides by. Pure.

use std::time::{Duration, SystemTime};

use evanesce_engine::schedule::{Due, Life, Wait, refresh_after};
use evanesce_engine::spec::volume::Refresh;

/// The middle of every spread.
const CHANCE: f64 = 0.5;
/// More is not drawn, nor counted one by one.
const MOST: usize = 1_000_000;

/// How a secret is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// For its version first, which says whether it has to be read.
    Version,
    /// It ends, and is made anew before.
    Leased,
    /// It changes at its server's time, and has no version.
    Rotated,
    /// It changes whenever somebody writes it, and has no version.
    Unversioned,
}

/// One time that the backends are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// How long after the pod's start.
    pub(super) at: Duration,
    pub(super) versions: u32,
    pub(super) reads: u32,
}

/// Every time that the backends are asked after the pod's start, where nothing changes meanwhile.
pub(super) struct Course {
    pub(super) asked: Vec<Asked>,
    /// How long that is.
    pub(super) length: Duration,
}

impl Course {
    /// The course of a volume with such secrets, of which those that end live for `ttl`.
    pub(super) fn of(secrets: &[Kind], refresh: Refresh, ttl: Duration, length: Duration) -> Self {
        let start = SystemTime::UNIX_EPOCH;
        let life = |kind: &Kind| match kind {
            Kind::Version | Kind::Unversioned => Life::default(),
            Kind::Leased => Life { ends_in: Some(ttl), rotates_in: None },
            Kind::Rotated => Life { ends_in: None, rotates_in: Some(ttl) },
        };
        let count =
            |wanted: Kind| u32::try_from(secrets.iter().filter(|kind| **kind == wanted).count()).unwrap_or(u32::MAX);
        let wait = Wait::of(secrets.iter().map(life), refresh, CHANCE);
        let (mut due, mut asked) = (Due::after(wait, start), Vec::new());
        while let Ok(at) = due.at.duration_since(start)
            && at <= length
            && asked.len() < MOST
        {
            let renews = due.renews_in(due.at).is_some_and(|left| left.is_zero());
            let whole = renews || count(Kind::Rotated) + count(Kind::Unversioned) > 0;
            let (versions, reads) = match whole {
                true => (0, u32::try_from(secrets.len()).unwrap_or(u32::MAX)),
                false => (count(Kind::Version), 0),
            };
            asked.push(Asked { at, versions, reads });
            due = if whole { Due::after(wait, due.at) } else { due.again(refresh_after(refresh, CHANCE), due.at) };
        }
        Self { asked, length }
    }

    /// The sum of what is asked, an hour.
    pub(super) fn per_hour(&self, what: impl Fn(&Asked) -> u32) -> f64 {
        self.asked.iter().map(|asked| f64::from(what(asked))).sum::<f64>() * 3600.0 / self.length.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const CLASS: Refresh = Refresh { every: Duration::from_secs(300), jitter_percent: 10 };

    fn course(secrets: &[Kind]) -> Vec<(u64, u32, u32)> {
        let asked = Course::of(secrets, CLASS, 60 * MINUTE, 60 * MINUTE).asked;
        asked.iter().map(|asked| (asked.at.as_secs(), asked.versions, asked.reads)).collect()
    }

    #[test]
    fn a_static_secret_is_asked_for_its_version_at_every_period() {
        assert_eq!(course(&[Kind::Version; 2]), (1..=12).map(|turn| (turn * 300, 2, 0)).collect::<Vec<_>>());
    }

    #[test]
    fn what_ends_is_made_anew_at_its_own_time_alone() {
        assert_eq!(course(&[Kind::Leased]), [(38 * 60, 0, 1)]);
        let both = course(&[Kind::Version, Kind::Leased]);
        assert_eq!(both.iter().filter(|asked| asked.2 > 0).collect::<Vec<_>>(), [&(38 * 60, 0, 2)]);
        assert_eq!(both.iter().filter(|asked| asked.1 > 0).count(), 11);
    }

    #[test]
    fn what_has_no_version_is_read_each_time() {
        for kind in [Kind::Rotated, Kind::Unversioned] {
            let read = course(&[kind]);
            assert!(read.len() == 12 && read.iter().all(|asked| (asked.1, asked.2) == (0, 1)), "{read:?}");
        }
    }
}
