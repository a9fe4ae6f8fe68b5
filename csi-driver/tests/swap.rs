// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Readers of a volume that is refreshed without pause, on a real tmpfs: the two safe ways of reading never see a mixed or
//! missing set, and the unsafe one is measured. `docs/reading-secrets.md` has the figure.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "the measured rate is what a reader of the test's output looks for")]

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::read_to_string;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

#[path = "../../integration/src/counts.rs"]
#[allow(dead_code, unreachable_pub, reason = "the one table of counts; its other rows are for other tests")]
mod counts;

/// How many old generations there may be before the swaps wait for the slowest reader.
const KEPT: usize = 64;

/// How a round is written, and how far apart the combined file's copies of it are: not within one page.
const DIGITS: usize = 8;
const GAP: usize = 8000;

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

/// Three files that say which round they are of; the third says it twice, far apart.
fn projection(round: u32) -> Projection {
    let round = format!("{round:0DIGITS$}");
    let both = format!("{round}{}{round}", " ".repeat(GAP));
    let mut projection = Projection::default();
    for (path, text) in [("username", round.clone()), ("password", round), ("both", both)] {
        let bytes = SecretBytes::new(text.into_bytes());
        let file = projection::File { bytes, mode: Mode::OWNER_READS, uid: 0, gid: 0 };
        projection.add(FilePath::parse(path).unwrap(), file).unwrap();
    }
    projection
}

fn volume(root: &Path) -> Volume {
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
struct Finished<'a>(&'a AtomicU64);

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        self.0.store(u64::MAX, Ordering::Release);
    }
}

/// Shows round after round. What keepPrevious promises in time is kept here in reads, for the swaps are faster than any
/// clock: a generation stays until every read that began before it was replaced has ended.
async fn refresh(volume: &Volume, rounds: Range<u32>, readers: &[AtomicU64]) {
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

/// What a reader saw.
#[derive(Default)]
struct Seen {
    reads: u64,
    mixed: u64,
    rounds: u64,
    last: String,
}

impl Seen {
    /// Counts a read of what should be of one round.
    fn note(&mut self, parts: &[&str]) {
        assert!(parts.iter().all(|part| !part.is_empty()), "an empty file: {parts:?}");
        self.reads += 1;
        self.mixed += u64::from(parts.iter().any(|part| *part != parts[0]));
        if self.last != parts[0] {
            self.rounds += 1;
            parts[0].clone_into(&mut self.last);
        }
    }
}

/// The two copies of the round in the combined file.
fn halves(both: &str) -> [&str; 2] {
    assert_eq!(both.len(), 2 * DIGITS + GAP, "a torn file");
    [&both[..DIGITS], &both[DIGITS + GAP..]]
}

/// Opens `..data` once and everything beneath what it holds.
fn read_beneath(root: &Path, seen: &mut Seen) {
    let generation = File::open(root.join("..data")).unwrap();
    let [username, password, both] = ["username", "password", "both"].map(|name| {
        let file = openat(&generation, name, OFlags::RDONLY | OFlags::CLOEXEC, Bits::empty()).unwrap();
        read_to_string(File::from(file)).unwrap()
    });
    let [first, second] = halves(&both);
    seen.note(&[&username, &password, first, second]);
}

/// Opens one file that holds all that belongs together.
fn read_combined(root: &Path, seen: &mut Seen) {
    seen.note(&halves(&fs::read_to_string(root.join("both")).unwrap()));
}

/// Opens two paths one after the other, as one should not.
fn read_two_paths(root: &Path, seen: &mut Seen) {
    let [username, password] = ["username", "password"].map(|name| fs::read_to_string(root.join(name)).unwrap());
    seen.note(&[&username, &password]);
}

#[test]
fn a_reader_that_opens_data_once_or_one_file_never_sees_a_mixed_or_missing_set() {
    type Reader = fn(&Path, &mut Seen);
    let readers: [(&str, Reader); 3] =
        [("one open of ..data", read_beneath), ("one combined file", read_combined), ("two paths", read_two_paths)];
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let root = folder.path();
    let volume = volume(root);
    let swaps = counts::SWAPS.get();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(refresh(&volume, 0..1, &[]));
    let (reads, stop) = (readers.map(|_| AtomicU64::new(0)), AtomicBool::new(false));
    let seen = std::thread::scope(|scope| {
        let threads: Vec<_> = readers
            .iter()
            .zip(&reads)
            .map(|((_, read), reads)| {
                let stop = &stop;
                scope.spawn(move || {
                    let finished = Finished(reads);
                    let mut seen = Seen::default();
                    while !stop.load(Ordering::Relaxed) {
                        read(root, &mut seen);
                        finished.0.fetch_add(1, Ordering::Release);
                    }
                    seen
                })
            })
            .collect();
        runtime.block_on(refresh(&volume, 1..swaps + 1, &reads));
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    for ((name, _), Seen { reads, mixed, rounds, .. }) in readers.iter().zip(&seen) {
        println!("{name}: {reads} reads during {swaps} swaps saw {rounds} sets, {mixed} of them mixed");
        assert!(*rounds > 10, "{name}: the reader saw no swaps");
    }
    assert_eq!((seen[0].mixed, seen[1].mixed), (0, 0));
}
