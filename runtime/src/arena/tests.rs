// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;

use super::*;

const PAGE: usize = 4096;

/// One page of whatever kind, without needing a limit on locked memory.
fn page() -> Arena {
    Arena::open_as(ArenaKind::PlainMemory, PAGE).unwrap()
}

/// A page as another process would read it.
fn read_as_root(arena: &Arena) -> io::Result<Vec<u8>> {
    let mut seen = vec![0; arena.capacity()];
    let start = arena.0.map.start().addr().get() as u64;
    File::open("/proc/self/mem")?.read_exact_at(&mut seen, start)?;
    Ok(seen)
}

/// The flags of the mapping that the arena lies in. (The kernel joins neighbours that have the same.)
fn flags_of(arena: &Arena) -> String {
    let start = arena.0.map.start().addr().get();
    let holds = |line: &str| {
        let range = line.split(' ').next()?.split_once('-')?;
        let [low, high] = [range.0, range.1].map(|end| usize::from_str_radix(end, 16));
        Some((low.ok()?..high.ok()?).contains(&start))
    };
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut ours = maps.lines().skip_while(|line| holds(line) != Some(true));
    ours.find(|line| line.starts_with("VmFlags:")).unwrap().to_owned()
}

#[test]
fn a_value_comes_back_as_it_went_in() {
    for kind in ArenaKind::ALL {
        let arena = Arena::open_as(*kind, 3 * PAGE).unwrap();
        assert_eq!(arena.kind(), *kind);
        let long = vec![7; 2 * PAGE + 1];
        let values: Vec<_> = [b"s3cr3t".as_slice(), b"", &long].map(|value| arena.keep(value).unwrap()).into();
        assert_eq!(values[0].expose(), b"s3cr3t");
        assert!(values[1].is_empty() && values[1].expose().is_empty());
        assert_eq!((values[2].expose(), values[2].len()), (long.as_slice(), long.len()));
    }
}

#[test]
fn a_value_outlives_the_handle_and_the_thread_that_kept_it() {
    let arena = page();
    let kept = std::thread::spawn(move || arena.keep(b"s3cr3t").unwrap()).join().unwrap();
    assert_eq!(kept.expose(), b"s3cr3t");
}

#[test]
fn a_freed_slot_is_wiped_and_used_again() {
    let arena = page();
    let kept = arena.keep(b"s3cr3t").unwrap();
    let place = kept.start;
    assert!(read_as_root(&arena).unwrap().windows(6).any(|bytes| bytes == b"s3cr3t"), "the probe sees it alive");
    drop(kept);
    assert!(read_as_root(&arena).unwrap().iter().all(|byte| *byte == 0));
    assert_eq!(arena.used(), 0);
    assert_eq!(arena.keep(b"next").unwrap().start, place);
}

#[test]
fn a_full_arena_says_so_and_keeps_what_it_has() {
    let arena = page();
    let first = arena.keep(&[1; PAGE - 16]).unwrap();
    let error = arena.keep(&[2; 17]).map(|_| ()).unwrap_err();
    assert_eq!(error, ArenaError::Full { wanted: 17, largest_free: 16, capacity: PAGE });
    let last = arena.keep(&[3; 16]).unwrap();
    assert!(matches!(arena.keep(&[4]), Err(ArenaError::Full { largest_free: 0, .. })));
    assert!(first.expose().iter().all(|byte| *byte == 1) && last.expose() == [3; 16]);
}

#[test]
fn secret_memory_cannot_be_read_even_by_its_own_process_through_proc() {
    let arena = Arena::open_as(ArenaKind::SecretMemory, PAGE).unwrap();
    let kept = arena.keep(b"s3cr3t").unwrap();
    assert_eq!(read_as_root(&arena).unwrap_err().raw_os_error(), Some(libc::EIO));
    assert_eq!(kept.expose(), b"s3cr3t");
}

#[test]
fn each_kind_has_the_protection_it_is_named_for() {
    // proc(5), VmFlags: `lo` locked, `dd` not dumped, `dc` not copied to a child, `wf` wiped in a child.
    for (kind, flags) in [
        (ArenaKind::SecretMemory, ["lo", "dd", "dc"].as_slice()),
        (ArenaKind::LockedMemory, &["lo", "dd", "wf"]),
        (ArenaKind::PlainMemory, &["dd", "wf"]),
    ] {
        let arena = Arena::open_as(kind, PAGE).unwrap();
        let found = flags_of(&arena);
        for flag in flags {
            assert!(found.split(' ').any(|word| word == *flag), "{kind} lacks {flag}: {found}");
        }
    }
}

#[test]
fn the_best_kind_is_chosen_first() {
    assert_eq!(Arena::open(PAGE).unwrap().kind(), ArenaKind::SecretMemory);
}

#[test]
fn a_size_that_cannot_be_is_an_error() {
    for wanted in [0, usize::MAX, isize::MAX as usize] {
        assert_eq!(Arena::open(wanted).map(|_| ()).unwrap_err(), ArenaError::Capacity { wanted });
    }
}

#[test]
fn an_arena_prints_its_kind_and_size_and_nothing_it_holds() {
    let arena = page();
    let _kept = arena.keep(b"s3cr3t").unwrap();
    assert_eq!(format!("{arena:?}"), "Arena { kind: PlainMemory, capacity: 4096, .. }");
}

#[test]
fn many_threads_keep_and_drop_and_each_sees_its_own_bytes() {
    let arena = Arena::open_as(ArenaKind::PlainMemory, 16 * PAGE).unwrap();
    std::thread::scope(|scope| {
        for mark in 1..=8_u8 {
            let arena = arena.clone();
            scope.spawn(move || {
                for round in 1..=500_usize {
                    let kept = arena.keep(&vec![mark; round]).unwrap();
                    assert!(kept.expose().iter().all(|byte| *byte == mark));
                }
            });
        }
    });
    assert_eq!(arena.used(), 0);
}

proptest! {
    /// Random keeps and drops against a plain model: every living value stays what it was, freed space is whole again.
    #[test]
    fn living_values_never_overlap(steps in prop::collection::vec((any::<bool>(), 0..600_usize), 1..200)) {
        let arena = page();
        let mut living: Vec<(Kept, Vec<u8>)> = Vec::new();
        for (number, (free, size)) in steps.into_iter().enumerate() {
            if free && !living.is_empty() {
                living.swap_remove(size % living.len());
            } else {
                // Distinct from its neighbours in time, so that an overlap shows.
                let value: Vec<u8> = (0..size).map(|at| (number * 31 + at) as u8 | 1).collect();
                match arena.keep(&value) {
                    Ok(kept) => living.push((kept, value)),
                    Err(ArenaError::Full { wanted, largest_free, .. }) => prop_assert!(largest_free < wanted),
                    Err(error) => prop_assert!(false, "{error}"),
                }
            }
            for (kept, value) in &living {
                prop_assert_eq!(kept.expose(), value.as_slice());
            }
            let taken: usize = living.iter().map(|(kept, _)| kept.len().next_multiple_of(16)).sum();
            prop_assert_eq!(arena.used(), taken);
        }
        living.clear();
        prop_assert_eq!(arena.0.slots().largest(), arena.capacity());
    }
}
