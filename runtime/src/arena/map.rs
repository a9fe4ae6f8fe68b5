// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The pages beneath an arena: mapped, protected, touched once, unmapped at the end.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::ptr::{NonNull, null_mut};

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap, mmap_anonymous, munmap};
use rustix::process::{Resource, getrlimit};

use super::{ArenaError, ArenaKind};

/// Pages that are this value's alone; unmapped when it is dropped.
pub(super) struct Map {
    kind: ArenaKind,
    start: NonNull<u8>,
    len: usize,
}

impl Map {
    /// Maps `len` bytes, a multiple of the page size above zero.
    pub(super) fn new(kind: ArenaKind, len: usize) -> Result<Self, ArenaError> {
        let refused = |(call, errno)| match (kind, lock_limit()) {
            (ArenaKind::SecretMemory | ArenaKind::LockedMemory, Some(limit))
                if [Errno::AGAIN, Errno::NOMEM, Errno::PERM].contains(&errno) && limit < len as u64 =>
            {
                ArenaError::LockLimit { wanted: len, limit }
            }
            _ => ArenaError::Refused { kind, call, errno },
        };
        let map = match kind {
            ArenaKind::SecretMemory => Self::secret(len),
            ArenaKind::LockedMemory | ArenaKind::PlainMemory => Self::anonymous(kind, len),
        }
        .map_err(refused)?;
        // SAFETY: the mapping is ours, writable, and `len` bytes long. Written here, a page cannot be missing later.
        unsafe { map.start.write_bytes(0, len) };
        Ok(map)
    }

    fn secret(len: usize) -> Result<Self, (&'static str, Errno)> {
        let file = memfd_secret().map_err(|errno| ("memfd_secret", errno))?;
        rustix::fs::ftruncate(&file, len as u64).map_err(|errno| ("ftruncate", errno))?;
        // SAFETY: a new mapping at an address of the kernel's choice touches nobody's memory. The file is closed below:
        // the mapping is the only way to the pages.
        let start =
            unsafe { mmap(null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file.as_fd(), 0) }
                .map_err(|errno| ("mmap", errno))?;
        let map = Self::own(ArenaKind::SecretMemory, start, len);
        // Shared pages would be shared with a forked child too.
        map.advise(Advice::LinuxDontFork)?;
        Ok(map)
    }

    fn anonymous(kind: ArenaKind, len: usize) -> Result<Self, (&'static str, Errno)> {
        // SAFETY: as in `secret`.
        let start = unsafe { mmap_anonymous(null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) }
            .map_err(|errno| ("mmap", errno))?;
        let map = Self::own(kind, start, len);
        map.advise(Advice::LinuxDontDump)?;
        map.advise(Advice::LinuxWipeOnFork)?;
        if kind == ArenaKind::LockedMemory {
            // SAFETY: the range is ours and mapped.
            unsafe { mlock(map.start.as_ptr().cast(), len) }.map_err(|errno| ("mlock", errno))?;
        }
        Ok(map)
    }

    fn own(kind: ArenaKind, start: *mut std::ffi::c_void, len: usize) -> Self {
        Self { kind, start: NonNull::new(start.cast()).expect("invariant: mmap never answers null"), len }
    }

    fn advise(&self, advice: Advice) -> Result<(), (&'static str, Errno)> {
        // SAFETY: the range is ours and mapped; none of the advices used here changes what this process sees.
        unsafe { madvise(self.start.as_ptr().cast(), self.len, advice) }.map_err(|errno| ("madvise", errno))
    }

    pub(super) fn kind(&self) -> ArenaKind {
        self.kind
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the range is ours, and whoever borrowed from it borrowed `self`. It cannot fail for a range that is
        // mapped; were it to, the pages would merely stay. What they held was wiped by the `Kept`s.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for Map {}
// SAFETY: through `&Map` one only reads where the mapping is.
unsafe impl Sync for Map {}

/// `memfd_secret(2)`, which has no wrapper in libc or rustix.
fn memfd_secret() -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes flags alone and makes a new descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just made it, and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::NOSYS)),
    }
}

/// The soft limit on locked memory in bytes; none when unlimited.
fn lock_limit() -> Option<u64> {
    getrlimit(Resource::Memlock).current
}
