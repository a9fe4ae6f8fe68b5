// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::config::Config;
use crate::standing::Standings;

/// Says which attempts are made, and lets each end as the test wants.
#[derive(Clone)]
struct Scripted {
    made: mpsc::UnboundedSender<(Duration, String)>,
    began: Instant,
    takes: Duration,
    fails: Arc<Mutex<VecDeque<bool>>>,
}

impl Attempt for Scripted {
    async fn attempt(&self, hook: &Hook, news: &News) -> Result<(), Failure> {
        let _ = self.made.send((self.began.elapsed(), format!("{} {}", hook.name, news.generation)));
        tokio::time::sleep(self.takes).await;
        let fails = self.fails.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        if fails == Some(true) { Err(Failure::Failed("as scripted".to_owned())) } else { Ok(()) }
    }
}

struct Seen(watch::Receiver<Option<Sight>>);

impl Source for Seen {
    fn sights(&self) -> watch::Receiver<Option<Sight>> {
        self.0.clone()
    }
}

struct Ground {
    sights: watch::Sender<Option<Sight>>,
    settings: watch::Sender<Arc<Volume>>,
    attempts: mpsc::UnboundedReceiver<(Duration, String)>,
    began: Instant,
    metrics: Arc<Metrics>,
    standing: Arc<Standing>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// A volume with these settings beside its name, path and hooks.
fn volume(settings: &str, hooks: &str) -> Arc<Volume> {
    let text = format!("volumes: [{{name: db, path: /secrets, {settings} hooks: [{hooks}]}}]");
    let config = Config::parse(&text).unwrap_or_else(|error| panic!("{error}"));
    Arc::clone(&config.volumes[0])
}

const ONE: &str = "{name: one, touch: {path: /x}}";
const TWO: &str = "{name: one, touch: {path: /x}}, {name: two, touch: {path: /x}}";

impl Ground {
    fn start(volume: Arc<Volume>, takes: Duration, fails: &[bool]) -> Self {
        let (sights, seen) = watch::channel(None);
        let (settings, read) = watch::channel(volume);
        let (made, attempts) = mpsc::unbounded_channel();
        let metrics = Arc::new(Metrics::declare(Arc::default()).0);
        let (standing, stop) = (Standings::default().add(), CancellationToken::new());
        let fails = Arc::new(Mutex::new(fails.iter().copied().collect()));
        let began = Instant::now();
        let teller = Teller {
            volume: read,
            hooks: Scripted { made, began, takes, fails },
            metrics: Arc::clone(&metrics),
            standing: Arc::clone(&standing),
            stop: stop.clone(),
        };
        let task = tokio::spawn(teller.run(Seen(seen)));
        Self { sights, settings, attempts, began, metrics, standing, stop, task }
    }

    fn show(&self, generation: &str, stale: bool) {
        let generation = Generation::parse(generation).unwrap();
        self.sights.send_replace(Some(Sight::Shown(Shown { generation, stale, since: None })));
    }

    fn vanish(&self) {
        self.sights.send_replace(Some(Sight::Nothing("gone".to_owned())));
    }

    /// The next attempt, and when it was made.
    async fn next(&mut self) -> (Duration, String) {
        let next = tokio::time::timeout(Duration::from_secs(7200), self.attempts.recv()).await;
        next.expect("nothing was told").unwrap()
    }

    async fn heard(&mut self) -> String {
        self.next().await.1
    }

    /// Nothing more is told, for hours.
    async fn silent(&mut self) {
        let more = tokio::time::timeout(Duration::from_secs(7200), self.attempts.recv()).await;
        assert!(more.is_err(), "{more:?}");
    }

    fn count(&self, on: On, outcome: Telling) -> u64 {
        self.metrics.tellings.get((on, outcome))
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn what_is_shown_at_the_start_is_known_unless_it_is_asked_for() {
    let mut quiet = Ground::start(volume("", ONE), Duration::ZERO, &[]);
    quiet.show("..g1", false);
    quiet.silent().await;
    let mut asked = Ground::start(volume("onStart: true,", ONE), Duration::ZERO, &[]);
    asked.show("..g1", false);
    assert_eq!(asked.heard().await, "one ..g1");
    asked.silent().await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_comes_later_is_news_and_one_that_comes_back_as_it_was_is_none() {
    let mut ground = Ground::start(volume("", ONE), Duration::ZERO, &[]);
    ground.vanish();
    ground.silent().await;
    ground.show("..g1", false);
    assert_eq!(ground.heard().await, "one ..g1");
    ground.vanish();
    ground.silent().await;
    ground.show("..g1", false);
    ground.silent().await;
}

#[tokio::test(start_paused = true)]
async fn hooks_are_run_in_order_after_a_moment_of_quiet() {
    let mut ground = Ground::start(volume("debounce: 500ms,", TWO), seconds(1), &[]);
    ground.show("..g1", false);
    ground.silent().await;
    let from = ground.began.elapsed();
    for generation in ["..g2", "..g3", "..g4"] {
        ground.show(generation, false);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let (first, heard) = ground.next().await;
    assert_eq!((heard.as_str(), (first - from).as_millis() / 10), ("one ..g4", 110));
    assert_eq!(ground.heard().await, "two ..g4");
    ground.silent().await;
    assert_eq!(ground.count(On::Changed, Telling::Told), 1);
    assert!(ground.standing.state().behind.is_none());
}

#[tokio::test(start_paused = true)]
async fn changes_without_a_pause_put_the_telling_off_for_ten_debounces_and_no_longer() {
    let mut ground = Ground::start(volume("debounce: 1s,", ONE), Duration::ZERO, &[]);
    ground.show("..g1", false);
    ground.silent().await;
    let (start, mut number) = (Instant::now(), 1);
    let heard = loop {
        number += 1;
        ground.show(&format!("..g{number}"), false);
        tokio::time::sleep(Duration::from_millis(500)).await;
        if let Ok((_, heard)) = ground.attempts.try_recv() {
            break heard;
        }
        assert!(start.elapsed() < seconds(60), "it is put off for ever");
    };
    assert!((10..=11).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert!(heard.starts_with("one ..g2"), "{heard}");
}

#[tokio::test(start_paused = true)]
async fn tellings_keep_their_distance_and_the_last_change_is_always_told() {
    let mut ground = Ground::start(volume("debounce: 0s, minInterval: 30s,", ONE), Duration::ZERO, &[]);
    ground.show("..g1", false);
    ground.silent().await;
    ground.show("..g2", false);
    let (first, heard) = ground.next().await;
    assert_eq!(heard, "one ..g2");
    ground.show("..g3", false);
    tokio::time::sleep(seconds(5)).await;
    ground.show("..g4", false);
    let (second, heard) = ground.next().await;
    assert_eq!(heard, "one ..g4");
    assert_eq!((second - first).as_secs(), 30);
    ground.silent().await;
}

#[tokio::test(start_paused = true)]
async fn what_changes_while_hooks_run_ends_none_of_them_and_is_told_afterwards() {
    let mut ground = Ground::start(volume("debounce: 0s,", TWO), seconds(10), &[]);
    ground.show("..g1", false);
    ground.silent().await;
    ground.show("..g2", false);
    assert_eq!(ground.heard().await, "one ..g2");
    ground.show("..g3", false);
    ground.show("..g4", false);
    for expected in ["two ..g2", "one ..g4", "two ..g4"] {
        assert_eq!(ground.heard().await, expected);
    }
    ground.silent().await;
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_fails_is_tried_again_and_those_before_it_are_not() {
    let settings = "retry: {first: 1s, most: 4s},";
    let mut ground =
        Ground::start(volume(settings, TWO), Duration::from_millis(1), &[false, true, true, true, true, false]);
    ground.show("..g1", false);
    ground.silent().await;
    ground.show("..g2", false);
    assert_eq!(ground.heard().await, "one ..g2");
    let (mut last, heard) = ground.next().await;
    assert_eq!(heard, "two ..g2");
    for most in [1, 2, 4, 4] {
        let (now, heard) = ground.next().await;
        assert_eq!(heard, "two ..g2");
        let waited = (now - last).as_millis();
        assert!((most * 500..=most * 1000 + 10).contains(&waited), "{waited} ms of {most} s");
        assert!(ground.standing.state().behind.is_some());
        last = now;
    }
    ground.silent().await;
    assert!(ground.standing.state().behind.is_none());
    assert_eq!(ground.count(On::Changed, Telling::Told), 1);
}

#[tokio::test(start_paused = true)]
async fn later_hooks_wait_for_one_that_fails_unless_it_lets_them() {
    let stop = volume("", TWO);
    let go_on = volume("", &TWO.replacen("one,", "one, onFailure: continue,", 1));
    for (settings, expected) in
        [(stop, ["one ..g2", "one ..g2", "two ..g2"]), (go_on, ["one ..g2", "two ..g2", "one ..g2"])]
    {
        let mut ground = Ground::start(settings, Duration::ZERO, &[true]);
        ground.show("..g1", false);
        ground.silent().await;
        ground.show("..g2", false);
        for expected in expected {
            assert_eq!(ground.heard().await, expected);
        }
        ground.silent().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_newer_change_ends_the_wait_for_the_next_attempt_and_is_told_to_all() {
    let settings = "debounce: 0s, minInterval: 0s, retry: {first: 60s, most: 1h},";
    let mut ground = Ground::start(volume(settings, TWO), Duration::ZERO, &[false, true]);
    ground.show("..g1", false);
    ground.silent().await;
    ground.show("..g2", false);
    assert_eq!(ground.heard().await, "one ..g2");
    let (failed, _) = ground.next().await;
    ground.show("..g3", false);
    let (again, heard) = ground.next().await;
    assert_eq!(heard, "one ..g3");
    assert!(again - failed < seconds(1), "{:?}", again - failed);
    assert_eq!(ground.heard().await, "two ..g3");
    ground.silent().await;
    assert_eq!(ground.count(On::Changed, Telling::Superseded), 1);
}

#[tokio::test(start_paused = true)]
async fn an_edited_hook_is_tried_at_once() {
    let settings = "debounce: 0s, minInterval: 0s, retry: {first: 60s, most: 1h},";
    let mut ground = Ground::start(volume(settings, ONE), Duration::ZERO, &[true]);
    ground.show("..g1", false);
    ground.silent().await;
    ground.show("..g2", false);
    let (failed, _) = ground.next().await;
    ground.settings.send_replace(volume(settings, "{name: mended, touch: {path: /y}}"));
    let (again, heard) = ground.next().await;
    assert_eq!(heard, "mended ..g2");
    assert!(again - failed < seconds(1), "{:?}", again - failed);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_counts_as_behind_until_the_next_change_is_told() {
    let settings = "retry: {attempts: 2},";
    let mut ground = Ground::start(volume(settings, ONE), Duration::ZERO, &[true, true]);
    ground.show("..g1", false);
    ground.silent().await;
    ground.show("..g2", false);
    assert_eq!(ground.heard().await, "one ..g2");
    assert_eq!(ground.heard().await, "one ..g2");
    ground.silent().await;
    assert_eq!(ground.count(On::Changed, Telling::GivenUp), 1);
    assert!(ground.standing.state().behind.is_some());
    ground.show("..g3", false);
    assert_eq!(ground.heard().await, "one ..g3");
    ground.silent().await;
    assert!(ground.standing.state().behind.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_is_told_once_its_hook_is_mended() {
    let mut ground = Ground::start(volume("retry: {attempts: 1},", ONE), Duration::ZERO, &[true]);
    ground.show("..g1", false);
    ground.silent().await;
    ground.show("..g2", false);
    assert_eq!(ground.heard().await, "one ..g2");
    ground.silent().await;
    for expected in [Some("mended ..g2"), None] {
        ground.settings.send_replace(volume("retry: {attempts: 1},", "{name: mended, touch: {path: /y}}"));
        match expected {
            Some(expected) => assert_eq!(ground.heard().await, expected),
            None => ground.silent().await,
        }
    }
    assert!(ground.standing.state().behind.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_mark_of_files_that_are_too_old_is_told_to_whom_it_concerns() {
    let hooks = "{name: new, touch: {path: /x}}, {name: old, on: stale, touch: {path: /x}}, \
                 {name: well, on: fresh, touch: {path: /x}}";
    let mut ground = Ground::start(volume("", hooks), Duration::ZERO, &[]);
    ground.show("..g1", false);
    ground.silent().await;
    ground.show("..g1", true);
    assert_eq!(ground.heard().await, "old ..g1");
    ground.show("..g1", false);
    assert_eq!(ground.heard().await, "well ..g1");
    // `onStale: remove`: the set that comes with the mark has no files.
    ground.show("..g2", true);
    assert_eq!(ground.heard().await, "old ..g2");
    ground.silent().await;
    ground.show("..g3", false);
    assert_eq!(ground.heard().await, "new ..g3");
    assert_eq!(ground.heard().await, "well ..g3");
    ground.silent().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_the_hook_that_runs_and_begins_no_other() {
    let mut ground = Ground::start(volume("", TWO), seconds(100), &[]);
    ground.show("..g1", false);
    ground.silent().await;
    ground.show("..g2", false);
    assert_eq!(ground.heard().await, "one ..g2");
    let asked = Instant::now();
    ground.stop.cancel();
    (&mut ground.task).await.unwrap();
    assert!(asked.elapsed() >= seconds(99), "{:?}", asked.elapsed());
    assert!(ground.attempts.recv().await.is_none());
}

#[test]
fn waits_double_up_to_the_longest_and_are_shortened_by_up_to_a_half() {
    let retry = Retry { first: seconds(1), most: seconds(60), attempts: None };
    let waits = |chance| [1, 2, 3, 7, 33, 4_000_000_000].map(|failures| backoff(retry, failures, chance).as_secs_f64());
    assert_eq!(waits(0.0), [1.0, 2.0, 4.0, 60.0, 60.0, 60.0]);
    assert_eq!(waits(1.0), [0.5, 1.0, 2.0, 30.0, 30.0, 30.0]);
}
