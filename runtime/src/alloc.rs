// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The global allocator that wipes every block before it returns it to the heap.
//!
//! Wiping our own types is not enough: an HTTP client, a TLS stack and a JSON parser leave copies of what they read in
//! blocks they free, and a `Vec` that grows leaves the old one behind. Wiping on free reaches all of them. It does not
//! reach what is still allocated (an idle connection's read buffer), the stack, nor C libraries that call `malloc`
//! themselves.
//!
//! [`few_heaps`] and [`give_back`] are for a daemon with threads that is idle most of the time: what a burst has used
//! goes back to the machine.
//!
//! Every binary declares it:
//!
//! ```
//! use evanesce_runtime::alloc::ZeroOnFree;
//!
//! #[global_allocator]
//! static A: ZeroOnFree = ZeroOnFree;
//! # fn main() {}
//! ```

#![expect(
    unsafe_code,
    reason = "a global allocator is an unsafe trait; the system's is told what to do by C functions"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::arch::asm;

/// The system's allocator, with every freed block filled with zeros first.
///
/// `realloc` is the trait's own: allocate, copy, wipe the old block, free it. It must never be forwarded to
/// [`System`], which may move a block and free the old one unwiped.
#[derive(Clone, Copy, Debug, Default)]
pub struct ZeroOnFree;

// SAFETY: every call goes to `System` with the layout it came with, and `System` upholds the contract of `GlobalAlloc`.
unsafe impl GlobalAlloc for ZeroOnFree {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise (a layout that is not empty) is `System`'s condition.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`; asking `System` keeps fresh pages untouched, where a wipe here would fault them in.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller owns `block`, which is `layout.size()` bytes, and never uses it again.
        unsafe {
            block.write_bytes(0, layout.size());
            // An optimiser may drop a store to memory that is about to be freed. To it this empty instruction reads
            // all memory that `block` leads to, so the zeros must be there.
            asm!("/* {0} */", in(reg) block, options(nostack, preserves_flags));
            System.dealloc(block, layout);
        }
    }
}

/// Heaps for the threads to share; glibc's own choice is eight for each processor, each with room of its own.
#[cfg(target_env = "gnu")]
const HEAPS: libc::c_int = 2;
/// Fewer pages are not worth a look.
#[cfg(target_env = "gnu")]
const WORTHWHILE: i64 = 64;

/// Has all threads share a few heaps. Call it before the first thread; elsewhere than on glibc it does nothing.
pub fn few_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes two numbers. That it refuses costs memory and nothing else.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, HEAPS);
    }
}

/// Gives the pages of free memory back to the machine, if many were taken since the process had `before` page faults;
/// from which number to count the next time. Elsewhere than on glibc it does nothing.
pub fn give_back(before: i64) -> i64 {
    #[cfg(target_env = "gnu")]
    // SAFETY: a `rusage` of zeros is one, which the call fills; trimming locks each heap and moves nothing that is in use.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        if usage.ru_minflt - before > WORTHWHILE {
            libc::malloc_trim(0);
            return usage.ru_minflt;
        }
    }
    before
}
