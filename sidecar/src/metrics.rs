// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What the sidecar counts. Every name is declared here, once; the reference page is written from it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use evanesce_runtime::label;
use evanesce_runtime::metrics::{self as declared, Counter, Gauge, Histogram, Unit};
use tokio::time::Instant;

use crate::config::{Action, On};
use crate::standing::{Standings, State};

/// Upper bounds in seconds: from a signal to a program that takes its time.
const SECONDS: &[f64] = &[0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 600.0];

label! {
    /// What a hook does.
    pub enum HookKind("kind") {
        /// Runs a program.
        Command = "command",
        /// Sends a request.
        Http = "http",
        /// Sends a signal.
        Signal = "signal",
        /// Touches a file.
        Touch = "touch",
    }
}

label! {
    /// How an attempt of a hook ended.
    pub enum Attempt("outcome") {
        /// It did what it should.
        Ok = "ok",
        /// It did not.
        Failed = "failed",
        /// It took longer than its `timeout`.
        TimedOut = "timed_out",
    }
}

label! {
    /// What became of something to tell.
    pub enum Telling("outcome") {
        /// Every hook succeeded.
        Told = "told",
        /// There was something newer before it was told.
        Superseded = "superseded",
        /// Hooks failed as often as `retry.attempts` allows.
        GivenUp = "given_up",
    }
}

label! {
    /// How a volume stands.
    pub enum VolumeState("state") {
        /// There is something that the application was not told yet.
        Behind = "behind",
        /// The application knows what is shown.
        Current = "current",
        /// It is not mounted.
        Missing = "missing",
    }
}

label! {
    /// How changes are noticed.
    pub enum Noticing("by") {
        /// The kernel tells.
        Inotify = "inotify",
        /// By looking once a second.
        Polling = "polling",
    }
}

label! {
    /// What became of a configuration file that had changed.
    pub enum Reload("outcome") {
        /// It holds.
        Taken = "taken",
        /// Something is wrong with it, and the one before stays.
        Refused = "refused",
    }
}

impl From<&Action> for HookKind {
    fn from(action: &Action) -> Self {
        match action {
            Action::Command(_) => Self::Command,
            Action::Http(_) => Self::Http,
            Action::Signal(_) => Self::Signal,
            Action::Touch(_) => Self::Touch,
        }
    }
}

/// What is counted.
pub struct Metrics {
    /// What became of each thing to tell.
    pub tellings: Counter<(On, Telling)>,
    /// Attempts of hooks.
    pub attempts: Counter<(HookKind, Attempt)>,
    /// How long attempts took.
    pub attempt_seconds: Histogram<(HookKind,)>,
    /// Configuration files that had changed.
    pub reloads: Counter<(Reload,)>,
    /// Whether the file on disk is another one than what holds.
    pub refused: Gauge<()>,
}

impl Metrics {
    /// Declares them all.
    pub fn declare(standings: Arc<Standings>) -> (Self, declared::Metrics) {
        let mut all = declared::Metrics::new("evanesce_sidecar");
        let metrics = Self {
            tellings: all.counter("tellings", "Changes of volumes, and of their mark, by what became of telling them"),
            attempts: all.counter("hook_attempts", "Attempts of hooks"),
            attempt_seconds: all.histogram("hook_attempt", "How long attempts of hooks took", Unit::Seconds, SECONDS),
            reloads: all.counter("config_reloads", "Configuration files that had changed"),
            refused: all.gauge(
                "config_refused",
                "1 while the configuration file is refused and an older one holds",
                None,
            ),
        };
        metrics.refused.set((), 0.0);
        look_at(&mut all, standings);
        (metrics, all)
    }
}

/// What is asked at each scrape. Volumes have no names here, so the worst one counts.
fn look_at(all: &mut declared::Metrics, standings: Arc<Standings>) {
    let volumes: Gauge<(VolumeState,)> = all.gauge("volumes", "Volumes by how they stand", None);
    let noticed: Gauge<(Noticing,)> =
        all.gauge("volumes_noticed", "Mounted volumes by how their changes are noticed", None);
    let stale: Gauge<()> =
        all.gauge("volumes_stale", "Volumes whose files are marked as older than their class allows", None);
    let behind: Gauge<()> = all.gauge(
        "behind",
        "For how long the application was not told what it should have been, at the worst volume",
        Some(Unit::Seconds),
    );
    let age: Gauge<()> = all.gauge(
        "generation_age",
        "For how long the volume that changed last shows the same set of files",
        Some(Unit::Seconds),
    );
    all.before_encode(move || {
        let (states, now) = (standings.states(), Instant::now());
        let count = |fits: &dyn Fn(&State) -> bool| count(states.iter().filter(|state| fits(state)).count());
        volumes.set((VolumeState::Missing,), count(&|state| !state.mounted));
        volumes.set((VolumeState::Behind,), count(&|state| state.mounted && state.behind.is_some()));
        volumes.set((VolumeState::Current,), count(&|state| state.mounted && state.behind.is_none()));
        noticed.set((Noticing::Inotify,), count(&|state| state.mounted && state.rings));
        noticed.set((Noticing::Polling,), count(&|state| state.mounted && !state.rings));
        stale.set((), count(&|state| state.stale));
        let longest = states.iter().filter_map(|state| Some(now - state.behind?)).max();
        behind.set((), longest.unwrap_or_default().as_secs_f64());
        let last = states.iter().filter_map(|state| state.since).max();
        let youngest = last.and_then(|last| SystemTime::now().duration_since(last).ok());
        age.set((), youngest.unwrap_or(Duration::ZERO).as_secs_f64());
    });
}

fn count(number: usize) -> f64 {
    u32::try_from(number).unwrap_or(u32::MAX).into()
}
