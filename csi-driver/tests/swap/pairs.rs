// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A certificate and its key, replaced without pause: whoever reads them in a safe way has both of one pair, and whoever starts at
//! any moment ends with the newest.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use evanesce_engine::projection::Projection;
use rcgen::{CertificateParams, KeyPair};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::chance::{Chance, seed};
use crate::counts;
use crate::ground::{Finished, files, read_beneath, refresh, volume};

/// How many pairs there are: each takes its turn.
const PAIRS: usize = 16;
const FILES: [&str; 2] = ["tls.crt", "tls.key"];

/// Certificates with their keys, as PEM. Certificates differ in their names' lengths, so that a torn file is seen.
fn pairs() -> Vec<(String, String)> {
    let pair = |number: usize| {
        let key = KeyPair::generate().unwrap();
        let name = format!("{}.example", "x".repeat(1 + number));
        let certificate = CertificateParams::new(vec![name]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    (0..PAIRS).map(pair).collect()
}

/// The pair of a round as two files, and as one for those who read one.
fn shown(pairs: &[(String, String)], round: u32) -> Projection {
    let (certificate, key) = &pairs[round as usize % PAIRS];
    let both = format!("{certificate}{key}");
    files([(FILES[0], certificate.clone()), (FILES[1], key.clone()), ("tls.pem", both)])
}

/// Whether a TLS server would take them.
fn belong_together(certificate: &str, key: &str) -> bool {
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    CertifiedKey::new(chain, any_supported_type(&key).unwrap()).keys_match().is_ok()
}

#[test]
fn a_certificate_that_is_read_in_a_safe_way_has_its_own_key_beside_it() {
    type Reader = fn(&Path) -> (String, String);
    let beneath: Reader = |root| read_beneath(root, FILES).into();
    let combined: Reader = |root| {
        let both = fs::read_to_string(root.join("tls.pem")).unwrap();
        (both.clone(), both)
    };
    let pairs = pairs();
    assert!(!belong_together(&pairs[0].0, &pairs[1].1), "what is looked for can be found");
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let (root, volume) = (folder.path(), volume(folder.path()));
    let rotations = counts::PAIR_ROTATIONS.get();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(refresh(&volume, 0..1, |round| shown(&pairs, round), &[]));
    let (reads, stop) = ([AtomicU64::new(0), AtomicU64::new(0)], AtomicBool::new(false));
    let mismatches = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for (read, reads) in [beneath, combined].into_iter().zip(&reads) {
            let (stop, mismatches) = (&stop, &mismatches);
            scope.spawn(move || {
                let finished = Finished(reads);
                while !stop.load(Ordering::Relaxed) {
                    let (certificate, key) = read(root);
                    mismatches.fetch_add((!belong_together(&certificate, &key)).into(), Ordering::Relaxed);
                    finished.0.fetch_add(1, Ordering::Release);
                }
                println!("{} reads during {rotations} rotations", finished.0.load(Ordering::Relaxed));
            });
        }
        runtime.block_on(refresh(&volume, 1..rotations + 1, |round| shown(&pairs, round), &reads));
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(mismatches.load(Ordering::Relaxed), 0);
}

/// An application that follows `docs/reading-secrets.md`: it watches before it reads, and reads again whenever it is told.
struct Application<'a> {
    root: &'a Path,
    watch: OwnedFd,
    holds: [String; 2],
}

impl<'a> Application<'a> {
    fn start(root: &'a Path) -> Self {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&watch, root, inotify::WatchFlags::MOVED_TO).unwrap();
        Self { root, watch, holds: read_beneath(root, FILES) }
    }

    /// Waits for a moment; `false` where it was told nothing.
    fn look(&mut self) -> bool {
        let moment = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
        let told = poll(&mut [PollFd::from_borrowed_fd(self.watch.as_fd(), PollFlags::IN)], Some(&moment)).unwrap() > 0;
        if told {
            // All that was said so far is answered by one read after it.
            let mut events = [std::mem::MaybeUninit::uninit(); 4096];
            let mut reader = inotify::Reader::new(&self.watch, &mut events);
            while reader.next().is_ok() {}
            self.holds = read_beneath(self.root, FILES);
        }
        told
    }
}

#[test]
fn an_application_that_starts_at_any_moment_of_a_rotation_ends_with_the_newest_pair() {
    const APPLICATIONS: usize = 4;
    let (seed, pairs) = (seed(), pairs());
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let (root, volume) = (folder.path(), volume(folder.path()));
    let rotations = counts::STARTS_IN_ROTATIONS.get();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(refresh(&volume, 0..1, |round| shown(&pairs, round), &[]));
    let (certificate, key) = pairs[rotations as usize % PAIRS].clone();
    let newest = [certificate, key];
    let (over, starts) = (AtomicBool::new(false), AtomicU32::new(0));
    let reads: [AtomicU64; APPLICATIONS] = Default::default();
    std::thread::scope(|scope| {
        for (number, reads) in reads.iter().enumerate() {
            let (over, starts, newest) = (&over, &starts, &newest);
            scope.spawn(move || {
                let finished = Finished(reads);
                let mut chance = Chance::new(seed, number as u64);
                let mut application = Application::start(root);
                let mut life = chance.below(8);
                while !over.load(Ordering::Acquire) {
                    if life == 0 {
                        application = Application::start(root);
                        starts.fetch_add(1, Ordering::Relaxed);
                        life = chance.below(8);
                    } else {
                        application.look();
                        life -= 1;
                    }
                    finished.0.fetch_add(1, Ordering::Release);
                }
                // What it was told already it still has to read; nobody tells it anything new.
                let begun = Instant::now();
                while application.look() {
                    assert!(begun.elapsed().as_secs() < 20, "seed {seed}: it is told again and again");
                }
                assert!(application.holds == *newest, "seed {seed}: it holds a pair that is not shown any more");
            });
        }
        runtime.block_on(refresh(&volume, 1..rotations + 1, |round| shown(&pairs, round), &reads));
        over.store(true, Ordering::Release);
    });
    let starts = starts.load(Ordering::Relaxed);
    println!("{starts} starts during {rotations} rotations");
    assert!(starts > 100, "hardly anybody started");
}
