// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Classes from a watched folder of YAML files, such as a mounted ConfigMap.
//!
//! A thread of its own reads the folder, so that parsing never holds up a mount. It reads again when the folder changes and,
//! in case that went unnoticed, every minute. Names that begin with `.` are never read: they are editors' files and
//! kubelet's own.
//!
//! A class that no longer parses answers [`Lookup::Broken`], not its former self: a first delivery then fails with the
//! reason instead of following a text that nobody sees any more. Volumes that are already there keep what they have;
//! that is their business, not this module's.

mod files;
mod index;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;

use crate::class_source::{ClassSource, Lookup};
use crate::error::Error;
use crate::folder_watch::{Depth, FolderWatch, Watched};
use crate::names::{BackendName, Namespace, VolumeClassName};
use crate::spec::{BackendSpec, VolumeSpec};
pub use files::is_class_file;

use files::Files;
use index::Index;

/// How often the folder is read although nothing was noticed.
const RESCAN: Duration = Duration::from_secs(60);

/// Classes from a watched folder.
pub struct ClassDirectory {
    shared: Arc<Shared>,
    _watch: FolderWatch,
}

/// How many classes there are, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Backends that can be used.
    pub backends: usize,
    /// Volumes that can be used.
    pub volumes: usize,
    /// Things that are wrong: files, documents, names used twice, a folder that cannot be read.
    pub problems: usize,
}

struct Shared {
    index: RwLock<Option<Arc<Index>>>,
    /// Whether the folder could not be read when that was tried last; what is known of it stays.
    unreadable: AtomicBool,
    changes: watch::Sender<u64>,
}

impl ClassDirectory {
    /// Starts to read and watch `folder`. Until it was read once, every lookup answers [`Lookup::NotKnownYet`]; a folder
    /// that does not exist is waited for.
    ///
    /// # Errors
    /// [`Kind::Internal`](crate::error::Kind::Internal) where no thread can be started.
    pub fn watch(folder: &Path) -> Result<Self, Error> {
        Self::start(folder, RESCAN)
    }

    fn start(folder: &Path, rescan: Duration) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            index: RwLock::default(),
            unreadable: AtomicBool::new(false),
            changes: watch::Sender::new(0),
        });
        let mut reader = Reader { folder: folder.to_owned(), shared: Arc::clone(&shared), files: Files::default() };
        let watched = Watched { what: "classes", folder, depth: Depth::NonRecursive, rescan };
        let watch = FolderWatch::start(&watched, move |_| reader.read())?;
        Ok(Self { shared, _watch: watch })
    }

    /// How many classes there are now.
    pub fn counts(&self) -> Counts {
        let mut counts = self.index().map(|index| index.counts()).unwrap_or_default();
        counts.problems += usize::from(self.shared.unreadable.load(Ordering::Relaxed));
        counts
    }

    /// What is wrong now, one line each, for the operator.
    pub fn problems(&self) -> Vec<String> {
        self.index().map(|index| index.problems().to_vec()).unwrap_or_default()
    }

    fn index(&self) -> Option<Arc<Index>> {
        self.shared.index.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClassSource for ClassDirectory {
    fn backend(&self, name: &BackendName) -> Lookup<BackendSpec> {
        self.index().map_or_else(not_known_yet, |index| index.backend(name))
    }

    fn volume(&self, namespace: &Namespace, name: &VolumeClassName) -> Lookup<VolumeSpec> {
        self.index().map_or_else(not_known_yet, |index| index.volume(namespace, name))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }
}

fn not_known_yet<T>() -> Lookup<T> {
    Lookup::NotKnownYet("classes are still being read".to_owned())
}

/// The watching thread's own.
struct Reader {
    folder: PathBuf,
    shared: Arc<Shared>,
    files: Files,
}

impl Reader {
    /// Reads the folder and publishes what changed; `false` where it cannot be read, which changes nothing.
    fn read(&mut self) -> bool {
        match self.files.read(&self.folder) {
            Ok(()) => {
                if self.shared.unreadable.swap(false, Ordering::Relaxed) {
                    tracing::info!(folder = %self.folder.display(), "the folder of classes can be read again");
                }
            }
            Err(error) => {
                // It is tried every few seconds and said once.
                if !self.shared.unreadable.swap(true, Ordering::Relaxed) {
                    tracing::warn!(folder = %self.folder.display(), %error, "cannot read the folder of classes: what it held counts on");
                }
                return false;
            }
        }
        let index = Index::new(&self.files);
        let before = self.shared.index.read().unwrap_or_else(PoisonError::into_inner).clone();
        if before.as_deref() == Some(&index) {
            return true;
        }
        let known = before.as_deref().map(Index::problems).unwrap_or_default();
        for problem in index.problems().iter().filter(|problem| !known.contains(problem)) {
            tracing::error!(problem, "a class cannot be used");
        }
        let Counts { backends, volumes, problems } = index.counts();
        tracing::info!(backends, volumes, problems, "classes read");
        *self.shared.index.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(index));
        self.shared.changes.send_modify(|revision| *revision += 1);
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
