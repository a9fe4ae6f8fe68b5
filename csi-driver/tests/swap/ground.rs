// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A volume on a real tmpfs that is refreshed without pause.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use evanesce_csi::engine_half::budget::Budget;
use evanesce_csi::engine_half::mounts::Mounts;
use evanesce_csi::engine_half::tmpfs_target::{RefreshTarget, remove};
use evanesce_csi::engine_half::volume::{State, Volume};
use evanesce_csi::protocol::{Owner, TargetPath, VolumeId, VolumePath};
use evanesce_engine::audit::Subject;
use evanesce_engine::deliver::Before;
use evanesce_engine::error::Error;
use evanesce_engine::generation::Generations;
use evanesce_engine::names::{Namespace, NodeName, PodName, PodUid, ServiceAccountName, VolumeClassName};
use evanesce_engine::projection::{self, DigestKey, FilePath, Mode, Projection};
use evanesce_engine::secret::SecretBytes;
use evanesce_engine::spec::VolumeSpec;
use evanesce_engine::spec::volume::{LeaseScope, Refresh};
use evanesce_engine::target::Target;
use evanesce_engine::token::Tokens;
use evanesce_engine::workload::Workload;
use rustix::fs::{Mode as Bits, OFlags, openat};
use tokio::time::Instant;

/// How many old generations there may be before the swaps wait for the slowest reader.
const KEPT: usize = 64;

/// Everything is granted: the volume is a folder of a tmpfs that is there.
struct Granted;

#[async_trait]
impl Mounts for Granted {
    async fn make(&self, _: &VolumeId, _: u64, _: u64) -> Result<OwnedFd, Error> {
        Err(Error::internal("a refresh makes no volume"))
    }

    async fn own(&self, _: &VolumeId, _: Vec<(VolumePath, Owner)>) -> Result<(), Error> {
        Ok(())
    }

    async fn attach(&self, _: &VolumeId, _: &TargetPath) -> Result<Vec<String>, Error> {
        Err(Error::internal("a refresh attaches nothing"))
    }

    async fn resize(&self, _: &VolumeId, _: u64) -> Result<(), Error> {
        Ok(())
    }

    async fn is_attached(&self, _: &VolumeId, _: &TargetPath) -> Result<bool, Error> {
        Ok(true)
    }

    async fn detach(&self, _: &VolumeId, _: &TargetPath) -> Result<(), Error> {
        Ok(())
    }

    async fn adopt(&self, _: &VolumeId, _: &TargetPath) -> Result<Option<OwnedFd>, Error> {
        Ok(None)
    }

    async fn put_record(&self, _: &VolumeId, _: Vec<u8>) -> Result<(), Error> {
        Ok(())
    }

    async fn drop_record(&self, _: &VolumeId) -> Result<(), Error> {
        Ok(())
    }

    async fn next_record(&self, _: Option<&VolumeId>) -> Result<Option<(VolumeId, Vec<u8>)>, Error> {
        Ok(None)
    }

    async fn any_unknown(&self) -> Result<bool, Error> {
        Ok(false)
    }
}

fn spec() -> VolumeSpec {
    VolumeSpec {
        refresh: Refresh::default(),
        keep_previous: VolumeSpec::DEFAULT_KEEP_PREVIOUS,
        overlap: VolumeSpec::DEFAULT_OVERLAP,
        lease_scope: LeaseScope::default(),
        max_stale: None,
        size: None,
        files: Vec::new(),
    }
}

/// Files of the pod's own.
pub(crate) fn files<'a>(files: impl IntoIterator<Item = (&'a str, String)>) -> Projection {
    let mut projection = Projection::default();
    for (path, text) in files {
        let bytes = SecretBytes::new(text.into_bytes());
        let file = projection::File { bytes, mode: Mode::OWNER_READS, uid: 0, gid: 0 };
        projection.add(FilePath::parse(path).unwrap(), file).unwrap();
    }
    projection
}

/// Opens `..data` once and everything beneath what it holds.
pub(crate) fn read_beneath<const N: usize>(root: &Path, names: [&str; N]) -> [String; N] {
    let generation = File::open(root.join("..data")).unwrap();
    names.map(|name| {
        let file = openat(&generation, name, OFlags::RDONLY | OFlags::CLOEXEC, Bits::empty()).unwrap();
        std::io::read_to_string(File::from(file)).unwrap()
    })
}

pub(crate) fn volume(root: &Path) -> Volume {
    let id: VolumeId = "csi-1".parse().unwrap();
    let workload = Workload {
        namespace: Namespace::parse("payments").unwrap(),
        service_account: ServiceAccountName::parse("app").unwrap(),
        pod: PodName::parse("web-0").unwrap(),
        pod_uid: PodUid::parse("pod-1").unwrap(),
        node: NodeName::parse("node-1").unwrap(),
    };
    let size = Budget::new(u64::MAX, u64::MAX).reserve(&workload.namespace, 1 << 20).unwrap();
    let state = State {
        before: None,
        retired: Default::default(),
        size,
        refresh: Refresh::default(),
        keep_previous: Duration::ZERO,
        overlap: Duration::ZERO,
        borrowed: Default::default(),
        max_stale: None,
        mark: None,
        said_too_old: false,
        recorded: true,
        generation: 1,
        life: None,
        renew: None,
    };
    let class = VolumeClassName::parse("db").unwrap();
    let subject = Subject { volume: id.to_string(), workload, class };
    let generations = Arc::new(Generations::new(File::open(root).unwrap().into()));
    let target = TargetPath::try_from(root.to_str().unwrap().to_owned()).unwrap();
    Volume::new(id, target, subject, None, Tokens::default(), generations, state)
}

/// How many reads each reader has finished; one that ended does not hold up the swaps.
pub(crate) struct Finished<'a>(pub(crate) &'a AtomicU64);

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        self.0.store(u64::MAX, Ordering::Release);
    }
}

/// Shows round after round. What keepPrevious promises in time is kept here in reads, for the swaps are faster than any
/// clock: a generation stays until every read that began before it was replaced has ended.
pub(crate) async fn refresh(
    volume: &Volume,
    rounds: Range<u32>,
    projection: impl Fn(u32) -> Projection,
    readers: &[AtomicU64],
) {
    let mut state = volume.state.lock().await;
    let mut retired = VecDeque::new();
    let digest = Projection::default().digest(&DigestKey::new(&[0; 32]));
    let shows = Before { secrets: Vec::new(), digest, revision: 0, due: None };
    for round in rounds {
        let target =
            RefreshTarget { mounts: &Granted, volume, state: (&mut *state).into(), keep_until: Instant::now() };
        target.place(&spec(), projection(round), &shows).await.unwrap();
        let under_way: Vec<_> = readers.iter().map(|reads| reads.load(Ordering::Acquire)).collect();
        retired.extend(state.retired.drain(..).map(|(number, _)| (number, under_way.clone())));
        while let Some((number, begun)) = retired.front() {
            let ended = readers.iter().zip(begun).all(|(reads, begun)| {
                let now = reads.load(Ordering::Acquire);
                now > *begun || now == u64::MAX
            });
            if ended {
                remove(&volume.generations, *number).await.unwrap();
                retired.pop_front();
            } else if retired.len() > KEPT {
                std::thread::yield_now();
            } else {
                break;
            }
        }
    }
}
