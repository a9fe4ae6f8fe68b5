// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What is left in the heap after a block was freed, read as an attacker would: through `/proc/self/mem`.
//!
//! (Reading a freed block through its pointer would be undefined; the kernel may read any page that is mapped.)

#![expect(unsafe_code, reason = "one test allocates by hand, to show what the system's allocator leaves behind")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::os::unix::fs::FileExt;

use evanesce_runtime::alloc::ZeroOnFree;

#[global_allocator]
static A: ZeroOnFree = ZeroOnFree;

/// Large enough that the heap's own bookkeeping (the first bytes of a free block) covers little of it, small enough
/// that it is not unmapped when freed.
const SIZE: usize = 4096;
const MARK: u8 = 0xA5;

/// Reads this process's memory and allocates nothing while doing so, or it would overwrite what it looks for.
struct Probe {
    memory: File,
    seen: [u8; SIZE],
}

impl Probe {
    fn new() -> Self {
        Self { memory: File::open("/proc/self/mem").unwrap(), seen: [0; SIZE] }
    }

    /// How many marked bytes are at `address`.
    fn marks_at(&mut self, address: usize, size: usize) -> usize {
        let seen = &mut self.seen[..size];
        self.memory.read_exact_at(seen, address as u64).unwrap();
        seen.iter().filter(|byte| **byte == MARK).count()
    }
}

#[test]
fn the_probe_sees_what_the_systems_allocator_leaves_behind() {
    let mut probe = Probe::new();
    let layout = Layout::from_size_align(SIZE, 16).unwrap();
    // SAFETY: the block is as large as the layout says, written once, freed once, and not used after.
    let address = unsafe {
        let block = System.alloc(layout);
        block.write_bytes(MARK, SIZE);
        std::hint::black_box(block);
        System.dealloc(block, layout);
        block.addr()
    };
    assert!(probe.marks_at(address, SIZE) > SIZE / 2, "without a wipe the value outlives its block");
}

#[test]
fn a_freed_block_is_wiped() {
    let value = std::hint::black_box(vec![MARK; SIZE]);
    let mut probe = Probe::new();
    let address = value.as_ptr().addr();
    assert_eq!(probe.marks_at(address, SIZE), SIZE, "the probe reads the living value");
    drop(value);
    assert_eq!(probe.marks_at(address, SIZE), 0);
}

#[test]
fn the_block_that_a_growing_vector_leaves_behind_is_wiped() {
    let mut value = std::hint::black_box(vec![MARK; SIZE]);
    let mut probe = Probe::new();
    let before = value.as_ptr().addr();
    // A neighbour, and a factor no heap can satisfy in place.
    let neighbour = std::hint::black_box(vec![0_u8; SIZE]);
    value.reserve_exact(SIZE * 15);
    assert_ne!(value.as_ptr().addr(), before, "the vector moved");
    assert!(value.iter().all(|byte| *byte == MARK), "and took its bytes along");
    assert_eq!(probe.marks_at(before, SIZE), 0);
    drop(neighbour);
}

#[test]
fn the_end_that_a_shrinking_vector_gives_up_is_wiped() {
    let mut value = std::hint::black_box(vec![MARK; SIZE]);
    let mut probe = Probe::new();
    let before = value.as_ptr().addr();
    value.truncate(64);
    value.shrink_to_fit();
    assert!(value.iter().all(|byte| *byte == MARK));
    assert_eq!(probe.marks_at(before + 64, SIZE - 64), 0);
}

#[test]
fn a_zeroed_block_is_zero_although_its_place_was_used_before() {
    drop(std::hint::black_box(vec![MARK; SIZE]));
    assert!(std::hint::black_box(vec![0_u8; SIZE]).iter().all(|byte| *byte == 0));
}
