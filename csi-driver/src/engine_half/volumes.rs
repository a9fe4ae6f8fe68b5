// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Which volumes there are, and who may do what to one of them now.
//!
//! A volume is being delivered for the first time, live, leaving, or stuck on its way out. Whoever comes second during a first delivery or an
//! unpublish hears `ABORTED` (CSI 1.13, "Error scheme": operation pending); a live volume is open to all, and its own
//! lock orders what changes its files. Claims are guards: dropping one sets the volume free, also when a task panics.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evanesce_engine::audit::Subject;
use evanesce_engine::error::{Error, Kind};

use crate::engine_half::volume::Volume;
use crate::protocol::VolumeId;

/// Every volume of the node.
#[derive(Default)]
pub struct Volumes(Mutex<HashMap<VolumeId, Entry>>);

/// How one volume is.
#[derive(Clone)]
pub enum Entry {
    /// Its first delivery is under way, for this pod.
    Delivering(Subject),
    /// A good generation is shown.
    Live(Arc<Volume>),
    /// An unpublish is under way; of a volume that is not known, too.
    Leaving(Option<Arc<Volume>>),
    /// An unpublish failed: only another one may try.
    Stuck(Arc<Volume>),
}

/// What a publish finds.
pub enum Publish {
    /// Nothing: the claimant delivers.
    First(Claim),
    /// A volume with a good generation.
    Again(Arc<Volume>),
}

/// The right to be alone with a volume id; dropping it forgets the volume.
pub struct Claim {
    volumes: Arc<Volumes>,
    id: VolumeId,
    kept: bool,
}

impl Volumes {
    /// Begins a publish for a pod.
    ///
    /// # Errors
    /// [`Kind::Busy`] during a first delivery or an unpublish.
    pub fn publish(self: &Arc<Self>, id: &VolumeId, subject: &Subject) -> Result<Publish, Error> {
        let mut entries = self.entries();
        match entries.get(id) {
            None => {
                entries.insert(id.clone(), Entry::Delivering(subject.clone()));
                Ok(Publish::First(self.claim(id)))
            }
            Some(Entry::Live(volume)) => Ok(Publish::Again(Arc::clone(volume))),
            Some(Entry::Delivering(_)) => Err(busy(id, "being delivered")),
            Some(Entry::Leaving(_) | Entry::Stuck(_)) => Err(busy(id, "being removed")),
        }
    }

    /// Begins an unpublish: from here on nobody else gets at the volume, and its refreshes are told to stop.
    ///
    /// # Errors
    /// [`Kind::Busy`] during a first delivery or another unpublish.
    pub fn unpublish(self: &Arc<Self>, id: &VolumeId) -> Result<(Option<Arc<Volume>>, Claim), Error> {
        let mut entries = self.entries();
        let volume = match entries.get(id) {
            None => None,
            Some(Entry::Live(volume) | Entry::Stuck(volume)) => {
                volume.leave();
                Some(Arc::clone(volume))
            }
            Some(Entry::Delivering(_)) => return Err(busy(id, "being delivered")),
            Some(Entry::Leaving(_)) => return Err(busy(id, "being removed")),
        };
        entries.insert(id.clone(), Entry::Leaving(volume.clone()));
        Ok((volume, self.claim(id)))
    }

    /// The live volume of this id.
    pub fn get(&self, id: &VolumeId) -> Option<Arc<Volume>> {
        match self.entries().get(id) {
            Some(Entry::Live(volume)) => Some(Arc::clone(volume)),
            Some(Entry::Delivering(_) | Entry::Leaving(_) | Entry::Stuck(_)) | None => None,
        }
    }

    /// Every live volume.
    pub fn live(&self) -> Vec<Arc<Volume>> {
        let live = |entry: &Entry| match entry {
            Entry::Live(volume) => Some(Arc::clone(volume)),
            Entry::Delivering(_) | Entry::Leaving(_) | Entry::Stuck(_) => None,
        };
        self.entries().values().filter_map(live).collect()
    }

    /// Every volume, however it is.
    pub fn all(&self) -> Vec<(VolumeId, Entry)> {
        self.entries().iter().map(|(id, entry)| (id.clone(), entry.clone())).collect()
    }

    fn claim(self: &Arc<Self>, id: &VolumeId) -> Claim {
        Claim { volumes: Arc::clone(self), id: id.clone(), kept: false }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<VolumeId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// The volume is live from now on.
    pub fn live(self, volume: Arc<Volume>) {
        self.keep(Entry::Live(volume));
    }

    /// The volume could not be removed: whose it is is remembered for the unpublish that does it.
    pub fn stuck(self, volume: Arc<Volume>) {
        self.keep(Entry::Stuck(volume));
    }

    fn keep(mut self, entry: Entry) {
        self.kept = true;
        self.volumes.entries().insert(self.id.clone(), entry);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.kept {
            self.volumes.entries().remove(&self.id);
        }
    }
}

fn busy(id: &VolumeId, doing: &str) -> Error {
    Error::new(Kind::Busy, format!("volume {id} is {doing}; try again"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::engine_half::testing;

    fn volumes() -> (Arc<Volumes>, VolumeId) {
        (Arc::default(), VolumeId::try_from("csi-1".to_owned()).unwrap())
    }

    #[test]
    fn only_one_is_alone_with_a_volume_that_is_being_delivered() {
        let (volumes, id) = volumes();
        let Publish::First(claim) = volumes.publish(&id, &testing::subject(&id)).unwrap() else {
            panic!("the volume is new")
        };
        assert_eq!(volumes.publish(&id, &testing::subject(&id)).err().unwrap().kind(), Kind::Busy);
        assert_eq!(volumes.unpublish(&id).err().unwrap().kind(), Kind::Busy);
        assert!(volumes.get(&id).is_none());
        drop(claim);
        assert!(matches!(volumes.publish(&id, &testing::subject(&id)).unwrap(), Publish::First(_)));
    }

    #[test]
    fn a_live_volume_is_open_to_every_publish() {
        let (volumes, id) = volumes();
        let Publish::First(claim) = volumes.publish(&id, &testing::subject(&id)).unwrap() else {
            panic!("the volume is new")
        };
        claim.live(testing::volume(&id));
        for _ in 0..2 {
            assert!(matches!(volumes.publish(&id, &testing::subject(&id)).unwrap(), Publish::Again(_)));
        }
        assert_eq!(volumes.live().len(), 1);
    }

    #[test]
    fn an_unpublish_ends_the_volume_for_everybody_else() {
        let (volumes, id) = volumes();
        let Publish::First(claim) = volumes.publish(&id, &testing::subject(&id)).unwrap() else {
            panic!("the volume is new")
        };
        claim.live(testing::volume(&id));
        let (volume, claim) = volumes.unpublish(&id).unwrap();
        assert!(volume.unwrap().is_leaving());
        assert_eq!(volumes.publish(&id, &testing::subject(&id)).err().unwrap().kind(), Kind::Busy);
        assert_eq!(volumes.unpublish(&id).err().unwrap().kind(), Kind::Busy);
        drop(claim);
        let (volume, _claim) = volumes.unpublish(&id).unwrap();
        assert!(volume.is_none());
    }
}
