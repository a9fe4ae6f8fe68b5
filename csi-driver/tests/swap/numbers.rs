// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Two files and one that hold the same number: the two safe ways of reading never see a mixed or missing set, and the unsafe one
//! is measured. `docs/reading-secrets.md` has the figure.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use evanesce_engine::projection::Projection;

use crate::counts;
use crate::ground::{self, Finished, files, refresh, volume};

/// How a round is written, and how far apart the combined file's copies of it are: not within one page.
const DIGITS: usize = 8;
const GAP: usize = 8000;

/// Three files that say which round they are of; the third says it twice, far apart.
fn projection(round: u32) -> Projection {
    let round = format!("{round:0DIGITS$}");
    let both = format!("{round}{}{round}", " ".repeat(GAP));
    files([("username", round.clone()), ("password", round), ("both", both)])
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
    let [username, password, both] = ground::read_beneath(root, ["username", "password", "both"]);
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
    runtime.block_on(refresh(&volume, 0..1, projection, &[]));
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
        runtime.block_on(refresh(&volume, 1..swaps + 1, projection, &reads));
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    for ((name, _), Seen { reads, mixed, rounds, .. }) in readers.iter().zip(&seen) {
        println!("{name}: {reads} reads during {swaps} swaps saw {rounds} sets, {mixed} of them mixed");
        assert!(*rounds > 10, "{name}: the reader saw no swaps");
    }
    assert_eq!((seen[0].mixed, seen[1].mixed), (0, 0));
}
