// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A cgroup around the plugin, for what the kernel charges it with.
//!
//! The charge holds the volumes' own pages, which are charged to who wrote them, and the kernel's memory on the plugin's
//! behalf. It does not hold the pages of the program's file if somebody had them in memory before.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A cgroup of the memory controller's, of version 1 or 2. It goes when it is dropped, if nobody is in it by then.
#[derive(Debug)]
pub struct Cgroup {
    directory: PathBuf,
    charge: &'static str,
}

impl Cgroup {
    /// `None` where none can be made.
    #[must_use]
    pub fn new() -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("evanesce-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        [("/sys/fs/cgroup/memory", "memory.usage_in_bytes"), ("/sys/fs/cgroup", "memory.current")].into_iter().find_map(
            |(root, charge)| {
                let directory = PathBuf::from(root).join(&name);
                fs::create_dir(&directory).ok()?;
                // Without the file, the controller is not in this hierarchy: dropped, the directory goes.
                Some(Self { directory, charge }).filter(|cgroup| cgroup.charge().is_some())
            },
        )
    }

    /// The words before a program's name that start it inside, from its first page on.
    #[must_use]
    pub fn starter(&self) -> Vec<String> {
        let processes = self.directory.join("cgroup.procs");
        let script = r#"echo $$ > "$0" && exec "$@""#;
        vec!["/bin/sh".into(), "-c".into(), script.into(), processes.display().to_string()]
    }

    /// What it is charged with now, in bytes.
    #[must_use]
    pub fn charge(&self) -> Option<u64> {
        fs::read_to_string(self.directory.join(self.charge)).ok()?.trim().parse().ok()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Whoever was in it is gone by now; what is left is an empty directory.
        let _ = fs::remove_dir(&self.directory);
    }
}
