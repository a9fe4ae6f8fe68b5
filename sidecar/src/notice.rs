// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! One bell for everything that changes in folders: it rings, and whoever listens looks at what is its own.
//!
//! There is one inotify instance, because a uid has few. Where the kernel has none left, nothing rings, and whoever
//! listens looks more often.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use notify::event::AccessKind;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::watch;

use crate::sight::identity;

/// How often to look where the bell rings: at the mark `..stale`, which lies one folder deeper, and in case that a folder
/// was put in another's place …
const SELDOM: Duration = Duration::from_secs(5);
/// … and where it does not.
const OFTEN: Duration = Duration::from_secs(1);

/// The bell.
pub struct Bell {
    rung: watch::Sender<()>,
    watcher: Mutex<Option<Watcher>>,
}

struct Watcher {
    inner: RecommendedWatcher,
    /// Each folder, with what told it from others when its watch was set.
    folders: HashMap<PathBuf, (u64, u64)>,
    said: bool,
}

impl Bell {
    /// A bell that the kernel rings, or says that it cannot.
    pub fn new() -> Self {
        let rung = watch::Sender::new(());
        let ring = rung.clone();
        let made = notify::recommended_watcher(move |event| {
            if may_change(&event) {
                ring.send_replace(());
            }
        });
        let watcher = made.inspect_err(say_exhausted).ok();
        let watcher = watcher.map(|inner| Watcher { inner, folders: HashMap::new(), said: false });
        Self { rung, watcher: Mutex::new(watcher) }
    }

    /// A bell that nobody rings.
    pub fn silent() -> Self {
        Self { rung: watch::Sender::new(()), watcher: Mutex::new(None) }
    }

    /// Hears it ring from now on.
    pub fn listen(&self) -> watch::Receiver<()> {
        self.rung.subscribe()
    }

    /// Has it ring when something in `folder` changes; whether it will. Called again and again, because the folder may
    /// have been replaced by another of its name.
    pub fn attend(&self, folder: &Path) -> bool {
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(watcher), Some(now)) = (watcher.as_mut(), identity(folder)) else { return false };
        if watcher.folders.get(folder) == Some(&now) {
            return true;
        }
        match watcher.inner.watch(folder, RecursiveMode::NonRecursive) {
            Ok(()) => {
                watcher.folders.insert(folder.to_owned(), now);
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut watcher.said, true) {
                    say_exhausted(&error);
                }
                false
            }
        }
    }

    /// Ends what [`attend`](Self::attend) began.
    pub fn forget(&self, folder: &Path) {
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watcher) = watcher.as_mut()
            && watcher.folders.remove(folder).is_some()
        {
            // A folder that is gone took its watch with it.
            let _ = watcher.inner.unwatch(folder);
        }
    }
}

/// How long to wait for the bell before looking in any case.
pub fn patience(rings: bool) -> Duration {
    if rings { SELDOM } else { OFTEN }
}

fn say_exhausted(error: &notify::Error) {
    tracing::warn!(
        %error,
        "the kernel tells of no changes (see fs.inotify.max_user_instances and max_user_watches): looking once a second instead"
    );
}

/// The application opens its files, which changes nothing.
fn may_change(event: &notify::Result<notify::Event>) -> bool {
    !matches!(event, Ok(notify::Event { kind: EventKind::Access(AccessKind::Open(_)), .. }))
}

impl Default for Bell {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn it_rings_for_a_folder_that_was_put_in_anothers_place() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("volume");
        fs::create_dir(&folder).unwrap();
        let bell = Bell::new();
        let mut heard = bell.listen();
        assert!(bell.attend(&folder));
        fs::write(folder.join("a"), "").unwrap();
        tokio::time::timeout(LIMIT, heard.changed()).await.expect("it rings").unwrap();
        fs::rename(&folder, above.path().join("before")).unwrap();
        assert!(!bell.attend(&folder), "there is nothing to attend");
        fs::create_dir(&folder).unwrap();
        assert!(bell.attend(&folder));
        heard.borrow_and_update();
        fs::write(folder.join("b"), "").unwrap();
        tokio::time::timeout(LIMIT, heard.changed()).await.expect("it rings again").unwrap();
    }

    #[test]
    fn without_the_kernel_nothing_rings_and_looks_are_more_frequent() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!Bell::silent().attend(folder.path()));
        assert!(patience(false) < patience(true));
    }
}
