// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! How often the API server is told. Pure: time is an argument.
//!
//! The same thing said again becomes a count on the event that is there, at most every five minutes. Different things
//! about one pod come out of that pod's bucket, and all of them out of the node's: neither a class that fails in ever new
//! ways nor an outage that takes every volume along writes more than a known amount.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// An event that is said again is counted so often at most.
const AGAIN: Duration = Duration::from_secs(300);
/// What was not said for so long is news: the API server keeps events for an hour.
const FORGET: Duration = Duration::from_secs(3000);
/// A pod's bucket: so many at once, and one more in each of these.
const POD: Bucket = Bucket { burst: 5, refill: Duration::from_secs(60) };
/// The node's.
const NODE: Bucket = Bucket { burst: 50, refill: Duration::from_secs(1) };
/// The most things that are remembered.
const MOST: usize = 4096;

/// What to do about an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Write it, under a name that is then remembered.
    Create,
    /// Count it on the event of this name.
    Count {
        /// The event's name.
        name: String,
        /// How often it was seen.
        times: i32,
    },
    /// Say nothing; it was said a moment ago.
    Repeat,
    /// Say nothing, although it is news.
    TooMany,
}

#[derive(Clone, Copy)]
struct Bucket {
    burst: u32,
    refill: Duration,
}

/// When the bucket will be full again.
#[derive(Default)]
struct Level(Option<Instant>);

impl Level {
    fn take(&mut self, bucket: Bucket, now: Instant) -> bool {
        let full = self.0.filter(|full| *full > now).unwrap_or(now) + bucket.refill;
        let fits = full.saturating_duration_since(now) <= bucket.refill * bucket.burst;
        if fits {
            self.0 = Some(full);
        }
        fits
    }
}

struct Said {
    name: String,
    times: i32,
    written: Instant,
}

/// What was said, about whom, and how much more may be. `P` tells pods apart, `E` events of a pod.
pub struct Limiter<P, E> {
    said: HashMap<(P, E), Said>,
    pods: HashMap<P, Level>,
    node: Level,
}

impl<P, E> Default for Limiter<P, E> {
    fn default() -> Self {
        Self { said: HashMap::new(), pods: HashMap::new(), node: Level::default() }
    }
}

impl<P: Clone + Eq + Hash, E: Clone + Eq + Hash> Limiter<P, E> {
    /// What to do about `event` of `pod`; `name` is its name if it is written anew.
    pub fn judge(&mut self, pod: &P, event: &E, name: &str, now: Instant) -> Verdict {
        let key = (pod.clone(), event.clone());
        if let Some(said) = self.said.get_mut(&key).filter(|said| now.duration_since(said.written) < FORGET) {
            said.times = said.times.saturating_add(1);
            if now.duration_since(said.written) < AGAIN {
                return Verdict::Repeat;
            }
            if !self.node.take(NODE, now) {
                return Verdict::TooMany;
            }
            said.written = now;
            return Verdict::Count { name: said.name.clone(), times: said.times };
        }
        self.make_room(now);
        // The node's is only taken from if the pod's had some.
        if !self.pods.entry(pod.clone()).or_default().take(POD, now) || !self.node.take(NODE, now) {
            return Verdict::TooMany;
        }
        self.said.insert(key, Said { name: name.to_owned(), times: 1, written: now });
        Verdict::Create
    }

    /// The event could not be written: the next time it is news.
    pub fn failed(&mut self, pod: &P, event: &E) {
        self.said.remove(&(pod.clone(), event.clone()));
    }

    fn make_room(&mut self, now: Instant) {
        if self.said.len() >= MOST || self.pods.len() >= MOST {
            self.said.retain(|_, said| now.duration_since(said.written) < FORGET);
            self.pods.retain(|_, level| level.0.is_some_and(|full| full > now));
        }
        if self.said.len() >= MOST {
            self.said.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter() -> Limiter<u32, &'static str> {
        Limiter::default()
    }

    #[test]
    fn the_same_again_is_counted_every_five_minutes_and_is_news_after_the_hour() {
        let (mut limiter, start) = (limiter(), Instant::now());
        let mut at = |seconds| limiter.judge(&1, &"stale", "first", start + Duration::from_secs(seconds));
        assert_eq!(at(0), Verdict::Create);
        assert_eq!(at(10), Verdict::Repeat);
        assert_eq!(at(299), Verdict::Repeat);
        assert_eq!(at(300), Verdict::Count { name: "first".to_owned(), times: 4 });
        assert_eq!(at(301), Verdict::Repeat);
        assert_eq!(at(300 + 3000), Verdict::Create);
    }

    #[test]
    fn a_pod_that_fails_in_ever_new_ways_is_held_to_its_bucket_and_others_are_not() {
        let start = Instant::now();
        let news: Vec<String> = (0..100).map(|number| format!("reason {number}")).collect();
        let mut limiter = Limiter::default();
        let count = news.iter().filter(|event| limiter.judge(&1, *event, "", start) == Verdict::Create).count();
        assert_eq!(count, 5);
        assert_eq!(limiter.judge(&2, &news[0], "", start), Verdict::Create);
        let later = start + Duration::from_secs(60);
        assert_eq!(limiter.judge(&1, &news[99], "", later), Verdict::Create, "one more each minute");
        assert_eq!(limiter.judge(&1, &news[98], "", later), Verdict::TooMany);
    }

    #[test]
    fn an_outage_of_every_volume_writes_no_more_than_the_nodes_bucket() {
        let (mut limiter, start) = (limiter(), Instant::now());
        let count = (0..1000).filter(|pod| limiter.judge(pod, &"stale", "", start) == Verdict::Create).count();
        assert_eq!(count, 50);
        let later = start + Duration::from_secs(10);
        let more = (1000..2000).filter(|pod| limiter.judge(pod, &"stale", "", later) == Verdict::Create).count();
        assert_eq!(more, 10);
    }

    #[test]
    fn what_could_not_be_written_is_news_the_next_time() {
        let (mut limiter, start) = (limiter(), Instant::now());
        assert_eq!(limiter.judge(&1, &"stale", "a", start), Verdict::Create);
        limiter.failed(&1, &"stale");
        assert_eq!(limiter.judge(&1, &"stale", "b", start), Verdict::Create);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut limiter, start) = (limiter(), Instant::now());
        for pod in 0..20_000 {
            // Later and later, so that the buckets always have some.
            limiter.judge(&pod, &"stale", "", start + Duration::from_secs(u64::from(pod)));
        }
        assert!(limiter.said.len() <= MOST && limiter.pods.len() <= MOST);
    }
}
