// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The end of `maxStale`: files that no backend could confirm for so long are marked, or go, until one does.
//!
//! The mark lies in the generation that is shown. So a pod sees one state or the other, a swap to what is fresh takes the
//! mark along, and the next engine half finds it where it is.

use std::time::Duration;

use evanesce_engine::audit::Event;
use evanesce_engine::deliver::Before;
use evanesce_engine::error::Error;
use evanesce_engine::spec::volume::{MaxStale, OnStale};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::engine_half::plugin::Plugin;
use crate::engine_half::refresher::sweep_later;
use crate::engine_half::tmpfs_target::{RefreshTarget, mark, unmark};
use crate::engine_half::volume::{State, Volume};

/// A mark that could not be set is tried again after this long.
const RETRY: Duration = Duration::from_secs(30);

/// A refresh failed: sees to it that somebody looks when the files are too old.
pub fn expect(plugin: &Plugin, volume: &Volume, state: &State) {
    if let Some((at, _)) = end(plugin, volume, state) {
        plugin.deadlines.too_old_at(&volume.id, at);
    }
}

/// Marks or removes what is too old, and says so once.
pub async fn reached(plugin: &Plugin, volume: &Volume) {
    let mut state = volume.state.lock().await;
    let Some(stale) = volume.freshness.stale() else { return };
    let Some((at, limit)) = end(plugin, volume, &state) else { return };
    if at > plugin.clock().monotonic() {
        // Its class was edited, or it was fresh in between.
        return plugin.deadlines.too_old_at(&volume.id, at);
    }
    if let Err(error) = show(plugin, volume, &mut state, limit.then).await {
        warn!(volume_id = %volume.id, %error, detail = error.detail(), "files that are too old could not be marked");
        return plugin.deadlines.too_old_at(&volume.id, plugin.clock().monotonic() + RETRY);
    }
    state.said_too_old = true;
    volume.freshness.set_too_old(state.mark);
    warn!(
        volume_id = %volume.id, namespace = %volume.subject.workload.namespace, pod = %volume.subject.workload.pod,
        max_stale = ?limit.after, then = limit.then.as_str(), error = stale.message,
        "the files of the volume are too old"
    );
    plugin.auditor().record(Event::TooStale {
        subject: volume.subject.clone(),
        limit,
        generation: state.generation,
        kind: stale.kind,
        message: stale.message,
    });
    sweep_later(plugin, volume, &state);
}

/// A refresh succeeded; with a new `generation` the mark is gone already.
pub async fn over(plugin: &Plugin, volume: &Volume, state: &mut State, new_generation: bool) {
    if state.mark.is_none() {
        return;
    }
    if !new_generation && let Err(error) = unmark(&volume.generations, state.generation).await {
        warn!(volume_id = %volume.id, %error, detail = error.detail(), "the mark of files that are fresh again stays");
        return;
    }
    (state.mark, state.said_too_old) = (None, false);
    volume.freshness.set_too_old(None);
    info!(volume_id = %volume.id, "the files of the volume are not too old any more");
    plugin.auditor().record(Event::FreshAgain { subject: volume.subject.clone(), generation: state.generation });
}

/// When the files are too old, and what becomes of them, as their class says now; nothing where that is done and said.
fn end(plugin: &Plugin, volume: &Volume, state: &State) -> Option<(Instant, MaxStale)> {
    // Whoever edits a class during an outage wants it to count.
    let class = plugin.deliverer.class(&volume.subject);
    let limit = class.map_or(state.max_stale, |spec| spec.max_stale)?;
    if state.said_too_old && state.mark >= Some(limit.then) {
        return None;
    }
    let at = match state.mark {
        // An earlier engine half came to the end.
        Some(_) => plugin.clock().monotonic(),
        None => confirmed(volume, state)? + limit.after,
    };
    Some((at, limit))
}

/// Since when nobody confirms the files. What ends by itself is good, and asked of nobody, until it is to be replaced.
fn confirmed(volume: &Volume, state: &State) -> Option<Instant> {
    let fresh_at = volume.freshness.fresh_at();
    let ends = |before: &Before| !before.secrets.is_empty() && before.secrets.iter().all(|secret| secret.ends);
    let renew = state.renew.filter(|_| state.before.as_ref().is_some_and(ends));
    fresh_at.max(renew)
}

/// Has the volume show that its files are too old, unless it does.
async fn show(plugin: &Plugin, volume: &Volume, state: &mut State, then: OnStale) -> Result<(), Error> {
    if state.mark >= Some(then) {
        return Ok(());
    }
    if then == OnStale::Mark {
        mark(&volume.generations, state.generation).await?;
    } else {
        let keep_until = plugin.clock().monotonic() + state.keep_previous;
        let target = RefreshTarget { mounts: plugin.mounts.as_ref(), volume, state: (&mut *state).into(), keep_until };
        state.generation = target.clear().await?;
        // Nothing is shown that the backends could confirm: the next refresh asks for everything.
        state.before = None;
        plugin.remember(volume, state).await;
    }
    state.mark = Some(then);
    Ok(())
}
