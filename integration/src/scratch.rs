// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A directory for one test, with everything below it unmounted and removed at the end.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rustix::mount::UnmountFlags;
use tempfile::TempDir;

use crate::mounts;

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
        let directory =
            tempfile::Builder::new().prefix("evanesce-test-").tempdir().context("cannot make a temporary directory")?;
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
        // Later mounts may lie on earlier ones: take them off in reverse order.
        for mount in mounts::below(&self.path).into_iter().rev() {
            let _ = rustix::mount::unmount(&mount.target, UnmountFlags::DETACH);
        }
        if let Some(directory) = self.directory.take() {
            let _ = directory.close();
        }
    }
}
