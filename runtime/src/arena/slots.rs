// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Which bytes of an arena are taken: first fit over a table of free ranges, with neighbours joined.
//!
//! Arithmetic alone; it never touches the bytes, and the table lives outside the arena.

use std::collections::BTreeMap;

/// Values start at multiples of this, so that short ones do not splinter the free space.
const GRAIN: usize = 16;

/// The free ranges, by start: none is empty, none touches another.
pub(super) struct Slots {
    free: BTreeMap<usize, usize>,
}

impl Slots {
    /// One free range of `capacity` bytes, a multiple of the grain (a page is).
    pub(super) fn new(capacity: usize) -> Self {
        Self { free: BTreeMap::from([(0, capacity)]) }
    }

    /// Takes a range for `len` bytes and gives its start, or nothing if no range is large enough.
    pub(super) fn take(&mut self, len: usize) -> Option<usize> {
        let len = len.checked_next_multiple_of(GRAIN)?;
        let (&start, &room) = self.free.iter().find(|(_, room)| **room >= len)?;
        self.free.remove(&start);
        if room > len {
            self.free.insert(start + len, room - len);
        }
        Some(start)
    }

    /// Frees the range that [`take`](Self::take) gave for `len` bytes.
    pub(super) fn give_back(&mut self, mut start: usize, len: usize) {
        let mut len = len.next_multiple_of(GRAIN);
        if let Some(room) = self.free.remove(&(start + len)) {
            len += room;
        }
        if let Some((&before, &room)) = self.free.range(..start).next_back()
            && before + room == start
        {
            start = before;
            len += room;
        }
        self.free.insert(start, len);
    }

    /// Free bytes, all told.
    pub(super) fn free(&self) -> usize {
        self.free.values().sum()
    }

    /// The largest free range in bytes.
    pub(super) fn largest(&self) -> usize {
        self.free.values().copied().max().unwrap_or(0)
    }
}
