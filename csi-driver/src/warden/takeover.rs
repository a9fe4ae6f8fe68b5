// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Which volume the engine half is taking over. One that it dies of again and again is left alone, so that all the others
//! have an engine half.

use std::collections::HashMap;

use crate::protocol::VolumeId;

/// So many deaths over one volume, with none of them survived in between, are no accident.
const TOO_MANY: u32 = 3;

/// Since the warden's start.
#[derive(Debug, Default)]
pub(super) struct TakeOver {
    /// Its record was handed out, and no other since.
    current: Option<VolumeId>,
    deaths: HashMap<VolumeId, u32>,
}

impl TakeOver {
    /// The engine half asked for the next record, so it survived the one before.
    pub(super) fn next(&mut self, volume: Option<&VolumeId>) {
        if let Some(survived) = self.current.take() {
            self.deaths.remove(&survived);
        }
        self.current = volume.cloned();
    }

    /// The engine half ended.
    pub(super) fn died(&mut self) {
        let Some(volume) = self.current.take() else { return };
        let deaths = self.deaths.entry(volume.clone()).or_default();
        *deaths += 1;
        if *deaths == TOO_MANY {
            tracing::error!(
                %volume, deaths,
                "the engine half dies whenever it takes this volume over: the volume is left alone, its pod keeps its files; \
                 delete the pod, or restart the plugin to try again"
            );
        }
    }

    /// Whether nobody is to take this volume over.
    pub(super) fn is_left_alone(&self, volume: &VolumeId) -> bool {
        self.deaths.get(volume).is_some_and(|deaths| *deaths >= TOO_MANY)
    }

    /// The volume is gone.
    pub(super) fn forget(&mut self, volume: &VolumeId) {
        self.deaths.remove(volume);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn only_deaths_over_the_same_volume_count_and_surviving_it_clears_it() {
        let (a, b): (VolumeId, VolumeId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let mut take_over = TakeOver::default();
        for _ in 0..2 {
            take_over.next(Some(&a));
            take_over.next(Some(&b));
            take_over.died();
        }
        take_over.next(Some(&b));
        take_over.next(None);
        take_over.died();
        take_over.next(Some(&b));
        take_over.died();
        assert!(!take_over.is_left_alone(&a) && !take_over.is_left_alone(&b));
        for _ in 0..2 {
            take_over.next(Some(&b));
            take_over.died();
        }
        assert!(!take_over.is_left_alone(&a) && take_over.is_left_alone(&b));
        take_over.forget(&b);
        assert!(!take_over.is_left_alone(&b));
    }
}
