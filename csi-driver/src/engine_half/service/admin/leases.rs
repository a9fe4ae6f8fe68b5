// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What is lent to the node's volumes, as the operator is told: names and times, and for a lease's id its digest.

use std::time::{Duration, SystemTime};

use evanesce_engine::error::Error;
use evanesce_engine::lease::GroupId;
use evanesce_engine::lease::ledger::{Lease, Returning, Standing, State};
use evanesce_proto::node::{self, Failure, LeaseGroup, LeaseState};

use crate::engine_half::plugin::Plugin;
use crate::protocol::VolumeId;

/// Every group.
pub(super) fn list(plugin: &Plugin) -> Vec<LeaseGroup> {
    let all = plugin.deliverer.lender.ledger().all();
    all.iter().map(|(id, standing)| group(plugin, id, standing)).collect()
}

fn group(plugin: &Plugin, id: &GroupId, standing: &Standing) -> LeaseGroup {
    let Standing { subject, shared, volumes, backend, state, ends, leases, kind: _ } = standing;
    let clock = plugin.clock();
    let until = |at: SystemTime| at.duration_since(clock.now()).unwrap_or_default();
    let returning = if let State::Returning(returning) = state { Some(returning) } else { None };
    let failed = returning.and_then(|it| it.failed.as_ref());
    let lease = |Lease { path, id, renewable, ends }: &Lease| node::Lease {
        path: path.clone(),
        id_digest: id.to_string(),
        renewable: *renewable,
        ends_in: ends.and_then(|at| at.saturating_duration_since(clock.monotonic()).try_into().ok()),
    };
    LeaseGroup {
        id: id.to_string(),
        state: named(state).into(),
        volume: subject.volume.clone(),
        namespace: subject.workload.namespace.to_string(),
        pod: subject.workload.pod.to_string(),
        pod_uid: subject.workload.pod_uid.to_string(),
        service_account: subject.workload.service_account.to_string(),
        class: subject.class.to_string(),
        backend: backend.to_string(),
        ends_in: ends.and_then(|at| until(at).try_into().ok()),
        next_in: next(plugin, standing).and_then(|wait| wait.try_into().ok()),
        cause: returning.map(|it| it.cause.as_str().to_owned()).unwrap_or_default(),
        failures: returning.map_or(0, |it| it.failures),
        last_error: failed.map(|(error, _)| failure(error)),
        leases_known: leases.is_some(),
        leases: leases.iter().flatten().map(lease).collect(),
        shared: *shared,
        volumes: u32::try_from(*volumes).unwrap_or(u32::MAX),
    }
}

/// When something is done about it.
fn next(plugin: &Plugin, standing: &Standing) -> Option<Duration> {
    let clock = plugin.clock();
    let until = |at: tokio::time::Instant| at.saturating_duration_since(clock.monotonic());
    match &standing.state {
        State::Delivering | State::Found => None,
        State::Shown => {
            let volume = VolumeId::try_from(standing.subject.volume.clone()).ok()?;
            // Others show it still, each with a time of its own.
            if standing.shared && plugin.volumes.get(&volume).is_none() {
                return None;
            }
            let ends = plugin.deadlines.next_end(&volume);
            // Where that time has come it is seen to now, or tried again at the volume's next deadline.
            Some(match ends {
                Some(at) => at.duration_since(clock.now()).unwrap_or_default(),
                None => plugin.deadlines.next_refresh(&volume).map(until).unwrap_or_default(),
            })
        }
        State::Replaced(at) => Some(until(*at)),
        State::Returning(Returning { failed, .. }) => {
            Some(failed.as_ref().map(|(_, again)| until(*again)).unwrap_or_default())
        }
    }
}

fn failure(error: &Error) -> Failure {
    Failure { kind: error.kind().as_str().to_owned(), message: error.message().to_owned() }
}

fn named(state: &State) -> LeaseState {
    match state {
        State::Delivering => LeaseState::Delivering,
        State::Shown => LeaseState::Shown,
        State::Replaced(_) => LeaseState::Replaced,
        State::Returning(_) => LeaseState::Returning,
        State::Found => LeaseState::Found,
    }
}
