// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What an earlier engine half borrowed, for volumes that are not taken over yet. Whatever is dropped here goes back, unless a
//! volume holds it.

use std::collections::HashMap;

use evanesce_engine::audit::{Shown, Subject};
use evanesce_engine::lease::LeaseGroup;

use crate::protocol::VolumeId;

/// Groups that the journal names.
#[derive(Default)]
pub struct Found {
    /// For one volume.
    own: HashMap<VolumeId, Vec<LeaseGroup>>,
    /// For the volumes of a service account, of which the first may be gone.
    shared: Vec<LeaseGroup>,
}

impl Found {
    /// One more.
    pub fn add(&mut self, group: LeaseGroup) {
        if group.shared().is_some() {
            self.shared.push(group);
        } else if let Ok(volume) = VolumeId::try_from(group.subject().volume.clone()) {
            self.own.entry(volume).or_default().push(group);
        }
    }

    /// Takes what was borrowed for this volume alone.
    pub fn own(&mut self, volume: &VolumeId) -> Vec<LeaseGroup> {
        self.own.remove(volume).unwrap_or_default()
    }

    /// What was borrowed for this volume, and what it may show together with others of its service account: as far as is known what
    /// it shows, that.
    pub fn of(&mut self, volume: &VolumeId, subject: &Subject, shows: Option<&[Shown]>) -> Vec<LeaseGroup> {
        let shared = self.shared.iter().filter(|group| may_show(group, subject, shows)).map(LeaseGroup::hold);
        let shared: Vec<_> = shared.collect();
        let mut groups = self.own(volume);
        groups.extend(shared);
        groups
    }

    /// Drops what belongs to none of these. What is shared stays while there is any of them: nobody knows what it shows.
    pub fn keep_for<T>(&mut self, volumes: &HashMap<VolumeId, T>) {
        self.own.retain(|volume, _| volumes.contains_key(volume));
        if volumes.is_empty() {
            self.shared.clear();
        }
    }
}

fn may_show(group: &LeaseGroup, subject: &Subject, shows: Option<&[Shown]>) -> bool {
    let (identity, workload) = (group.identity(), &subject.workload);
    let is_theirs = identity.caller.as_ref().is_some_and(|caller| {
        (&caller.namespace, &caller.service_account) == (&workload.namespace, &workload.service_account)
            && caller.pod_uid.as_ref().is_none_or(|uid| *uid == workload.pod_uid)
    });
    let is_shown = |shown: &Shown| shown.backend == identity.backend && group.shared() == Some(shown.path.as_str());
    is_theirs && shows.is_none_or(|shows| shows.iter().any(is_shown))
}
