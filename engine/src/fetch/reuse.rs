// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Answers that stay for a few seconds, so that the pods of one service account that start together ask once; and those
//! that stay for longer, where a class wants pods to start while its backend is away.
//!
//! Values lie in the [`Keep`] of the program and nowhere else, names of keys and versions on the heap. What does not fit
//! is not kept, which costs a question later and is no error.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::question::Question;
use crate::keep::{self, Keep, KeptSecret};
use crate::secret::Secret;

/// How much may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Answers.
    pub entries: usize,
    /// Bytes of values, all told. One answer may take an eighth of it.
    pub bytes: usize,
}

/// Where an answer came from: host name and port.
pub(super) type Endpoint = Option<(String, u16)>;

/// The answers that are kept.
pub(super) struct Reuse {
    keep: Arc<dyn Keep>,
    bounds: Bounds,
    kept: HashMap<Question, Entry>,
    /// By number, which is the order of their coming.
    order: BTreeMap<u64, Question>,
    last: u64,
    bytes: usize,
}

struct Entry {
    number: u64,
    answer: KeptAnswer,
    /// Wipes the entry when its time has come.
    expiry: AbortHandle,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.expiry.abort();
    }
}

struct KeptAnswer {
    asked: Instant,
    /// The same by the clock that goes on while the machine sleeps.
    asked_at: SystemTime,
    until: Instant,
    secret: KeptSecret,
    endpoint: Endpoint,
}

impl Reuse {
    /// None yet.
    pub(super) fn new(keep: Arc<dyn Keep>, bounds: Bounds) -> Self {
        Self { keep, bounds, kept: HashMap::new(), order: BTreeMap::new(), last: 0, bytes: 0 }
    }

    /// The answer to a question, if it is fresh at `now` and was asked no earlier than `since`.
    pub(super) fn find(&self, question: &Question, now: Instant, since: Option<Instant>) -> Option<(Secret, Endpoint)> {
        let answer = &self.kept.get(question)?.answer;
        let fresh = answer.until > now && since.is_none_or(|since| answer.asked >= since);
        fresh.then(|| (answer.secret.secret(), answer.endpoint.clone()))
    }

    /// How old the answer to a question is, by the clock that says more; nothing where there is none.
    pub(super) fn age(&self, question: &Question, (now, wall): (Instant, SystemTime)) -> Option<Duration> {
        let answer = &self.kept.get(question)?.answer;
        Some(now.saturating_duration_since(answer.asked).max(wall.duration_since(answer.asked_at).unwrap_or_default()))
    }

    /// Wipes the answers to such questions.
    pub(super) fn forget(&mut self, such: impl Fn(&Question) -> bool) {
        let questions: Vec<_> = self.kept.keys().filter(|question| such(question)).cloned().collect();
        questions.iter().for_each(|question| self.remove(question));
    }

    /// Keeps an answer that was asked for at `asked`, until `until`; `expiry` gets its number and has to call
    /// [`Reuse::expire`] then. The oldest ones make room.
    pub(super) fn keep(
        &mut self,
        question: &Question,
        (secret, endpoint): (&Secret, Endpoint),
        (asked, asked_at, until): (Instant, SystemTime, Instant),
        expiry: impl FnOnce(u64) -> AbortHandle,
    ) {
        let size = keep::size(secret);
        let younger = self.kept.get(question).is_some_and(|there| there.answer.asked > asked);
        if younger || self.bounds.entries == 0 || size > self.bounds.bytes / 8 {
            return;
        }
        self.remove(question);
        while self.kept.len() >= self.bounds.entries || self.bytes + size > self.bounds.bytes {
            self.evict_oldest();
        }
        let secret = loop {
            match KeptSecret::keep(self.keep.as_ref(), secret) {
                Ok(kept) => break kept,
                // The place is smaller than its bounds, or in pieces.
                Err(_) if self.evict_oldest() => {}
                Err(_) => return,
            }
        };
        let answer = KeptAnswer { asked, asked_at, until, secret, endpoint };
        self.last += 1;
        let number = self.last;
        self.bytes += size;
        self.order.insert(number, question.clone());
        self.kept.insert(question.clone(), Entry { number, answer, expiry: expiry(number) });
    }

    /// Wipes the answer of this number, unless a younger one took its place.
    pub(super) fn expire(&mut self, number: u64) {
        if let Some(question) = self.order.get(&number).cloned() {
            self.remove(&question);
        }
    }

    /// Wipes the oldest answer; `false` where there is none.
    fn evict_oldest(&mut self) -> bool {
        let Some(question) = self.order.values().next().cloned() else { return false };
        self.remove(&question);
        true
    }

    fn remove(&mut self, question: &Question) {
        if let Some(entry) = self.kept.remove(question) {
            self.order.remove(&entry.number);
            self.bytes -= entry.answer.secret.size();
        }
    }
}
