// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Notices that a folder changed: a thread of its own looks at once, again when the kernel says so and the folder is quiet,
//! and now and then in case that went unnoticed.
//!
//! The folder and never a file is watched, because files are replaced by renaming (kubelet swaps a ConfigMap by renaming
//! `..data`). A folder that is not there is waited for.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use notify::event::AccessKind;
use notify::{EventKind, RecommendedWatcher, Watcher as _};

use crate::error::Error;

pub(crate) use notify::RecursiveMode as Depth;

/// How often a folder that is not there is looked for.
const RETRY: Duration = Duration::from_secs(5);
/// How long the folder has to be quiet before it is looked at, so that a file is not read half-written …
const QUIET: Duration = Duration::from_millis(50);
/// … and how long that may be put off.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Watches until it is dropped.
#[derive(Debug)]
pub struct FolderWatch(Sender<Event>);

/// Which folder, and how often it is looked at.
pub(crate) struct Watched<'a> {
    /// What is in it, for the log; also the name of the thread.
    pub(crate) what: &'static str,
    /// Where it is.
    pub(crate) folder: &'a Path,
    /// Whether folders in it count.
    pub(crate) depth: Depth,
    /// How often it is looked at although nothing was noticed.
    pub(crate) rescan: Duration,
}

/// Why to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Something changed, or may have.
    Changed,
    /// It is time to.
    Time,
}

#[derive(Debug)]
enum Event {
    Changed,
    Stop,
}

impl FolderWatch {
    /// Starts. `look` says whether the folder could be looked at; if not, it is called again soon.
    ///
    /// # Errors
    /// [`Kind::Internal`](crate::error::Kind::Internal) where no thread can be started.
    pub(crate) fn start(watched: &Watched<'_>, look: impl FnMut(Why) -> bool + Send + 'static) -> Result<Self, Error> {
        let Watched { what, folder, depth, rescan } = *watched;
        let (events, received) = mpsc::channel();
        let watching = Watching { what, folder: folder.to_owned(), depth, rescan };
        let noticed = events.clone();
        std::thread::Builder::new()
            .name(what.to_owned())
            .spawn(move || watching.run(&received, noticed, look))
            .map_err(|error| Error::internal(format!("cannot start the thread that watches for {what}: {error}")))?;
        Ok(Self(events))
    }
}

impl Drop for FolderWatch {
    fn drop(&mut self) {
        // The thread may be gone already.
        let _ = self.0.send(Event::Stop);
    }
}

/// The thread's own.
struct Watching {
    what: &'static str,
    folder: PathBuf,
    depth: Depth,
    rescan: Duration,
}

impl Watching {
    fn run(self, received: &Receiver<Event>, noticed: Sender<Event>, mut look: impl FnMut(Why) -> bool) {
        let (what, seldom) = (self.what, RETRY.min(self.rescan));
        // The watch comes before the looking: what changes in between is noticed.
        let mut watcher = notify::recommended_watcher(move |event| {
            if may_change(&event) {
                let _ = noticed.send(Event::Changed);
            }
        })
        .inspect_err(|error| {
            tracing::warn!(%error, "cannot watch for changes of {what}: they are noticed later");
        })
        .ok();
        let (mut watched, mut why) = (false, Why::Time);
        loop {
            // Again and again, because the folder may have been replaced by another of its name.
            watched = watcher.as_mut().is_some_and(|watcher| self.watch(watcher, watched));
            let looked = look(why);
            // Whoever exhausts what the kernel gives a uid to watch with delays changes by this, and loses none.
            let wait = if looked && watched { self.rescan } else { seldom };
            why = match received.recv_timeout(wait) {
                Ok(Event::Changed) if settle(received) => Why::Changed,
                Err(RecvTimeoutError::Timeout) => Why::Time,
                Ok(_) | Err(RecvTimeoutError::Disconnected) => return,
            };
        }
    }

    fn watch(&self, watcher: &mut RecommendedWatcher, before: bool) -> bool {
        match watcher.watch(&self.folder, self.depth) {
            Ok(()) => true,
            Err(error) => {
                if before {
                    tracing::warn!(folder = %self.folder.display(), %error, "cannot watch the folder of {}", self.what);
                }
                false
            }
        }
    }
}

/// Whether to look again. To read a file is to open it, which is noticed too and must not lead to another look.
fn may_change(event: &notify::Result<notify::Event>) -> bool {
    !matches!(event, Ok(notify::Event { kind: EventKind::Access(AccessKind::Open(_)), .. }))
}

/// Waits until the folder is quiet; `false` to stop.
fn settle(received: &Receiver<Event>) -> bool {
    let end = Instant::now() + LONGEST_WAIT;
    loop {
        match received.recv_timeout(QUIET.min(end.saturating_duration_since(Instant::now()))) {
            Ok(Event::Changed) if Instant::now() < end => {}
            Ok(Event::Changed) | Err(RecvTimeoutError::Timeout) => return true,
            Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{AccessMode, RemoveKind};

    #[test]
    fn to_open_a_file_is_no_change_and_what_went_wrong_may_be_one() {
        let event = |kind| Ok(notify::Event::new(kind));
        assert!(!may_change(&event(EventKind::Access(AccessKind::Open(AccessMode::Any)))));
        assert!(may_change(&event(EventKind::Access(AccessKind::Close(AccessMode::Write)))));
        assert!(may_change(&event(EventKind::Remove(RemoveKind::File))));
        assert!(may_change(&Err(notify::Error::generic("queue overflow"))));
    }
}
