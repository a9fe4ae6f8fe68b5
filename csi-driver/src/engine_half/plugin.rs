// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What the node plugin does: publish, unpublish, and answer for what it has.
//!
//! Each verb runs in a task of its own: when kubelet's deadline passes, tonic drops the call and the task goes on to its
//! end, the retry hears `ABORTED` until it has, and the audit says what truly happened.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evanesce_engine::audit::{Auditor, Event, Purpose};
use evanesce_engine::clock::Clock;
use evanesce_engine::crash_point;
use evanesce_engine::deliver::{Deliverer, Request};
use evanesce_engine::error::{Error, Kind};
use evanesce_engine::lease::Cause;
use evanesce_engine::schedule::random;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::engine_half::adoption::take_over_unrecorded;
use crate::engine_half::budget::Budget;
use crate::engine_half::found::Found;
use crate::engine_half::metrics::Metrics;
use crate::engine_half::mounts::Mounts;
use crate::engine_half::publish_request::PublishRequest;
use crate::engine_half::refresher::{Deadlines, failed, follow, note_edit};
use crate::engine_half::tmpfs_target::FirstTarget;
use crate::engine_half::volume::{State, Volume};
use crate::engine_half::volumes::{Claim, Publish, Volumes};
use crate::protocol::{TargetPath, VolumeId};

/// The node plugin's parts.
pub struct Plugin {
    /// The straight line.
    pub deliverer: Deliverer,
    /// The warden.
    pub mounts: Arc<dyn Mounts>,
    /// The node's memory.
    pub budget: Arc<Budget>,
    /// What there is.
    pub volumes: Arc<Volumes>,
    /// When it is due.
    pub deadlines: Deadlines,
    /// What it counts.
    pub metrics: Arc<Metrics>,
    /// Volumes whose records are another version's, and what to say about them.
    pub left_alone: Mutex<HashMap<VolumeId, String>>,
    /// What an earlier engine half borrowed, until every volume is taken over.
    pub found: Mutex<Found>,
    /// Whether a volume may be attached that is not among `volumes`: then each first publish looks.
    pub any_unknown: AtomicBool,
    /// Work that a drain waits for.
    pub tasks: TaskTracker,
}

impl Plugin {
    /// Time.
    pub fn clock(&self) -> &dyn Clock {
        self.deliverer.clock.as_ref()
    }

    /// The audit.
    pub fn auditor(&self) -> &dyn Auditor {
        self.deliverer.auditor.as_ref()
    }

    /// Volumes that this version must not touch, but for an unpublish.
    pub fn left_alone(&self) -> MutexGuard<'_, HashMap<VolumeId, String>> {
        self.left_alone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an earlier engine half borrowed.
    pub fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back what was borrowed for volumes that are not there any more. Those that are left alone may be in use.
    pub fn give_back_orphans(&self) {
        self.found().keep_for(&self.left_alone());
    }

    /// Makes the volume visible in its pod, or takes the fresh tokens of one that is.
    ///
    /// # Errors
    /// Whatever a first delivery says; [`Kind::Busy`] during another one or an unpublish; [`Kind::Conflict`] where the
    /// volume is published with other parameters.
    pub async fn publish(self: &Arc<Self>, request: PublishRequest) -> Result<(), Error> {
        match self.volumes.publish(&request.volume, &request.subject)? {
            Publish::Again(volume) => self.publish_again(&volume, request).await,
            Publish::First(claim) => {
                let plugin = Arc::clone(self);
                let task = self.tasks.spawn(async move { plugin.publish_first(claim, request).await });
                task.await.unwrap_or_else(|error| {
                    self.any_unknown.store(true, Ordering::Relaxed);
                    Err(lost(&error))
                })
            }
        }
    }

    /// Delivers. On failure nothing is left, so that a retry starts from nothing and can never find half a volume.
    async fn publish_first(&self, claim: Claim, request: PublishRequest) -> Result<(), Error> {
        crash_point!("publish:claimed");
        if let Some(volume) = take_over_unrecorded(self, &request).await? {
            let volume = Arc::new(volume);
            warn!(volume_id = %volume.id, "a volume without a record that can be read is taken over from its publish");
            self.remember(&volume, &mut *volume.state.lock().await).await;
            claim.live(Arc::clone(&volume));
            return self.publish_again(&volume, request).await;
        }
        let target = FirstTarget {
            mounts: self.mounts.as_ref(),
            budget: &self.budget,
            request: &request,
            begun: AtomicBool::new(false),
            made: Mutex::default(),
        };
        let delivery = Request {
            subject: &request.subject,
            purpose: Purpose::First,
            tokens: &request.tokens,
            group: request.group,
            before: None,
            lent: &[],
            anew: true,
            prolonged: None,
            chance: random(),
            target_path: request.target.as_str(),
        };
        let delivered = match self.deliverer.deliver(&delivery, &target).await {
            Ok(delivered) => delivered,
            Err(error) => {
                if target.begun.load(Ordering::Relaxed) {
                    self.clear(&request.volume, &request.target).await;
                }
                if error.kind() == Kind::Busy {
                    self.any_unknown.store(true, Ordering::Relaxed);
                }
                return Err(error);
            }
        };
        crash_point!("publish:delivered");
        let made = target.made.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (generations, size) = made.ok_or_else(|| Error::internal("a delivered volume was not made"))?;
        let generation = delivered.placed.map_or(1, |placed| placed.generation);
        let mut state = State::new(Some(delivered.before), generation, size, self.clock());
        state.follow(&delivered.spec);
        state.borrowed.replace(delivered.borrowed.unwrap_or_default(), Duration::ZERO, self.clock());
        let PublishRequest { volume: id, target, subject, tokens, group } = request;
        let volume = Arc::new(Volume::new(id, target, subject, group, tokens, generations, state));
        let (now, age) = (self.clock().monotonic(), delivered.offline.as_ref().map(|offline| offline.age));
        volume.freshness.renew(age.and_then(|age| now.checked_sub(age)).unwrap_or(now));
        match &delivered.offline {
            None => follow(self, &volume, &*volume.state.lock().await),
            Some(offline) => failed(self, &volume, &*volume.state.lock().await, &offline.error),
        }
        info!(volume_id = %volume.id, namespace = %volume.subject.workload.namespace, pod = %volume.subject.workload.pod, "volume is mounted");
        claim.live(Arc::clone(&volume));
        crash_point!("publish:live");
        // An edit that came before the volume was live was noted by nobody.
        note_edit(self, &volume, &*volume.state.lock().await);
        Ok(())
    }

    /// Undoes what a failed first delivery has begun. One that had begun nothing undoes nothing: what is at the target may
    /// be in use.
    async fn clear(&self, volume: &VolumeId, target: &TargetPath) {
        let cleared = match self.mounts.detach(volume, target).await {
            Ok(()) => self.mounts.drop_record(volume).await,
            Err(error) => Err(error),
        };
        if let Err(error) = cleared {
            self.any_unknown.store(true, Ordering::Relaxed);
            warn!(volume_id = %volume, %error, detail = error.detail(), "what a failed delivery left could not be cleared; the retry begins with it");
        }
    }

    /// Takes the tokens of a repeated request. Nothing here waits for a backend or for whoever holds the volume.
    async fn publish_again(&self, volume: &Arc<Volume>, request: PublishRequest) -> Result<(), Error> {
        volume.matches(&request)?;
        request.tokens.check_holder(&request.subject.workload)?;
        if !request.tokens.is_empty() {
            volume.renew(request.tokens);
            self.deadlines.token_arrived(&volume.id, self.clock());
            crash_point!("republish:renewed");
        }
        // Somebody with root may have unmounted it. While a refresh or an unpublish holds the volume, it is theirs to see.
        let Ok(_state) = volume.state.try_lock() else { return Ok(()) };
        if !volume.is_leaving() && !self.mounts.is_attached(&volume.id, &volume.target).await? {
            self.mounts.attach(&volume.id, &volume.target).await?;
            warn!(volume_id = %volume.id, "volume was not mounted any more and is again");
        }
        Ok(())
    }

    /// Takes the volume from its pod. Done twice, it is done.
    ///
    /// # Errors
    /// [`Kind::Busy`] during a first delivery or another unpublish; [`Kind::Invalid`] where the volume is elsewhere.
    pub async fn unpublish(self: &Arc<Self>, id: VolumeId, target: TargetPath) -> Result<(), Error> {
        if self.volumes.get(&id).is_some_and(|volume| volume.target != target) {
            return Err(Error::invalid(format!("volume {id} is published at another target_path")));
        }
        let (volume, claim) = self.volumes.unpublish(&id)?;
        let plugin = Arc::clone(self);
        let task = self.tasks.spawn(async move {
            let result = plugin.remove(volume.as_deref(), &id, &target).await;
            match (volume, &result) {
                (Some(volume), Err(error)) => {
                    volume.freshness.fail(error);
                    claim.stuck(volume);
                }
                _ => drop(claim),
            }
            result
        });
        task.await.unwrap_or_else(|error| Err(lost(&error)))
    }

    async fn remove(&self, volume: Option<&Volume>, id: &VolumeId, target: &TargetPath) -> Result<(), Error> {
        // A refresh was told to stop, and a republish may be mounting the volume again: they come to their end first.
        let state = match volume {
            Some(volume) => Some(volume.state.lock().await),
            None => None,
        };
        self.deadlines.forget(id);
        crash_point!("unpublish:claimed");
        self.mounts.detach(id, target).await?;
        crash_point!("unpublish:detached");
        self.mounts.drop_record(id).await?;
        crash_point!("unpublish:dropped");
        self.left_alone().remove(id);
        // Kubelet does not wait for the backend: what goes back is in the journal until it has.
        self.found().own(id).into_iter().for_each(|group| group.give_back(Cause::Unmounted));
        if let Some(mut state) = state {
            state.borrowed.unmounted();
        }
        let subject = volume.map(|volume| volume.subject.clone());
        if subject.is_some() {
            info!(volume_id = %id, "volume is unmounted");
            self.auditor().record(Event::Unmounted { subject, volume: id.to_string(), target: target.to_string() });
        }
        Ok(())
    }

    /// Writes what the next engine half has to know. A record that cannot be written costs that engine half a fetch,
    /// not the pod its volume.
    pub async fn remember(&self, volume: &Volume, state: &mut State) {
        let written = match volume.record(state).to_json() {
            Ok(record) => self.mounts.put_record(&volume.id, record).await,
            Err(error) => Err(error),
        };
        state.recorded = written.is_ok();
        if let Err(error) = written {
            warn!(volume_id = %volume.id, %error, detail = error.detail(), "the volume's record is out of date");
        }
    }
}

fn lost(error: &tokio::task::JoinError) -> Error {
    let kind = if error.is_cancelled() { Kind::Cancelled } else { Kind::Internal };
    Error::new(kind, "the operation did not come to its end; try again").with_detail(error.to_string())
}
