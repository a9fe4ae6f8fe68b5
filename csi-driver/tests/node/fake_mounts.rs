// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A warden without root: a volume is a folder, a mount is a link to it. It counts every call, and each can be made to
//! fail or to hang.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use evanesce_csi::engine_half::mounts::Mounts;
use evanesce_csi::protocol::{Owner, TargetPath, VolumeId};
use evanesce_engine::error::{Error, Kind};
use tempfile::TempDir;
use tokio::sync::Semaphore;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
}

pub(crate) struct FakeMounts {
    folder: TempDir,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    volumes: HashMap<VolumeId, Kept>,
    records: BTreeMap<VolumeId, Vec<u8>>,
    owned: Vec<Owner>,
    counts: HashMap<Call, u64>,
    failures: HashMap<Call, VecDeque<Kind>>,
    gates: HashMap<Call, Arc<Semaphore>>,
    made: u64,
}

struct Kept {
    folder: PathBuf,
    size: u64,
    inodes: u64,
}

impl FakeMounts {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), state: Mutex::default() }
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

    /// What a neighbour with root might do.
    pub(crate) fn unmount(&self, target: &Path) {
        fs::remove_file(target).unwrap();
    }

    /// How many volumes there are, shown or not.
    pub(crate) fn volumes(&self) -> usize {
        self.state().volumes.len()
    }

    pub(crate) fn records(&self) -> BTreeMap<VolumeId, Vec<u8>> {
        self.state().records.clone()
    }

    pub(crate) fn set_record(&self, volume: &str, record: Vec<u8>) {
        self.state().records.insert(volume.parse().unwrap(), record);
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
        let gate = {
            let mut state = self.state();
            *state.counts.entry(call).or_default() += 1;
            state.gates.get(&call).cloned()
        };
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
        state.made += 1;
        let folder = self.folder.path().join(format!("{volume}.{}", state.made));
        fs::create_dir(&folder).unwrap();
        let root = fs::File::open(&folder).unwrap().into();
        state.volumes.insert(volume.clone(), Kept { folder, size, inodes });
        Ok(root)
    }

    async fn own(&self, files: Vec<(OwnedFd, Owner)>) -> Result<(), Error> {
        self.enter(Call::Own).await?;
        self.state().owned.extend(files.into_iter().map(|(_, owner)| owner));
        Ok(())
    }

    async fn attach(&self, volume: &VolumeId, target: &TargetPath) -> Result<Vec<String>, Error> {
        self.enter(Call::Attach).await?;
        let state = self.state();
        let kept = state.volumes.get(volume).ok_or_else(|| Error::missing("attach: no such volume"))?;
        match shown(target) {
            Some(there) if there == kept.folder => {}
            Some(_) => return Err(busy("attach: something else is there")),
            None => {
                fs::create_dir_all(Path::new(target.as_str()).parent().unwrap()).unwrap();
                symlink(&kept.folder, target.as_str()).unwrap();
            }
        }
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
                Ok(Some(fs::File::open(&kept.folder).unwrap().into()))
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

    async fn next_record(&self, after: Option<&VolumeId>) -> Result<Option<(VolumeId, Vec<u8>)>, Error> {
        self.enter(Call::NextRecord).await?;
        let state = self.state();
        let next = state.records.iter().find(|(volume, _)| after.is_none_or(|after| *volume > after));
        Ok(next.map(|(volume, record)| (volume.clone(), record.clone())))
    }
}
