// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Builders for this crate's own tests.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use evanesce_engine::audit::Subject;
use evanesce_engine::clock::SystemClock;
use evanesce_engine::generation::Generations;
use evanesce_engine::names::{Namespace, NodeName, PodName, PodUid, ServiceAccountName, VolumeClassName};
use evanesce_engine::token::Tokens;
use evanesce_engine::workload::Workload;

use crate::engine_half::budget::Budget;
use crate::engine_half::volume::{State, Volume};
use crate::protocol::{TargetPath, VolumeId};

/// A pod's volume.
pub(crate) fn subject(volume: &VolumeId) -> Subject {
    Subject {
        volume: volume.to_string(),
        workload: Workload {
            namespace: Namespace::parse("payments").unwrap(),
            service_account: ServiceAccountName::parse("app").unwrap(),
            pod: PodName::parse("web-0").unwrap(),
            pod_uid: PodUid::parse("pod-1").unwrap(),
            node: NodeName::parse("node-1").unwrap(),
        },
        class: VolumeClassName::parse("db").unwrap(),
    }
}

/// A live volume that shows nothing.
pub(crate) fn volume(id: &VolumeId) -> Arc<Volume> {
    let subject = subject(id);
    let root = std::fs::File::open("/").unwrap().into();
    let size = Budget::new(u64::MAX, u64::MAX).reserve(&subject.workload.namespace, 1 << 20).unwrap();
    let state = State::new(None, 1, size, &SystemClock);
    let target = TargetPath::try_from("/pods/pod-1/mount".to_owned()).unwrap();
    Arc::new(Volume::new(id.clone(), target, subject, None, Tokens::default(), Arc::new(Generations::new(root)), state))
}
