// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The memory of another process, as `/proc` shows it (`proc_pid_mem(5)`, `proc_pid_maps(5)`, `proc_pid_pagemap(5)`).
//!
//! What the process may not read itself is read too: guard pages, and what an allocator has given up but not returned.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;

use anyhow::Context as _;

/// Bits of an entry of pagemap.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const GUARD: u64 = 1 << 58;

/// Pages of the kernel's in every process, which `/proc/PID/mem` does not show.
const KERNELS: [&str; 5] = ["[vvar]", "[vvar_vclock]", "[vsyscall]", "[timens]", "[uprobes]"];
/// How the kernel calls `memfd_secret(2)`.
const SECRET_MEMORY: &str = "/secretmem";

/// One line of maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) start: usize,
    pub(super) end: usize,
    /// The file, `[heap]`, `[stack]`, or `[anonymous]` for what has no name.
    pub(super) name: String,
    private: bool,
}

/// What could not be read of a mapping.
pub(super) struct Unread {
    pub(super) mapping: Mapping,
    pub(super) bytes: usize,
}

/// Why something is unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// `memfd_secret(2)`: nobody but the process itself can read it.
    SecretMemory,
    /// The kernel's own pages.
    Kernels,
    /// It should have been readable.
    Gap,
}

impl Unread {
    pub(super) fn why(&self) -> Why {
        match self.mapping.name.as_str() {
            name if name.starts_with(SECRET_MEMORY) => Why::SecretMemory,
            name if KERNELS.contains(&name) => Why::Kernels,
            _ => Why::Gap,
        }
    }

    pub(super) fn is_a_gap(&self) -> bool {
        self.why() == Why::Gap
    }
}

impl Mapping {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let permissions = words.next()?;
        // After offset, device and inode, and it may hold spaces.
        let name = line.splitn(6, ' ').nth(5).unwrap_or_default().trim();
        Some(Self {
            start: usize::from_str_radix(start, 16).ok()?,
            end: usize::from_str_radix(end, 16).ok()?,
            name: if name.is_empty() { "[anonymous]".to_owned() } else { name.to_owned() },
            private: permissions.ends_with('p'),
        })
    }

    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// A process that may be looked into.
pub(super) struct Process {
    pid: u32,
    memory: File,
    pagemap: File,
    page: usize,
}

impl Process {
    pub(super) fn open(pid: u32) -> io::Result<Self> {
        let open = |file| File::open(format!("/proc/{pid}/{file}"));
        Ok(Self { pid, memory: open("mem")?, pagemap: open("pagemap")?, page: rustix::param::page_size() })
    }

    /// How it was started: the first word of its command line.
    pub(super) fn name(&self) -> String {
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        String::from_utf8_lossy(line.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
    }

    pub(super) fn mappings(&self) -> anyhow::Result<Vec<Mapping>> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid))
            .ok()
            .filter(|maps| !maps.is_empty())
            .with_context(|| format!("process {} has ended", self.pid))?;
        maps.lines()
            .map(|line| Mapping::parse(line).with_context(|| format!("a line of maps is not understood: {line}")))
            .collect()
    }

    /// Hands out what `mapping` holds, in runs of pages without a hole; what could not be read, if anything.
    pub(super) fn read(&self, mapping: &Mapping, mut each: impl FnMut(usize, &[u8])) -> anyhow::Result<Option<Unread>> {
        let mut unread = 0;
        let mut bytes = Vec::new();
        for (start, end) in self.runs(mapping) {
            let mut at = start;
            let mut begun = start;
            bytes.clear();
            while at < end {
                let before = bytes.len();
                bytes.resize(before + (end - at), 0);
                match self.memory.read_at(&mut bytes[before..], at as u64) {
                    Ok(read) if read > 0 => {
                        bytes.truncate(before + read);
                        at += read;
                    }
                    _ => {
                        each(begun, &bytes[..before]);
                        bytes.clear();
                        unread += self.page;
                        at = (at / self.page + 1) * self.page;
                        begun = at;
                    }
                }
            }
            each(begun, &bytes);
        }
        Ok((unread > 0).then(|| Unread { mapping: mapping.clone(), bytes: unread }))
    }

    /// The parts of a mapping that hold something. Private pages that are neither in memory nor swapped out were never
    /// touched (or were given back); to read them would only make them.
    fn runs(&self, mapping: &Mapping) -> Vec<(usize, usize)> {
        let mut entries = vec![0; (mapping.end - mapping.start) / self.page * 8];
        let known =
            mapping.private && self.pagemap.read_exact_at(&mut entries, (mapping.start / self.page * 8) as u64).is_ok();
        if !known {
            return vec![(mapping.start, mapping.end)];
        }
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for (index, entry) in entries.as_chunks::<8>().0.iter().enumerate() {
            let entry = u64::from_ne_bytes(*entry);
            if entry & (PRESENT | SWAPPED) == 0 || entry & GUARD != 0 {
                continue;
            }
            let start = mapping.start + index * self.page;
            match runs.last_mut() {
                Some((_, end)) if *end == start => *end += self.page,
                _ => runs.push((start, start + self.page)),
            }
        }
        runs
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_maps_is_understood() {
        let name = |line| Mapping::parse(line).unwrap().name;
        let heap = "55d0c0a00000-55d0c0a21000 rw-p 00000000 00:00 0                          [heap]";
        let mapping = Mapping::parse(heap).unwrap();
        assert_eq!((mapping.start, mapping.end, mapping.private), (0x55d0_c0a0_0000, 0x55d0_c0a2_1000, true));
        assert_eq!(mapping.name, "[heap]");
        assert_eq!(name("7f0000000000-7f0000001000 ---p 00000000 00:00 0 "), "[anonymous]");
        let secret = "7f0000000000-7f0000400000 rw-s 00000000 00:11 21    /secretmem (deleted)";
        assert_eq!(name(secret), "/secretmem (deleted)");
        assert!(!Mapping::parse(secret).unwrap().private);
        assert_eq!(name("7f0000000000-7f0000001000 r--p 00000000 08:01 1234   /a b/c"), "/a b/c");
    }
}
