// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! An orderly end: first ask, then insist.
//!
//! A [`Trigger`] starts the drain; every task holds a [`Watcher`]. From the start on, [`Watcher::draining`] resolves and
//! tasks finish what they have in hand. At the deadline, or at a second signal, the drain turns firm: tasks that were
//! started through [`Watcher::spawn`] are dropped at their next await.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How long tasks that were dropped may take to be gone: one that blocks its thread is left to the process's exit.
const FIRM_LIMIT: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
struct Shared {
    draining: CancellationToken,
    firm: CancellationToken,
    tasks: TaskTracker,
}

/// Starts the drain and sees it through; there is one.
#[derive(Debug)]
#[must_use = "without its trigger a drain never starts"]
pub struct Trigger(Shared);

/// Tells a task that the end has begun, and counts it among those to wait for.
#[derive(Clone, Debug)]
pub struct Watcher(Shared);

/// How a drain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every task finished by itself.
    Gracefully,
    /// The deadline or a second signal came first.
    Firmly {
        /// Tasks that were unfinished then.
        unfinished: usize,
    },
}

impl fmt::Display for Drained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gracefully => f.write_str("every task finished"),
            Self::Firmly { unfinished } => write!(f, "{unfinished} unfinished tasks were dropped"),
        }
    }
}

/// A trigger and the first of its watchers.
pub fn channel() -> (Trigger, Watcher) {
    let shared =
        Shared { draining: CancellationToken::new(), firm: CancellationToken::new(), tasks: TaskTracker::new() };
    (Trigger(shared.clone()), Watcher(shared))
}

impl Trigger {
    /// Drains now: gracefully for as long as `deadline`, then firmly.
    pub async fn drain(self, deadline: Duration) -> Drained {
        self.drain_until(tokio::time::sleep(deadline)).await
    }

    /// Waits for SIGTERM or SIGINT, then drains as [`drain`](Self::drain) does; a second signal makes it firm at once.
    ///
    /// The handlers are in place when this returns; the future waits.
    ///
    /// # Errors
    ///
    /// When the handlers cannot be installed.
    pub fn on_signal(self, deadline: Duration) -> io::Result<impl Future<Output = Drained>> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        Ok(async move {
            let mut next = async move || {
                tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                }
            };
            let name = next().await;
            tracing::info!(signal = name, deadline = ?deadline, "draining");
            self.drain_until(async move {
                let _ = tokio::time::timeout(deadline, next()).await;
            })
            .await
        })
    }

    async fn drain_until(self, limit: impl Future<Output = ()>) -> Drained {
        let Shared { draining, firm, tasks } = self.0;
        tasks.close();
        draining.cancel();
        tokio::select! {
            () = tasks.wait() => return Drained::Gracefully,
            () = limit => {}
        }
        let unfinished = tasks.len();
        firm.cancel();
        let _ = tokio::time::timeout(FIRM_LIMIT, tasks.wait()).await;
        Drained::Firmly { unfinished }
    }
}

impl Watcher {
    /// Resolves when the drain starts. For a loop that takes new work: stop taking it.
    pub async fn draining(&self) {
        self.0.draining.cancelled().await;
    }

    /// Whether the drain has started.
    pub fn is_draining(&self) -> bool {
        self.0.draining.is_cancelled()
    }

    /// Resolves when the drain turns firm. For work that must tidy up rather than be dropped.
    pub async fn firm(&self) {
        self.0.firm.cancelled().await;
    }

    /// Starts a task that the drain waits for, and drops once it is firm: then the handle answers nothing.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<Option<T>> {
        let firm = self.0.firm.clone();
        self.0.tasks.spawn(async move { firm.run_until_cancelled(task).await })
    }

    /// Has the drain wait for as long as the returned value lives. For work that is no task, as a thread's.
    pub fn hold(&self) -> TaskTrackerToken {
        self.0.tasks.token()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::future::pending;

    use tokio::sync::oneshot;

    use super::*;

    /// A deadline that no test reaches unless it fails.
    const NEVER: Duration = Duration::from_secs(3600);
    const NOW: Duration = Duration::ZERO;

    /// What `task` gives, unless it hangs.
    async fn soon<T>(task: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(10), task).await.expect("it hangs")
    }

    #[tokio::test]
    async fn a_task_that_finishes_when_asked_is_waited_for() {
        let (trigger, watcher) = channel();
        let (finish, finished) = oneshot::channel();
        let task = watcher.spawn({
            let watcher = watcher.clone();
            async move {
                watcher.draining().await;
                finished.await.unwrap()
            }
        });
        let drain = tokio::spawn(trigger.drain(NEVER));
        watcher.draining().await;
        assert!(watcher.is_draining() && !drain.is_finished());
        finish.send("work").unwrap();
        assert_eq!(soon(drain).await.unwrap(), Drained::Gracefully);
        assert_eq!(soon(task).await.unwrap(), Some("work"));
    }

    #[tokio::test]
    async fn a_task_that_does_not_listen_is_dropped_at_the_deadline() {
        let (trigger, watcher) = channel();
        let task = watcher.spawn(pending::<()>());
        assert_eq!(soon(trigger.drain(NOW)).await, Drained::Firmly { unfinished: 1 });
        assert_eq!(soon(task).await.unwrap(), None);
    }

    #[tokio::test]
    async fn work_that_must_tidy_up_hears_when_the_drain_turns_firm() {
        let (trigger, watcher) = channel();
        let held = watcher.hold();
        let tidying = tokio::spawn({
            let watcher = watcher.clone();
            async move {
                watcher.firm().await;
                drop(held);
            }
        });
        assert_eq!(soon(trigger.drain(NOW)).await, Drained::Firmly { unfinished: 1 });
        soon(tidying).await.unwrap();
    }

    #[tokio::test]
    async fn with_nothing_to_wait_for_a_drain_is_over_at_once() {
        let (trigger, _watcher) = channel();
        assert_eq!(soon(trigger.drain(NEVER)).await, Drained::Gracefully);
    }

    #[tokio::test]
    async fn a_signal_starts_the_drain_and_a_second_one_makes_it_firm() {
        use rustix::process::{Signal, getpid, kill_process};

        let (trigger, watcher) = channel();
        let _deaf = watcher.spawn(pending::<()>());
        let drain = tokio::spawn(trigger.on_signal(NEVER).unwrap());
        tokio::task::yield_now().await;
        assert!(!watcher.is_draining());
        kill_process(getpid(), Signal::TERM).unwrap();
        soon(watcher.draining()).await;
        assert!(!drain.is_finished());
        kill_process(getpid(), Signal::INT).unwrap();
        assert_eq!(soon(drain).await.unwrap(), Drained::Firmly { unfinished: 1 });
    }
}
