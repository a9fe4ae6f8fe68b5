// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What a class or a role asks for and cannot have, as a backend's answer shows: said once for each volume, with the field and
//! the cure. Its pod has what it needs all the same.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evanesce_engine::audit::Subject;
use evanesce_engine::lease::LeaseGroup;
use tracing::warn;

use crate::engine_half::volume::State;

/// What lives so short costs its backend more than its class says.
const SHORT: Duration = Duration::from_secs(10);

/// What was said of one volume.
#[derive(Debug, Default)]
pub struct Oddities {
    short: AtomicBool,
    overlap: AtomicBool,
    endless: AtomicBool,
}

impl Oddities {
    /// Says what is odd about what the volume shows and was not said before.
    pub fn say(&self, subject: &Subject, state: &State) {
        if let Some(life) = state.life.filter(|life| *life < SHORT) {
            say(
                &self.short,
                subject,
                format_args!(
                    "a secret of this volume is replaced every {life:?}, because that is two thirds of its life: raise its TTL \
                 (default_ttl of the role)"
                ),
            );
        }
        let borrowed = state.borrowed.shown();
        let left = state.life.map(|life| life / 2).filter(|left| !borrowed.is_empty() && *left < state.overlap);
        if let Some(left) = left {
            let overlap = state.overlap;
            say(
                &self.overlap,
                subject,
                format_args!(
                    "what is lent to this volume ends before its overlap of {overlap:?} does, so the overlap is cut to the {left:?} \
                 that are left: lower spec.leases.overlap, or raise default_ttl of the role to three times as much"
                ),
            );
        }
        if borrowed.iter().flat_map(LeaseGroup::lent).any(|lent| lent.duration.is_zero()) {
            say(
                &self.endless,
                subject,
                format_args!(
                    "a lease of this volume says no end, so it is replaced with its login's, or every spec.refresh.every where that has \
                 none: give its role a default_ttl"
                ),
            );
        }
    }
}

fn say(said: &AtomicBool, subject: &Subject, what: fmt::Arguments<'_>) {
    if !said.swap(true, Ordering::Relaxed) {
        let workload = &subject.workload;
        warn!(volume_id = subject.volume, namespace = %workload.namespace, pod = %workload.pod, class = %subject.class, "{what}");
    }
}
