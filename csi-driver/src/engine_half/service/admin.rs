// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce.node.v1.NodeAdmin`: what the node's operator may know of its volumes, and have done to them. The listing is
//! read off what is known already: no backend is asked, no refresh is waited for, and what holds a value is not looked at.

mod leases;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evanesce_engine::audit::Subject;
use evanesce_engine::error::Kind;
use evanesce_engine::names::NodeName;
use evanesce_engine::schedule::random;
use evanesce_proto::node::node_admin_server::NodeAdmin;
use evanesce_proto::node::{
    self, Failure, ListLeasesRequest, ListLeasesResponse, ListVolumesRequest, ListVolumesResponse, Outcome,
    RefreshRequest, RefreshResponse, Refreshed, State,
};
use futures_util::future::join_all;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use crate::engine_half::plugin::Plugin;
use crate::engine_half::volume::{Forced, Volume};
use crate::engine_half::volumes::Entry;
use crate::protocol::VolumeId;

/// Answers the operator.
pub struct AdminService {
    /// Knows the volumes.
    pub plugin: Arc<Plugin>,
    /// This node.
    pub node: NodeName,
}

#[tonic::async_trait]
impl NodeAdmin for AdminService {
    async fn list_volumes(&self, _: Request<ListVolumesRequest>) -> Result<Response<ListVolumesResponse>, Status> {
        let mut volumes: BTreeMap<VolumeId, node::Volume> =
            self.plugin.left_alone().iter().map(|(id, why)| (id.clone(), left_alone(id, why))).collect();
        // Kubelet may be asking for one that is left alone: then it is what kubelet asks for.
        volumes.extend(self.plugin.volumes.all().into_iter().map(|(id, entry)| {
            let volume = self.describe(&id, &entry);
            (id, volume)
        }));
        let volumes = volumes.into_values().collect();
        Ok(Response::new(ListVolumesResponse { node: self.node.to_string(), volumes }))
    }

    async fn list_leases(&self, _: Request<ListLeasesRequest>) -> Result<Response<ListLeasesResponse>, Status> {
        Ok(Response::new(ListLeasesResponse { node: self.node.to_string(), groups: leases::list(&self.plugin) }))
    }

    async fn refresh(&self, request: Request<RefreshRequest>) -> Result<Response<RefreshResponse>, Status> {
        let RefreshRequest { volumes, wait } = request.into_inner();
        let wait = wait.map_or(Ok(Duration::ZERO), Duration::try_from);
        let wait = wait.map_err(|_| Status::invalid_argument("wait is negative"))?.min(LONGEST_WAIT);
        let until = self.plugin.clock().monotonic() + wait;
        let spread = SPREAD
            .saturating_mul(u32::try_from(volumes.len()).unwrap_or(u32::MAX).saturating_sub(1))
            .min(LONGEST_SPREAD);
        let begun: Vec<_> = volumes.into_iter().map(|id| (self.begin(&id, spread), id)).collect();
        let ended = begun.into_iter().map(async |(told, id)| match told {
            None => refreshed(id, Outcome::NotLive),
            Some(told) => match tokio::time::timeout_at(until, told).await {
                Err(_) => refreshed(id, Outcome::Pending),
                Ok(told) => came_to(id, told),
            },
        });
        Ok(Response::new(RefreshResponse { volumes: join_all(ended).await }))
    }
}

/// Volumes that are refreshed together are so far apart, on average, so that a node's worth of them is no storm.
const SPREAD: Duration = Duration::from_millis(20);
/// And the last one comes no later than this.
const LONGEST_SPREAD: Duration = Duration::from_secs(10);
/// Nobody is waited for any longer.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

impl AdminService {
    /// Makes the volume due within `spread`; `None` where there is none to refresh.
    fn begin(&self, id: &str, spread: Duration) -> Option<oneshot::Receiver<Forced>> {
        let volume = self.plugin.volumes.get(&VolumeId::try_from(id.to_owned()).ok()?)?;
        let told = volume.force();
        self.plugin.deadlines.within(&volume.id, spread.mul_f64(random()), self.plugin.clock());
        Some(told)
    }

    fn describe(&self, id: &VolumeId, entry: &Entry) -> node::Volume {
        match entry {
            Entry::Delivering(subject) => of(subject, State::Delivering),
            Entry::Live(volume) if volume.freshness.stale().is_some() => self.shown(volume, State::Stale),
            Entry::Live(volume) => self.shown(volume, State::Live),
            Entry::Leaving(Some(volume)) | Entry::Stuck(volume) => self.shown(volume, State::Leaving),
            Entry::Leaving(None) => {
                node::Volume { id: id.to_string(), state: State::Leaving.into(), ..Default::default() }
            }
        }
    }

    fn shown(&self, volume: &Volume, state: State) -> node::Volume {
        let now = self.plugin.clock().monotonic();
        let stale = volume.freshness.stale();
        let fresh_ago = volume.freshness.fresh_at().map(|at| now.saturating_duration_since(at));
        // Without a deadline it is being refreshed now.
        let due = self.plugin.deadlines.next_refresh(&volume.id).unwrap_or(now);
        let next_refresh_in = (state != State::Leaving).then(|| due.saturating_duration_since(now));
        node::Volume {
            target_path: volume.target.to_string(),
            // Not from the state, which a refresh holds for as long as it waits for a backend.
            generation: volume.generations.shown().ok().flatten(),
            fresh_ago: fresh_ago.and_then(|ago| ago.try_into().ok()),
            next_refresh_in: next_refresh_in.and_then(|wait| wait.try_into().ok()),
            failures: stale.as_ref().map_or(0, |stale| stale.failures),
            last_error: stale.map(|stale| Failure { kind: stale.kind.as_str().to_owned(), message: stale.message }),
            ..of(&volume.subject, state)
        }
    }
}

fn refreshed(id: String, outcome: Outcome) -> Refreshed {
    Refreshed { id, outcome: outcome.into(), generation: None, error: None }
}

/// What is told; nothing is where the volume went away.
fn came_to(id: String, told: Result<Forced, oneshot::error::RecvError>) -> Refreshed {
    match told {
        Ok(Forced::Replaced(generation)) => {
            Refreshed { generation: Some(generation), ..refreshed(id, Outcome::Replaced) }
        }
        Ok(Forced::Unchanged) => refreshed(id, Outcome::Unchanged),
        Ok(Forced::Failed(kind, message)) => {
            let error = Some(Failure { kind: kind.as_str().to_owned(), message });
            Refreshed { error, ..refreshed(id, Outcome::Failed) }
        }
        Err(_) => refreshed(id, Outcome::NotLive),
    }
}

fn of(subject: &Subject, state: State) -> node::Volume {
    let Subject { volume, workload, class } = subject;
    node::Volume {
        id: volume.clone(),
        state: state.into(),
        namespace: workload.namespace.to_string(),
        pod: workload.pod.to_string(),
        pod_uid: workload.pod_uid.to_string(),
        service_account: workload.service_account.to_string(),
        class: class.to_string(),
        ..Default::default()
    }
}

fn left_alone(id: &VolumeId, why: &str) -> node::Volume {
    let why = Failure { kind: Kind::NotReady.as_str().to_owned(), message: why.to_owned() };
    node::Volume { id: id.to_string(), state: State::LeftAlone.into(), last_error: Some(why), ..Default::default() }
}
