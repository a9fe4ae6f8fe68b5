// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Keeps live volumes fresh: one loop that waits for the next deadline, and refreshes that never harm a running pod.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use evanesce_engine::audit::Purpose;
use evanesce_engine::clock::Clock;
use evanesce_engine::crash_point;
use evanesce_engine::deliver::{Delivered, Request};
use evanesce_engine::error::{Error, Kind};
use evanesce_engine::names::BackendName;
use evanesce_engine::schedule::life::SOONEST;
use evanesce_engine::schedule::{Due as Decided, Schedule, edited_after, random, refresh_after};
use evanesce_engine::spec::volume::Refresh;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::engine_half::freshness::Failed;
use crate::engine_half::max_stale;
use crate::engine_half::plugin::Plugin;
use crate::engine_half::tmpfs_target::{RefreshTarget, remove};
use crate::engine_half::volume::{Forced, State, Volume};
use crate::protocol::VolumeId;

/// How many refreshes run side by side; deadlines are spread, so more is only needed after an outage, when fewer is kinder.
const PARALLEL: usize = 16;
/// A refresh that failed is tried again after this long, or a quarter of what the volume waited for it, then twice as long,
/// up to the volume's own period.
const FIRST_RETRY: Duration = Duration::from_secs(10);
/// How often the wall clock is looked at: one that was set forward, or a machine that slept, must not outlive a lease.
const LOOK: Duration = Duration::from_secs(30);

/// What falls due.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Due {
    /// Ask the backends.
    Refresh(VolumeId),
    /// Clear away what is not shown any more.
    Sweep(VolumeId),
    /// See whether the files are too old.
    TooOld(VolumeId),
}

/// The node's deadlines, and a bell for the loop that waits for them.
#[derive(Default)]
pub struct Deadlines {
    table: Mutex<Schedule<Due>>,
    /// When what ends is replaced, by the wall clock.
    ends: Mutex<Schedule<VolumeId, SystemTime>>,
    /// Volumes whose last refresh failed for want of a token.
    waiting: Mutex<std::collections::HashSet<VolumeId>>,
    changed: Notify,
}

impl Deadlines {
    /// The volume is due after `wait` at the latest.
    pub fn within(&self, volume: &VolumeId, wait: Duration, clock: &dyn Clock) {
        self.by(volume, clock.monotonic() + wait);
    }

    /// The volume is due then at the latest.
    fn by(&self, volume: &VolumeId, at: Instant) {
        self.table().sooner(Due::Refresh(volume.clone()), at);
        self.changed.notify_one();
    }

    /// The volume's class was edited, or its backend changed: it is due soon.
    fn edited(&self, volume: &VolumeId, refresh: Refresh, clock: &dyn Clock) {
        self.within(volume, edited_after(refresh, random()), clock);
    }

    /// Makes due what the wall clock says is due, and says when to look again.
    fn look(&self, clock: &dyn Clock) -> Option<Instant> {
        let mut ends = self.ends();
        let ended = ends.due(clock.now());
        let more = !ends.is_empty();
        drop(ends);
        for volume in ended {
            self.edited(&volume, Refresh::default(), clock);
        }
        more.then(|| clock.monotonic() + LOOK)
    }

    /// The volume's files are too old then, if they are not fresh before.
    pub fn too_old_at(&self, volume: &VolumeId, at: Instant) {
        self.at(Due::TooOld(volume.clone()), at);
    }

    /// A token came for a volume: if it waited for one, it is due.
    pub fn token_arrived(&self, volume: &VolumeId, clock: &dyn Clock) {
        if self.waiting().remove(volume) {
            self.at(Due::Refresh(volume.clone()), clock.monotonic());
        }
    }

    /// The volume cannot be refreshed before a token comes.
    pub fn wait_for_token(&self, volume: &VolumeId) {
        self.waiting().insert(volume.clone());
    }

    /// When the volume is due; `None` while it is being refreshed.
    pub fn next_refresh(&self, volume: &VolumeId) -> Option<Instant> {
        self.table().at(&Due::Refresh(volume.clone()))
    }

    /// When what ends is replaced, by the wall clock; `None` where nothing does, or it is being seen to.
    pub fn next_end(&self, volume: &VolumeId) -> Option<SystemTime> {
        self.ends().at(volume)
    }

    /// Nothing of the volume is due any more.
    pub fn forget(&self, volume: &VolumeId) {
        let mut table = self.table();
        table.remove(&Due::Refresh(volume.clone()));
        table.remove(&Due::Sweep(volume.clone()));
        table.remove(&Due::TooOld(volume.clone()));
        drop(table);
        self.ends().remove(volume);
        self.waiting().remove(volume);
    }

    fn at(&self, due: Due, at: Instant) {
        self.table().set(due, at);
        self.changed.notify_one();
    }

    fn table(&self) -> MutexGuard<'_, Schedule<Due>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ends(&self) -> MutexGuard<'_, Schedule<VolumeId, SystemTime>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, std::collections::HashSet<VolumeId>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for deadlines, for edited classes and for backends that `changed` until `stop`.
pub async fn run(plugin: Arc<Plugin>, mut changed: UnboundedReceiver<BackendName>, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(PARALLEL));
    let mut classes = plugin.deliverer.classes.changes();
    loop {
        let look = plugin.deadlines.look(plugin.clock());
        let next = [plugin.deadlines.table().next(), look].into_iter().flatten().min();
        let wait = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = wait => {}
            () = plugin.deadlines.changed.notified() => continue,
            Some(backend) = changed.recv() => {
                note_change(&plugin, &backend);
                continue;
            }
            edited = classes.changed() => {
                if edited.is_err() {
                    // The source is gone and with it the news; deadlines go on.
                    classes = tokio::sync::watch::channel(0).1;
                }
                note_edits(&plugin);
                continue;
            }
        }
        let due = plugin.deadlines.table().due(plugin.clock().monotonic());
        for due in due {
            start(&plugin, &permits, due);
        }
    }
}

/// Makes volumes due whose classes are not those they were made from.
fn note_edits(plugin: &Plugin) {
    for volume in plugin.volumes.live() {
        match volume.state.try_lock() {
            Ok(state) => note_edit(plugin, &volume, &state),
            // Whoever holds it may have looked already: one refresh too many costs less than an edit that is lost.
            Err(_) => plugin.deadlines.edited(&volume.id, Refresh::default(), plugin.clock()),
        }
    }
}

/// Makes volumes due that show something of this backend.
fn note_change(plugin: &Plugin, backend: &BackendName) {
    for volume in plugin.volumes.live() {
        if plugin.deliverer.asks(&volume.subject, backend) {
            let refresh = volume.state.try_lock().map_or_else(|_| Refresh::default(), |state| state.refresh);
            plugin.deadlines.edited(&volume.id, refresh, plugin.clock());
        }
    }
}

/// Makes the volume due if its class is not the one it was made from.
pub fn note_edit(plugin: &Plugin, volume: &Volume, state: &State) {
    let Some(before) = &state.before else { return };
    match plugin.deliverer.revision(&volume.subject) {
        Ok(revision) if revision == before.revision => {}
        // Once it is known, there is a change of its own.
        Err(error) if error.kind() == Kind::NotReady => {}
        // Also where the class is gone or broken: the refresh says so, in the log, the metric and the audit.
        _ => plugin.deadlines.edited(&volume.id, state.refresh, plugin.clock()),
    }
}

fn start(plugin: &Arc<Plugin>, permits: &Arc<Semaphore>, due: Due) {
    let (Due::Refresh(id) | Due::Sweep(id) | Due::TooOld(id)) = &due;
    let Some(volume) = plugin.volumes.get(id) else { return };
    if matches!(due, Due::Refresh(_)) {
        // It sees to what ends, and says anew when that is to be looked at.
        plugin.deadlines.ends().remove(id);
    }
    let (plugin, permits) = (Arc::clone(plugin), Arc::clone(permits));
    let tasks = plugin.tasks.clone();
    tasks.spawn(async move {
        tokio::select! {
            // An unpublish goes first; what the dropped refresh asked for is audited as cancelled.
            () = volume.left() => {}
            () = async {
                let Ok(_permit) = permits.acquire().await else { return };
                match due {
                    Due::Refresh(_) => refresh(&plugin, &volume).await,
                    Due::Sweep(_) => sweep(&plugin, &volume).await,
                    Due::TooOld(_) => max_stale::reached(&plugin, &volume).await,
                }
            } => {}
        }
    });
}

/// Asks the backends and shows what they have. Whatever fails, the pod keeps what it has.
async fn refresh(plugin: &Plugin, volume: &Volume) {
    let mut state = volume.state.lock().await;
    let before = state.before.clone();
    let forced = volume.forced();
    let tokens = volume.tokens();
    let due = state.renews(plugin.clock());
    let prolonged = if due && forced.is_empty() { prolong(plugin, &state).await } else { None };
    let lent = state.borrowed.names();
    let request = Request {
        subject: &volume.subject,
        purpose: Purpose::Refresh,
        tokens: &tokens,
        group: volume.group,
        before: before.as_ref(),
        lent: &lent,
        anew: !forced.is_empty() || due && prolonged.is_none(),
        prolonged,
        chance: random(),
        target_path: volume.target.as_str(),
    };
    let keep_until = plugin.clock().monotonic() + state.keep_previous;
    let result = {
        let target = RefreshTarget { mounts: plugin.mounts.as_ref(), volume, state: (&mut *state).into(), keep_until };
        plugin.deliverer.deliver(&request, &target).await
    };
    plugin.metrics.refreshed(&result, plugin.clock().now());
    let told = Forced::of(&result);
    match result {
        Ok(delivered) => succeeded(plugin, volume, &mut state, delivered).await,
        Err(error) => failed(plugin, volume, &state, &error),
    }
    for asker in forced {
        // Whoever does not wait is gone.
        let _ = asker.send(told.clone());
    }
}

/// Has what the volume was lent prolonged, where that is enough; else all of it is replaced, also where nobody knows why.
async fn prolong(plugin: &Plugin, state: &State) -> Option<Duration> {
    let before = state.before.as_ref()?;
    state.borrowed.prolong(&plugin.deliverer.lender, &before.secrets).await
}

async fn succeeded(plugin: &Plugin, volume: &Volume, state: &mut State, delivered: Delivered) {
    let Delivered { spec, before, placed, files: _, borrowed, offline: _ } = delivered;
    let remembered = state.before.as_ref() == Some(&before);
    state.remember(before, plugin.clock());
    state.follow(&spec);
    if let Some(borrowed) = borrowed {
        state.borrowed.replace(borrowed, spec.overlap, plugin.clock());
    }
    if volume.freshness.renew(plugin.clock().monotonic()) {
        info!(volume_id = %volume.id, "volume is fresh again");
    }
    if let Some(placed) = &placed {
        state.generation = placed.generation;
    }
    if !remembered || !state.recorded {
        plugin.remember(volume, state).await;
        crash_point!("refresh:remembered");
    }
    max_stale::over(plugin, volume, state, placed.is_some()).await;
    match placed {
        Some(placed) => {
            info!(volume_id = %volume.id, generation = placed.generation, "volume shows a new generation");
        }
        None => debug!(volume_id = %volume.id, "volume is up to date"),
    }
    sweep_later(plugin, volume, state);
    follow(plugin, volume, state);
}

/// Sets the volume's next deadline as was decided, unless something made it due sooner while it was being refreshed; and
/// says what is odd about what it shows.
pub fn follow(plugin: &Plugin, volume: &Volume, state: &State) {
    volume.oddities.say(&volume.subject, state);
    let due = state.before.as_ref().and_then(|before| before.due);
    let wait = due.map_or_else(|| refresh_after(state.refresh, random()), |due| due.left(plugin.clock().now()));
    plugin.deadlines.within(&volume.id, wait.max(SOONEST), plugin.clock());
    watch(plugin, volume, state);
}

/// What ends is replaced when the first of both clocks says so. Where one has said it, trying again is the retry's.
fn watch(plugin: &Plugin, volume: &Volume, state: &State) {
    let (deadlines, clock) = (&plugin.deadlines, plugin.clock());
    if let Some(at) = state.renew.filter(|at| *at > clock.monotonic()) {
        deadlines.by(&volume.id, at);
    }
    let due = state.before.as_ref().and_then(|before| before.due);
    if let Some(renew) = due.and_then(|due| due.renew).filter(|renew| *renew > clock.now()) {
        deadlines.ends().set(volume.id.clone(), renew);
        deadlines.changed.notify_one();
    }
}

/// The volume could not be refreshed, or was filled with what was remembered: it is stale, and tried again soon.
pub fn failed(plugin: &Plugin, volume: &Volume, state: &State, error: &Error) {
    let Failed { news, failures } = volume.freshness.fail(error);
    if error.kind() == Kind::Unauthenticated {
        plugin.deadlines.wait_for_token(&volume.id);
    }
    let waited = state.before.as_ref().and_then(|before| before.due).map_or(state.refresh.every, Decided::wait);
    let first = FIRST_RETRY.min(waited / 4).max(SOONEST);
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let every = doubled.min(state.refresh.every).max(error.retry_after().unwrap_or_default());
    let retry = refresh_after(Refresh { every, jitter_percent: 25 }, random());
    // Once, and again when the reason is another one: an outage of an hour is not a thousand lines.
    if news {
        warn!(
            volume_id = %volume.id, namespace = %volume.subject.workload.namespace, pod = %volume.subject.workload.pod,
            kind = error.kind().as_str(), %error, detail = error.detail(), ?retry,
            "volume is stale: its pod keeps the last good files"
        );
    } else {
        debug!(volume_id = %volume.id, detail = error.detail(), failures, ?retry, "volume is still stale");
    }
    // What could not be shown may have left a generation behind.
    sweep_later(plugin, volume, state);
    plugin.deadlines.within(&volume.id, retry, plugin.clock());
    watch(plugin, volume, state);
    max_stale::expect(plugin, volume, state);
}

/// Removes generations whose time has come, and gives back credentials that nobody uses any more.
async fn sweep(plugin: &Plugin, volume: &Volume) {
    let mut state = volume.state.lock().await;
    let now = plugin.clock().monotonic();
    state.borrowed.sweep(now);
    while let Some((number, _)) = state.retired.front().filter(|(_, until)| *until <= now).copied() {
        crash_point!("sweep:begun");
        if let Err(error) = remove(&volume.generations, number).await {
            warn!(volume_id = %volume.id, %error, detail = error.detail(), "an old generation stays");
        }
        state.retired.pop_front();
        crash_point!("sweep:swept");
    }
    sweep_later(plugin, volume, &state);
}

/// Sets the deadline of what is cleared away first.
pub fn sweep_later(plugin: &Plugin, volume: &Volume, state: &State) {
    if let Some(until) = state.next_sweep() {
        plugin.deadlines.at(Due::Sweep(volume.id.clone()), until);
    }
}
