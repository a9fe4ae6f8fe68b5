// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Processes as `/proc` shows them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};

/// One process; may be gone by the time it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process(Pid);

impl Process {
    /// The process with this id.
    #[must_use]
    pub fn new(pid: Pid) -> Self {
        Self(pid)
    }

    /// Its id.
    #[must_use]
    pub fn pid(self) -> Pid {
        self.0
    }

    /// The name it was started by, `argv[0]`; empty once it is gone.
    #[must_use]
    pub fn name(self) -> String {
        let line = self.read("cmdline");
        let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(first).into_owned()
    }

    /// A file of its directory in `/proc`; empty once it is gone.
    #[must_use]
    pub fn read(self, file: &str) -> Vec<u8> {
        fs::read(self.path(file)).unwrap_or_default()
    }

    /// The path of a file of its directory in `/proc`.
    #[must_use]
    pub fn path(self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.0.as_raw_nonzero()))
    }

    /// A field of its `status` (`proc_pid_status(5)`), as `CapEff`.
    #[must_use]
    pub fn status(self, field: &str) -> Option<String> {
        let status = String::from_utf8_lossy(&self.read("status")).into_owned();
        let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        Some(value.trim().to_owned())
    }

    /// A field of its `status` that is an amount of memory, as `RssAnon`, in bytes; the kernel says units of 1,024.
    #[must_use]
    pub fn memory(self, field: &str) -> Option<u64> {
        Some(self.status(field)?.strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
    }

    /// Whether anything of it still runs, and so holds its files open: of a process that is killed, the first thread may
    /// be a zombie before the others have ended.
    #[must_use]
    pub fn is_running(self) -> bool {
        let threads = fs::read_dir(self.path("task")).map_or(0, Iterator::count);
        threads > 1 || self.status("State").is_some_and(|state| !state.starts_with(['Z', 'X']))
    }

    /// Kills it; gone already is as good.
    pub fn kill(self) {
        let _ = kill_process(self.0, Signal::KILL);
    }

    /// How many connections it has to this port on loopback.
    #[must_use]
    pub fn connections_to(self, port: u16) -> usize {
        const ESTABLISHED: &str = "01";
        let sockets: BTreeSet<String> = fs::read_dir(self.path("fd"))
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(fs::read_link(entry.ok()?.path()).ok()?.to_string_lossy().into_owned()))
            .collect();
        let table = String::from_utf8_lossy(&self.read("net/tcp")).into_owned();
        let lines = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
        lines
            .filter(|line| {
                let [_, _, remote, state, _, _, _, _, _, inode, ..] = line[..] else { return false };
                state == ESTABLISHED
                    && remote.ends_with(&format!(":{port:04X}"))
                    && sockets.contains(&format!("socket:[{inode}]"))
            })
            .count()
    }

    /// Its children and their children, as they are now.
    #[must_use]
    pub fn descendants(self) -> Vec<Self> {
        let all = all();
        let mut family = BTreeSet::from([self.0.as_raw_nonzero().get()]);
        let mut found = Vec::new();
        loop {
            let before = found.len();
            for (process, parent) in &all {
                if family.contains(parent) && family.insert(process.0.as_raw_nonzero().get()) {
                    found.push(*process);
                }
            }
            if found.len() == before {
                return found;
            }
        }
    }
}

/// Every process with its parent.
fn all() -> Vec<(Process, i32)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let process = Process(Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?);
            Some((process, process.status("PPid")?.parse().ok()?))
        })
        .collect()
}
