// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A directory for one test, with everything below it unmounted and removed at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use anyhow::{Context, Result};
use rustix::mount::UnmountFlags;
use tempfile::TempDir;

use crate::mounts;

/// Before the process id, in the names of the directories.
const PREFIX: &str = "evanesce-test-";

/// A temporary directory in which mounts may appear.
pub struct Scratch {
    directory: Option<TempDir>,
    path: PathBuf,
}

impl Scratch {
    /// Makes a new directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Self> {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let directory =
            tempfile::Builder::new().prefix(&prefix).tempdir().context("cannot make a temporary directory")?;
        // The mount table shows resolved paths, and so must we to find ours in it.
        let path = directory.path().canonicalize()?;
        Ok(Self { directory: Some(directory), path })
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory below it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Writes a file below it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        unmount_below(&self.path);
        if let Some(directory) = self.directory.take() {
            let _ = directory.close();
        }
    }
}

fn unmount_below(path: &Path) {
    // Later mounts may lie on earlier ones: take them off in reverse order.
    for mount in mounts::below(path).into_iter().rev() {
        let _ = rustix::mount::unmount(&mount.target, UnmountFlags::DETACH);
    }
}

/// Removes what test processes have left that were killed before they could.
fn sweep() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        // A number that was given again belongs to a process that lives: then it is swept another time.
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let Ok(path) = entry.path().canonicalize() else { continue };
            unmount_below(&path);
            // A mount that stayed would lose its files here; then the directory stays too.
            if mounts::below(&path).is_empty() {
                let _ = fs::remove_dir_all(&path);
            }
        }
    }
}
