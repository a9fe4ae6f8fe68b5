// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A home for the values that must live on (tokens, a signing key, a cache): memory that nobody else can read.
//!
//! The best kind is `memfd_secret(2)`: the kernel itself no longer maps the pages, so root with `CAP_SYS_PTRACE` reads
//! `EIO` from `/proc/PID/mem`, and they are neither swapped nor dumped. (While any process has such a mapping the
//! machine does not hibernate.) Kernels before 5.14, or started with `secretmem.enable=0`, get ordinary memory that is
//! locked, left out of dumps and emptied in a forked child. [`Arena::kind`] says which it is; tell the operator.
//!
//! It holds bytes and knows nothing of what they mean. It does not grow: the capacity is charged to `RLIMIT_MEMLOCK`
//! when it is opened, so that it cannot run out of lockable memory at a bad moment.

#![expect(unsafe_code, reason = "maps pages and lends slices of them")]

mod map;
mod slots;

use std::fmt;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroize;

use self::map::Map;
use self::slots::Slots;

/// How well an [`Arena`]'s memory is protected, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ArenaKind {
    /// `memfd_secret(2)`: unmapped in the kernel, unreadable through `/proc` and `ptrace`, never swapped or dumped.
    SecretMemory,
    /// Anonymous pages, `mlock`ed, `MADV_DONTDUMP` and `MADV_WIPEONFORK`: never swapped or dumped; root can read them.
    LockedMemory,
    /// As [`LockedMemory`](Self::LockedMemory), but `mlock` is refused by the platform: the pages may be swapped out.
    PlainMemory,
}

impl ArenaKind {
    /// Every kind, best first.
    pub const ALL: &[Self] = &[Self::SecretMemory, Self::LockedMemory, Self::PlainMemory];

    /// The kind's name in logs and metrics: `secret`, `locked` or `plain`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SecretMemory => "secret",
            Self::LockedMemory => "locked",
            Self::PlainMemory => "plain",
        }
    }
}

impl fmt::Display for ArenaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an arena could not be opened, or could not keep a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArenaError {
    /// No free slot is large enough.
    #[error(
        "the memory arena is full: {wanted} bytes asked for, largest free slot {largest_free} of {capacity} bytes; \
         open it with a larger capacity"
    )]
    Full {
        /// Bytes that were asked for.
        wanted: usize,
        /// The largest value that would fit now, in bytes.
        largest_free: usize,
        /// The arena's whole size, in bytes.
        capacity: usize,
    },
    /// The process may not lock that much memory.
    #[error(
        "a memory arena of {wanted} bytes is above what this process may lock (RLIMIT_MEMLOCK is {limit} bytes, shared \
         with its other locked memory); raise the limit (`ulimit -l`, `LimitMEMLOCK=`) or make the arena smaller"
    )]
    LockLimit {
        /// Bytes that were asked for, in whole pages.
        wanted: usize,
        /// The soft limit, in bytes.
        limit: u64,
    },
    /// A capacity of zero, or one that is no possible size.
    #[error("a memory arena of {wanted} bytes cannot be: give a size between 1 byte and what fits an address space")]
    Capacity {
        /// Bytes that were asked for.
        wanted: usize,
    },
    /// The kernel refused a call.
    #[error("cannot open a memory arena of the kind `{kind}`: {call}: {errno}")]
    Refused {
        /// The kind that was tried.
        kind: ArenaKind,
        /// The system call.
        call: &'static str,
        /// Its answer.
        errno: rustix::io::Errno,
    },
}

/// Protected memory of a fixed size, shared by its clones, unmapped when the last of them and of the values is gone.
#[derive(Clone)]
pub struct Arena(Arc<Inner>);

struct Inner {
    map: Map,
    slots: Mutex<Slots>,
}

/// Bytes that live in an [`Arena`] and are wiped when this is dropped.
///
/// No `Clone` and no `Debug`: there is one copy, and it cannot be printed.
pub struct Kept {
    arena: Arc<Inner>,
    start: NonNull<u8>,
    len: usize,
}

impl Arena {
    /// Opens an arena of `capacity` bytes (rounded up to whole pages) in the best kind of memory that this machine
    /// has, and touches each page, so that a machine out of memory says so now.
    ///
    /// # Errors
    ///
    /// [`ArenaError::LockLimit`] when `RLIMIT_MEMLOCK` is too low, which is for the operator to raise and no reason to
    /// fall back; [`ArenaError::Capacity`]; [`ArenaError::Refused`] when not even plain memory is to be had.
    pub fn open(capacity: usize) -> Result<Self, ArenaError> {
        let mut refused = None;
        for kind in ArenaKind::ALL {
            match Self::open_as(*kind, capacity) {
                Err(error @ ArenaError::Refused { .. }) => refused = Some(error),
                opened => return opened,
            }
        }
        Err(refused.expect("invariant: there is a kind to try"))
    }

    /// Opens an arena in exactly this kind of memory.
    ///
    /// # Errors
    ///
    /// As [`Arena::open`]; [`ArenaError::Refused`] when this kind is not to be had.
    pub fn open_as(kind: ArenaKind, capacity: usize) -> Result<Self, ArenaError> {
        let page = rustix::param::page_size();
        let capacity = match capacity.checked_next_multiple_of(page) {
            Some(whole) if whole > 0 && isize::try_from(whole).is_ok() => whole,
            _ => return Err(ArenaError::Capacity { wanted: capacity }),
        };
        let map = Map::new(kind, capacity)?;
        Ok(Self(Arc::new(Inner { map, slots: Mutex::new(Slots::new(capacity)) })))
    }

    /// Which memory this arena is made of.
    pub fn kind(&self) -> ArenaKind {
        self.0.map.kind()
    }

    /// The arena's whole size in bytes.
    pub fn capacity(&self) -> usize {
        self.0.map.len()
    }

    /// Bytes that are taken now, in whole slots.
    pub fn used(&self) -> usize {
        self.capacity() - self.0.slots().free()
    }

    /// Copies `value` into the arena. The caller wipes its own copy.
    ///
    /// # Errors
    ///
    /// [`ArenaError::Full`] when no free slot is large enough.
    pub fn keep(&self, value: &[u8]) -> Result<Kept, ArenaError> {
        if value.is_empty() {
            return Ok(Kept { arena: Arc::clone(&self.0), start: NonNull::dangling(), len: 0 });
        }
        let mut slots = self.0.slots();
        let offset = slots.take(value.len()).ok_or_else(|| ArenaError::Full {
            wanted: value.len(),
            largest_free: slots.largest(),
            capacity: self.capacity(),
        })?;
        drop(slots);
        // SAFETY: `Slots` gives out disjoint ranges within the map's length, and takes one back only when its `Kept`
        // is gone: these bytes are inside the mapping and nobody else's.
        let start = unsafe {
            let start = self.0.map.start().add(offset);
            start.copy_from_nonoverlapping(NonNull::from(value).cast(), value.len());
            start
        };
        Ok(Kept { arena: Arc::clone(&self.0), start, len: value.len() })
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("kind", &self.kind()).field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

impl Inner {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        // Whoever panicked held the lock over arithmetic alone: the table is whole.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// The bytes. Look, and do not copy them to where they outlive the need.
    pub fn expose(&self) -> &[u8] {
        // SAFETY: the range is this value's alone, written before `self` was made, and not written again until `drop`;
        // the mapping lives as long as `arena`. An empty value has a dangling, aligned start, which is what a slice of
        // no bytes wants.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.len == 0 {
            return;
        }
        // SAFETY: as in `expose`, and `&mut self` says that nobody is looking.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) };
        // Before the slot is free: the next owner may be another thread.
        bytes.zeroize();
        let offset = self.start.addr().get() - self.arena.map.start().addr().get();
        self.arena.slots().give_back(offset, self.len);
    }
}

// SAFETY: a `Kept` owns its bytes like a `Box<[u8]>` does: shared, it only lends them for reading.
unsafe impl Send for Kept {}
// SAFETY: as for `Send`.
unsafe impl Sync for Kept {}

#[cfg(test)]
mod tests;
