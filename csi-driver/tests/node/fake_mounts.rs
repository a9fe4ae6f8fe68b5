// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A warden without root: a volume is a folder, a mount is a link to it. It counts every call, and each can be made to
//! fail or to hang.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use evanesce_csi::engine_half::journal::Journal;
use evanesce_csi::engine_half::mounts::Mounts;
use evanesce_csi::protocol::{LeaseGroupId, Owner, TargetPath, VolumeId, VolumePath};
use evanesce_engine::error::{Error, Kind};
use tempfile::TempDir;
use tokio::sync::Semaphore;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Call {
    Make,
    Own,
    Attach,
    Resize,
    IsAttached,
    Detach,
    Adopt,
    PutRecord,
    DropRecord,
    NextRecord,
    AnyUnknown,
    PutLease,
    DropLease,
    NextLease,
}

pub(crate) struct FakeMounts {
    folder: TempDir,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    volumes: HashMap<VolumeId, Kept>,
    records: BTreeMap<VolumeId, Vec<u8>>,
    leases: BTreeMap<LeaseGroupId, Vec<u8>>,
    /// Since the last engine half began.
    adopted: HashSet<VolumeId>,
    owned: Vec<Owner>,
    counts: HashMap<Call, u64>,
    failures: HashMap<Call, VecDeque<Kind>>,
    gates: HashMap<Call, Arc<Semaphore>>,
    /// What the next call's slowness comes from; each is as fast as it can where there is nothing.
    slowness: Option<u64>,
    made: u64,
}

struct Kept {
    folder: PathBuf,
    target: Option<TargetPath>,
    size: u64,
    inodes: u64,
}

/// What a target shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum At {
    /// Nothing, and there is no such volume.
    Nothing,
    /// Nothing, but the volume is made.
    Detached,
    /// The volume.
    Mounted,
    /// Something else.
    Another,
}

impl FakeMounts {
    pub(crate) fn new() -> Self {
        // In memory, as volumes are.
        Self { folder: tempfile::tempdir_in("/dev/shm").unwrap(), state: Mutex::default() }
    }

    /// The directory that targets lie beneath.
    pub(crate) fn pods(&self) -> PathBuf {
        self.folder.path().join("pods")
    }

    pub(crate) fn count(&self, call: Call) -> u64 {
        self.state().counts.get(&call).copied().unwrap_or(0)
    }

    pub(crate) fn fail_next(&self, call: Call, kind: Kind) {
        self.state().failures.entry(call).or_default().push_back(kind);
    }

    /// Stops every such call that comes from now on.
    pub(crate) fn hold(&self, call: Call) {
        self.state().gates.insert(call, Arc::new(Semaphore::new(0)));
    }

    /// Lets the stopped calls go on, and all later ones.
    pub(crate) fn release(&self, call: Call) {
        if let Some(gate) = self.state().gates.remove(&call) {
            gate.close();
        }
    }

    /// Every call takes its time from now on, one more and another less.
    pub(crate) fn dawdle(&self, seed: u64) {
        self.state().slowness = Some(seed);
    }

    /// What a neighbour with root might do.
    pub(crate) fn unmount(&self, target: &Path) {
        fs::remove_file(target).unwrap();
    }

    /// What the warden does when an engine half is gone.
    pub(crate) fn forget_unattached(&self) {
        self.state().volumes.retain(|_, kept| kept.target.is_some());
    }

    /// Whether something sits at the target, and whether it is this volume and the only one of its name.
    pub(crate) fn at(&self, volume: &str, target: &TargetPath) -> At {
        let state = self.state();
        match (shown(target), state.volumes.get(&volume.parse().unwrap())) {
            (None, None) => At::Nothing,
            (None, Some(_)) => At::Detached,
            (Some(there), Some(kept)) if there == kept.folder => At::Mounted,
            (Some(_), _) => At::Another,
        }
    }

    /// How many volumes there are, shown or not.
    pub(crate) fn volumes(&self) -> usize {
        self.state().volumes.len()
    }

    pub(crate) fn records(&self) -> BTreeMap<VolumeId, Vec<u8>> {
        self.state().records.clone()
    }

    /// The groups that the journal names.
    pub(crate) fn leases(&self) -> Vec<LeaseGroupId> {
        self.state().leases.keys().cloned().collect()
    }

    pub(crate) fn set_record(&self, volume: &str, record: Vec<u8>) {
        self.state().records.insert(volume.parse().unwrap(), record);
    }

    pub(crate) fn remove_record(&self, volume: &str) {
        self.state().records.remove(&volume.parse::<VolumeId>().unwrap());
    }

    /// Size and inodes.
    pub(crate) fn size(&self, volume: &str) -> (u64, u64) {
        let state = self.state();
        let kept = &state.volumes[&volume.parse().unwrap()];
        (kept.size, kept.inodes)
    }

    /// Every file that was given an owner, in order.
    pub(crate) fn owned(&self) -> Vec<Owner> {
        self.state().owned.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn enter(&self, call: Call) -> Result<(), Error> {
        let (gate, slowness) = {
            let mut state = self.state();
            *state.counts.entry(call).or_default() += 1;
            state.slowness = state.slowness.map(|before| before.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1));
            (state.gates.get(&call).cloned(), state.slowness.unwrap_or(0) >> 58)
        };
        for _ in 0..slowness {
            tokio::task::yield_now().await;
        }
        if let Some(gate) = gate {
            let _ = gate.acquire().await;
        }
        match self.state().failures.get_mut(&call).and_then(VecDeque::pop_front) {
            Some(kind) => Err(Error::new(kind, format!("the fake was told to fail: {call:?}"))),
            None => Ok(()),
        }
    }
}

/// What the link at the target points to; nothing where there is none.
fn shown(target: &TargetPath) -> Option<PathBuf> {
    fs::read_link(target.as_str()).ok()
}

fn busy(text: &str) -> Error {
    Error::new(Kind::Busy, text.to_owned())
}

#[async_trait]
impl Mounts for FakeMounts {
    async fn make(&self, volume: &VolumeId, size: u64, inodes: u64) -> Result<OwnedFd, Error> {
        self.enter(Call::Make).await?;
        let mut state = self.state();
        if state.volumes.get(volume).is_some_and(|kept| kept.target.is_some()) {
            return Err(busy("make: the volume is attached"));
        }
        state.made += 1;
        let folder = self.folder.path().join(format!("{volume}.{}", state.made));
        fs::create_dir(&folder).unwrap();
        let root = fs::File::open(&folder).unwrap().into();
        state.volumes.insert(volume.clone(), Kept { folder, target: None, size, inodes });
        Ok(root)
    }

    async fn own(&self, volume: &VolumeId, files: Vec<(VolumePath, Owner)>) -> Result<(), Error> {
        self.enter(Call::Own).await?;
        let mut state = self.state();
        let folder = state.volumes.get(volume).ok_or_else(|| Error::missing("own: no such volume"))?.folder.clone();
        for (path, owner) in files {
            assert!(folder.join(path.as_str()).is_file(), "own: {path} is no file of the volume");
            state.owned.push(owner);
        }
        Ok(())
    }

    async fn attach(&self, volume: &VolumeId, target: &TargetPath) -> Result<Vec<String>, Error> {
        self.enter(Call::Attach).await?;
        let mut state = self.state();
        let kept = state.volumes.get_mut(volume).ok_or_else(|| Error::missing("attach: no such volume"))?;
        match shown(target) {
            Some(there) if there == kept.folder => {}
            Some(_) => return Err(busy("attach: something else is there")),
            None => {
                fs::create_dir_all(Path::new(target.as_str()).parent().unwrap()).unwrap();
                symlink(&kept.folder, target.as_str()).unwrap();
            }
        }
        kept.target = Some(target.clone());
        Ok(["ro", "nosuid", "nodev", "noexec", "noswap"].map(str::to_owned).into())
    }

    async fn resize(&self, volume: &VolumeId, size: u64) -> Result<(), Error> {
        self.enter(Call::Resize).await?;
        self.state().volumes.get_mut(volume).unwrap().size = size;
        Ok(())
    }

    async fn is_attached(&self, volume: &VolumeId, target: &TargetPath) -> Result<bool, Error> {
        self.enter(Call::IsAttached).await?;
        let state = self.state();
        Ok(state.volumes.get(volume).is_some_and(|kept| shown(target).as_ref() == Some(&kept.folder)))
    }

    async fn detach(&self, volume: &VolumeId, target: &TargetPath) -> Result<(), Error> {
        self.enter(Call::Detach).await?;
        let mut state = self.state();
        let ours = state.volumes.get(volume).map(|kept| kept.folder.clone());
        match (shown(target), ours) {
            (Some(there), Some(ours)) if there == ours => fs::remove_file(target.as_str()).unwrap(),
            (Some(_), _) => return Err(busy("detach: something else is there")),
            (None, _) => {}
        }
        if let Some(kept) = state.volumes.remove(volume) {
            fs::remove_dir_all(kept.folder).unwrap();
        }
        Ok(())
    }

    async fn adopt(&self, volume: &VolumeId, target: &TargetPath) -> Result<Option<OwnedFd>, Error> {
        self.enter(Call::Adopt).await?;
        let mut state = self.state();
        match state.volumes.get(volume) {
            Some(kept) if shown(target).as_ref() == Some(&kept.folder) => {
                let root = fs::File::open(&kept.folder).unwrap().into();
                state.adopted.insert(volume.clone());
                Ok(Some(root))
            }
            _ => {
                state.volumes.remove(volume);
                Ok(None)
            }
        }
    }

    async fn put_record(&self, volume: &VolumeId, record: Vec<u8>) -> Result<(), Error> {
        self.enter(Call::PutRecord).await?;
        self.state().records.insert(volume.clone(), record);
        Ok(())
    }

    async fn drop_record(&self, volume: &VolumeId) -> Result<(), Error> {
        self.enter(Call::DropRecord).await?;
        self.state().records.remove(volume);
        Ok(())
    }

    async fn any_unknown(&self) -> Result<bool, Error> {
        self.enter(Call::AnyUnknown).await?;
        let state = self.state();
        let mut attached = state.volumes.iter().filter(|(_, kept)| kept.target.is_some());
        Ok(attached.any(|(volume, _)| !state.adopted.contains(volume)))
    }

    async fn next_record(&self, after: Option<&VolumeId>) -> Result<Option<(VolumeId, Vec<u8>)>, Error> {
        self.enter(Call::NextRecord).await?;
        let mut state = self.state();
        if after.is_none() {
            state.adopted.clear();
        }
        let next = state.records.iter().find(|(volume, _)| after.is_none_or(|after| *volume > after));
        Ok(next.map(|(volume, record)| (volume.clone(), record.clone())))
    }
}

#[async_trait]
impl Journal for FakeMounts {
    async fn put_lease(&self, group: &LeaseGroupId, entry: Vec<u8>) -> Result<(), Error> {
        self.enter(Call::PutLease).await?;
        self.state().leases.insert(group.clone(), entry);
        Ok(())
    }

    async fn drop_lease(&self, group: &LeaseGroupId) -> Result<(), Error> {
        self.enter(Call::DropLease).await?;
        self.state().leases.remove(group);
        Ok(())
    }

    async fn next_lease(&self, after: Option<&LeaseGroupId>) -> Result<Option<(LeaseGroupId, Vec<u8>)>, Error> {
        self.enter(Call::NextLease).await?;
        let state = self.state();
        let next = state.leases.iter().find(|(group, _)| after.is_none_or(|after| *group > after));
        Ok(next.map(|(group, entry)| (group.clone(), entry.clone())))
    }
}
