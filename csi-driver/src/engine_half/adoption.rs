// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Volumes that an earlier engine half made: found by their records, taken over, never touched.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use evanesce_engine::audit::Event;
use evanesce_engine::crash_point;
use evanesce_engine::error::{Error, Kind};
use evanesce_engine::generation::Generations;
use evanesce_engine::lease;
use evanesce_engine::schedule::{random, refresh_after};
use evanesce_engine::sealing::Unsealable;
use evanesce_engine::spec::volume::Refresh;
use evanesce_engine::token::Tokens;
use tracing::{info, warn};

use crate::engine_half::journal::Sealed;
use crate::engine_half::plugin::Plugin;
use crate::engine_half::publish_request::PublishRequest;
use crate::engine_half::record::Record;
use crate::engine_half::refresher::{follow, sweep_later};
use crate::engine_half::tmpfs_target::numbers;
use crate::engine_half::volume::{State, Volume};
use crate::engine_half::volumes::Publish;
use crate::protocol::VolumeId;

/// Where its class is not known yet, a volume that is taken over is asked for at this rate; and the first time, before which
/// its token has to come, in any case.
const UNTIL_READ: Refresh = Refresh { every: Duration::from_secs(60), jitter_percent: 50 };
/// Old generations that were found stay this long: whoever made them may have promised as much to a reader.
const KEEP_FOUND: Duration = Duration::from_secs(60);
/// Kubelet has published every volume of its pods again by then, many times: what is not known then is not ours.
const KNOWN_BY_THEN: Duration = Duration::from_secs(600);

/// Reads what an earlier engine half borrowed, for the volumes that are about to be taken over. What does not open was
/// sealed before the node was rebooted: nobody can give it back, and its leases end at their own time.
///
/// # Errors
/// Only where the journal cannot be read at all.
pub async fn find_borrowed(plugin: &Plugin, journal: &Sealed) -> Result<(), Error> {
    let (mut last, mut lost) = (None, 0_u32);
    while let Some((group, opened)) = journal.next(last.as_ref()).await? {
        match opened {
            Ok(entry) => match plugin.deliverer.lender.found(group.clone(), &entry) {
                Ok(found) => plugin.found().add(found),
                Err(error) => warn!(%group, %error, detail = error.detail(), "a lease group is left alone"),
            },
            Err(Unsealable::OtherKeyOrDamaged) => {
                lost += 1;
                lease::Journal::remove(journal, &group).await?;
            }
            // Of a newer version, which will find it.
            Err(error @ Unsealable::Version(_)) => warn!(%group, %error, "a lease group is left alone"),
        }
        last = Some(group);
    }
    if lost > 0 {
        warn!(
            groups = lost,
            "what was lent before the node's last boot cannot be given back: it ends when its leases do"
        );
        plugin.auditor().record(Event::LeasesLost { groups: lost });
    }
    Ok(())
}

/// Takes over every volume that has a record, one after the other, so that the warden knows over which one this process
/// died. A record without a volume is dropped; one that cannot be read is left, with its volume, for the version that
/// wrote it.
///
/// # Errors
/// Only where the records cannot be listed at all.
pub async fn adopt(plugin: &Arc<Plugin>) -> Result<usize, Error> {
    let (mut adopted, mut failed, mut last) = (0, false, None);
    while let Some((id, json)) = plugin.mounts.next_record(last.as_ref()).await? {
        match Record::from_json(&id, &json) {
            Ok(record) => match take_over(plugin, &id, record).await {
                Ok(true) => adopted += 1,
                Ok(false) => warn!(volume_id = %id, "a record without a volume is dropped"),
                Err(error) => {
                    failed = true;
                    warn!(volume_id = %id, %error, detail = error.detail(), "a volume could not be taken over");
                }
            },
            Err(error) => {
                warn!(volume_id = %id, %error, detail = error.detail(), "a volume is left alone");
                // Of another version: not ours to overwrite. One that is damaged is written anew by the next publish.
                if error.kind() == Kind::NotReady {
                    plugin.left_alone().insert(id.clone(), error.message().to_owned());
                }
            }
        }
        last = Some(id);
    }
    let any_unknown = failed || plugin.mounts.any_unknown().await?;
    plugin.any_unknown.store(any_unknown, Ordering::Relaxed);
    if any_unknown {
        let (until, plugin) = (plugin.clock().monotonic() + KNOWN_BY_THEN, Arc::downgrade(plugin));
        tokio::spawn(async move {
            tokio::time::sleep_until(until).await;
            if let Some(plugin) = plugin.upgrade() {
                plugin.give_back_orphans();
            }
        });
    } else {
        plugin.give_back_orphans();
    }
    crash_point!("adopt:done");
    info!(adopted, "volumes of an earlier engine half are taken over");
    Ok(adopted)
}

async fn take_over(plugin: &Arc<Plugin>, id: &VolumeId, record: Record) -> Result<bool, Error> {
    crash_point!("adopt:record-read");
    let Publish::First(claim) = plugin.volumes.publish(id, &record.subject(id))? else { return Ok(true) };
    let Some(root) = plugin.mounts.adopt(id, &record.target).await? else {
        plugin.mounts.drop_record(id).await?;
        return Ok(false);
    };
    crash_point!("adopt:opened");
    let Some(volume) = open(plugin, id, record, root).await? else { return Ok(false) };
    claim.live(Arc::new(volume));
    crash_point!("adopt:live");
    Ok(true)
}

/// Takes over a volume that sits at the target of a publish although this process does not know it: its record was lost or
/// damaged. What a record holds, kubelet's request says again; what the volume shows is fetched anew. `None` where nothing
/// of ours is there.
///
/// # Errors
/// [`Kind::Busy`] and [`Kind::NotReady`], which are final to no kubelet: a pod may be using the volume.
pub async fn take_over_unrecorded(plugin: &Plugin, request: &PublishRequest) -> Result<Option<Volume>, Error> {
    let PublishRequest { volume: id, target, subject, group, .. } = request;
    if let Some(why) = plugin.left_alone().get(id) {
        return Err(Error::new(Kind::NotReady, why.clone()));
    }
    if !plugin.any_unknown.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let root = match plugin.mounts.adopt(id, target).await {
        Ok(Some(root)) => root,
        Err(error) if error.kind() == Kind::Busy => return Err(error),
        // A target that cannot be one is refused where it is used, and audited there.
        Ok(None) | Err(_) => return Ok(None),
    };
    let cannot = |error: &dyn std::fmt::Display| {
        Error::new(Kind::NotReady, format!("volume {id} is attached and cannot be taken over: {error}; delete its pod"))
    };
    let stat = rustix::fs::fstatvfs(&root).map_err(|error| cannot(&error))?;
    let record = Record::new(subject, target.clone(), *group, stat.f_blocks * stat.f_frsize);
    open(plugin, id, record, root).await.map_err(|error| cannot(&error))
}

/// The volume in the folder `root`; `None`, and gone, where it was made and never shown: nobody can be reading it.
async fn open(plugin: &Plugin, id: &VolumeId, record: Record, root: OwnedFd) -> Result<Option<Volume>, Error> {
    let generations = Arc::new(Generations::new(root));
    let (shown, there) = numbers(&generations).await?;
    let Some(generation) = shown else {
        plugin.mounts.detach(id, &record.target).await?;
        plugin.mounts.drop_record(id).await?;
        return Ok(None);
    };
    let until = plugin.clock().monotonic() + KEEP_FOUND;
    let old: VecDeque<_> =
        there.into_iter().filter(|number| Some(*number) != shown).map(|number| (number, until)).collect();
    let subject = record.subject(id);
    // A record that could not be written after a refresh tells of what is not shown any more.
    let before = record.before.filter(|_| record.generation == shown);
    let due = before.as_ref().and_then(|before| before.due);
    // The other clock goes on while nobody runs.
    let age = due.map_or(Duration::ZERO, |due| plugin.clock().now().duration_since(due.asked).unwrap_or_default());
    let now = plugin.clock().monotonic();
    let confirmed = now.checked_sub(age).unwrap_or(now);
    let size = plugin.budget.adopt(&subject.workload.namespace, record.size);
    let mut state = State::new(before, generation, size, plugin.clock());
    let refresh = plugin.deliverer.class(&subject).map_or(UNTIL_READ, |class| class.refresh);
    (state.retired, state.refresh, state.keep_previous) = (old, refresh, KEEP_FOUND);
    let found = Arc::clone(&generations);
    let marked = tokio::task::spawn_blocking(move || found.marked(generation)).await;
    let mark = marked.ok().and_then(Result::ok).flatten();
    state.mark = mark;
    let shows = state.before.as_ref().map(|before| before.secrets.as_slice());
    let found = plugin.found().of(id, &subject, shows);
    found.into_iter().for_each(|group| state.borrowed.adopt(group));
    let volume = Volume::new(id.clone(), record.target, subject, record.group, Tokens::default(), generations, state);
    volume.freshness.renew(confirmed);
    volume.freshness.set_too_old(mark);
    let state = volume.state.lock().await;
    let soon = refresh_after(UNTIL_READ, random());
    let revision = state.before.as_ref().map(|before| before.revision);
    let edited = plugin.deliverer.revision(&volume.subject).is_ok_and(|now| Some(now) != revision);
    match due.filter(|due| !edited && due.left(plugin.clock().now()) > soon) {
        Some(_) => follow(plugin, &volume, &state),
        // Tokens are never written down: the first republish brings one, and with it the refresh.
        None => {
            plugin.deadlines.within(id, soon, plugin.clock());
            plugin.deadlines.wait_for_token(id);
        }
    }
    sweep_later(plugin, &volume, &state);
    drop(state);
    Ok(Some(volume))
}
