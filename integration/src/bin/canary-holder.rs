// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A process with known bytes at known places in its memory, for a scanner to find.
//!
//! Each line of standard input is a place and bytes in hexadecimal, each byte inverted: nothing but the place itself ever
//! holds the bytes as they are. After an empty line it says `ready` and waits for the end of its input.

#![expect(unsafe_code, reason = "makes mappings and writes into them")]

use std::io::{self, BufRead, Write as _};
use std::ptr::null_mut;

use anyhow::{Context as _, Result, bail};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};

/// Enough for what a test puts on the stack.
const STACK: usize = 16 << 10;
const MAPPING: usize = 64 << 10;

fn main() -> Result<()> {
    let mut stack = [0_u8; STACK];
    let mut heap = Vec::new();
    let mut taken = 0;
    for line in io::stdin().lock().lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let (place, inverted) = line.split_once(' ').context("a place and bytes")?;
        let length = inverted.len() / 2;
        match place {
            "stack" => {
                // With a gap, so that no two are one.
                write(&mut stack[taken..][..length], inverted)?;
                taken += length + 1;
            }
            "heap" => {
                let mut block = vec![0; length].into_boxed_slice();
                write(&mut block, inverted)?;
                heap.push(block);
            }
            "mapping" => write(&mut mapping()?[..length], inverted)?,
            "unreadable" => {
                let mapping = mapping()?;
                write(&mut mapping[..length], inverted)?;
                // SAFETY: ours alone, and not touched again.
                unsafe { mprotect(mapping.as_mut_ptr().cast(), MAPPING, MprotectFlags::empty())? };
            }
            _ => bail!("no place is called {place}"),
        }
    }
    let mut out = io::stdout();
    out.write_all(b"ready\n")?;
    out.flush()?;
    io::stdin().lock().read_line(&mut String::new())?;
    // Until here both are needed.
    std::hint::black_box((&stack, &heap));
    Ok(())
}

fn mapping() -> Result<&'static mut [u8]> {
    // SAFETY: a new mapping at a place of the kernel's choice, for the rest of the process's life.
    unsafe {
        let start = mmap_anonymous(null_mut(), MAPPING, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)?;
        Ok(std::slice::from_raw_parts_mut(start.cast(), MAPPING))
    }
}

fn write(to: &mut [u8], inverted: &str) -> Result<()> {
    for (index, byte) in to.iter_mut().enumerate() {
        *byte = !u8::from_str_radix(&inverted[2 * index..][..2], 16)?;
    }
    Ok(())
}
