// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Tells the application what it does not know yet, one volume at a time: after a moment of quiet, not too often, every
//! hook in its order, again until it succeeds, and always the newest.
//!
//! What was told last is remembered here and nowhere else. A hook that runs is never cut short by news; a wait for the
//! next attempt is. So the last change of all is told in the end, and how many came before it does not matter.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use evanesce_engine::schedule::random;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::config::{Hook, On, Retry, Volume};
use crate::hook::Failure;
use crate::metrics::{Metrics, Telling};
use crate::sight::{Generation, Shown, Sight};
use crate::source::Source;
use crate::standing::Standing;

/// How often a change may put off the telling of the one before, in debounces.
const MOST_DEBOUNCES: u32 = 10;

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The volume's name.
    pub volume: String,
    /// Where it is mounted.
    pub path: Box<Path>,
    /// What kind of news.
    pub on: On,
    /// The set of files that is shown.
    pub generation: Generation,
}

/// Makes one attempt of a hook. There is one besides the tests': [`crate::hook::Real`].
pub trait Attempt: Send + Sync {
    /// Does what `hook` says, within its `timeout`.
    fn attempt(&self, hook: &Hook, news: &News) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// One volume's teller.
pub struct Teller<A> {
    /// What the configuration says, now.
    pub volume: watch::Receiver<Arc<Volume>>,
    /// What makes the attempts.
    pub hooks: A,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// For metrics too.
    pub standing: Arc<Standing>,
    /// Ends it, after the attempt that is under way.
    pub stop: CancellationToken,
}

/// What the application knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Told {
    generation: Option<Generation>,
    stale: bool,
}

impl Told {
    /// What of `shown` it does not know, the new set before the mark's going. A set that comes with the mark is no new one:
    /// it may have no files.
    fn lacks(&self, shown: &Shown) -> Option<On> {
        match (shown.stale, self.stale) {
            (false, _) if self.generation.as_ref() != Some(&shown.generation) => Some(On::Changed),
            (true, false) => Some(On::Stale),
            (false, true) => Some(On::Fresh),
            _ => None,
        }
    }

    fn learn(&mut self, news: &News) {
        match news.on {
            On::Changed => self.generation = Some(news.generation.clone()),
            On::Stale => self.stale = true,
            On::Fresh => self.stale = false,
        }
    }
}

/// How a round of attempts ended.
enum Round {
    Told,
    GivenUp,
    Superseded,
    Stopped,
}

impl<A: Attempt> Teller<A> {
    /// Tells until it is stopped, or the source is gone. What is known from the start is what `source` shows now, not when
    /// this is first polled.
    pub fn run(self, source: impl Source) -> impl Future<Output = ()> {
        let sights = source.sights();
        let first = sights.borrow().clone();
        self.tell(first, sights)
    }

    async fn tell(mut self, first: Option<Sight>, mut sights: watch::Receiver<Option<Sight>>) {
        let Some(mut told) = self.begin(first, &mut sights).await else { return };
        let (mut not_before, mut before_giving_up) = (Instant::now(), None);
        loop {
            let Some(news) = self.next(&mut told, &mut before_giving_up, &mut sights).await else { return };
            if self.volume.borrow_and_update().hooks(news.on).next().is_none() {
                told.learn(&news);
                continue;
            }
            self.standing.behind();
            if !self.settle(&mut sights, not_before).await {
                return;
            }
            // What was news may be none by now, or other news.
            let Some(news) = self.lacking(&told, &mut sights) else {
                self.standing.told();
                continue;
            };
            not_before = Instant::now() + self.volume.borrow().min_interval;
            let (telling, since) = (news.on, Instant::now());
            match self.round(&news, &mut sights).await {
                Round::Told => {
                    before_giving_up = None;
                    told.learn(&news);
                    self.standing.told();
                    self.metrics.tellings.inc((telling, Telling::Told));
                    let (on, milliseconds) = (on(telling), since.elapsed().as_millis());
                    info!(volume = news.volume, generation = %news.generation, on, milliseconds, "the application was told");
                }
                Round::GivenUp => {
                    // Still behind, but nothing is done about it until somebody mends the hook.
                    before_giving_up = Some(told.clone());
                    told.learn(&news);
                    self.metrics.tellings.inc((telling, Telling::GivenUp));
                    error!(
                        volume = news.volume, generation = %news.generation, on = on(telling),
                        "the application was not told, and will not be before the next change: its hooks failed too often"
                    );
                }
                Round::Superseded => self.metrics.tellings.inc((telling, Telling::Superseded)),
                Round::Stopped => return,
            }
        }
    }

    /// What the application is taken to know: what the first look finds, or nothing, if it is to be told that, or if there
    /// is nothing yet.
    async fn begin(&self, first: Option<Sight>, sights: &mut watch::Receiver<Option<Sight>>) -> Option<Told> {
        let first = match first {
            Some(first) => first,
            None => tokio::select! {
                () = self.stop.cancelled() => return None,
                first = sights.wait_for(Option::is_some) => first.ok()?.clone()?,
            },
        };
        Some(match first {
            Sight::Shown(shown) if !self.volume.borrow().on_start => {
                debug!(generation = %shown.generation, "taken for known");
                Told { generation: Some(shown.generation), stale: shown.stale }
            }
            _ => Told::default(),
        })
    }

    /// Waits for something to tell. An edited configuration brings back what was given up.
    async fn next(
        &mut self,
        told: &mut Told,
        before_giving_up: &mut Option<Told>,
        sights: &mut watch::Receiver<Option<Sight>>,
    ) -> Option<News> {
        loop {
            if self.stop.is_cancelled() {
                return None;
            }
            if let Some(news) = self.lacking(told, sights) {
                return Some(news);
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                changed = sights.changed() => changed.ok()?,
                edited = self.volume.changed() => {
                    edited.ok()?;
                    *told = before_giving_up.take().unwrap_or_else(|| told.clone());
                }
            }
        }
    }

    fn lacking(&self, told: &Told, sights: &mut watch::Receiver<Option<Sight>>) -> Option<News> {
        let sight = sights.borrow_and_update();
        let Some(Sight::Shown(shown)) = &*sight else { return None };
        let volume = self.volume.borrow();
        Some(News {
            volume: volume.name.clone(),
            path: volume.path.as_path().into(),
            on: told.lacks(shown)?,
            generation: shown.generation.clone(),
        })
    }

    /// Waits until nothing has changed for a moment, and it is not too soon; `false` to stop.
    async fn settle(&self, sights: &mut watch::Receiver<Option<Sight>>, not_before: Instant) -> bool {
        let quiet = self.volume.borrow().debounce;
        let (mut until, latest) = (Instant::now() + quiet, Instant::now() + quiet * MOST_DEBOUNCES);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return false,
                changed = sights.changed() => match changed {
                    Ok(()) => until = (Instant::now() + quiet).min(latest),
                    Err(_) => return false,
                },
                () = tokio::time::sleep_until(until.max(not_before)) => return true,
            }
        }
    }

    /// Attempts every hook until it has succeeded.
    async fn round(&mut self, news: &News, sights: &mut watch::Receiver<Option<Sight>>) -> Round {
        let volume = Arc::clone(&self.volume.borrow_and_update());
        let mut pending: Vec<&Hook> = volume.hooks(news.on).collect();
        for failures in 1_u32.. {
            let mut failed = Vec::new();
            let mut waiting = pending.into_iter();
            for hook in waiting.by_ref() {
                if self.stop.is_cancelled() {
                    return Round::Stopped;
                }
                let Err(failure) = self.hooks.attempt(hook, news).await else { continue };
                let (generation, on) = (&news.generation, on(news.on));
                warn!(volume = news.volume, %generation, on, hook = hook.name, attempt = failures, %failure, "a hook failed");
                failed.push(hook);
                if !hook.go_on {
                    break;
                }
            }
            failed.extend(waiting);
            pending = failed;
            if pending.is_empty() {
                return Round::Told;
            }
            if volume.retry.attempts.is_some_and(|most| failures >= most) {
                return Round::GivenUp;
            }
            let wait = backoff(volume.retry, failures, random());
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Round::Stopped,
                // Also where the mark alone came: what is due is judged anew.
                _ = sights.changed() => return Round::Superseded,
                // Whoever edits a hook that fails wants it to count.
                _ = self.volume.changed() => return Round::Superseded,
                () = tokio::time::sleep(wait) => {}
            }
        }
        Round::GivenUp
    }
}

fn on(on: On) -> &'static str {
    evanesce_runtime::metrics::Label::as_str(on)
}

/// The wait after so many failures, shortened by up to a half by `chance` in 0..=1.
fn backoff(retry: Retry, failures: u32, chance: f64) -> Duration {
    let doubled = 2_u32.checked_pow(failures - 1).and_then(|times| retry.first.checked_mul(times));
    let whole = doubled.unwrap_or(retry.most).min(retry.most);
    whole.mul_f64(1.0 - chance / 2.0)
}
