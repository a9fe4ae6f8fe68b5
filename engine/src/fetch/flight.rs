// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! One piece of work that many wait for and nobody owns: it goes on while anybody waits, and no longer.

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Work in a task of its own. Dropping the last handle on it cancels the work and drops what it gave.
pub(super) struct Flight<T> {
    begun: Instant,
    landed: watch::Receiver<Option<T>>,
    task: AbortHandle,
}

impl<T: Clone + Send + Sync + 'static> Flight<T> {
    /// Begins the work.
    pub(super) fn begin(begun: Instant, work: impl Future<Output = T> + Send + 'static) -> Self {
        let (land, landed) = watch::channel(None);
        let work = async move { drop(land.send_replace(Some(work.await))) };
        Self { begun, landed, task: tokio::spawn(work).abort_handle() }
    }

    /// When it began.
    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// What it gave, if it is over.
    pub(super) fn landed(&self) -> Option<T> {
        self.landed.borrow().clone()
    }

    /// Whether it has given what it gives, or never will.
    pub(super) fn is_over(&self) -> bool {
        self.landed.has_changed().is_err() || self.landed.borrow().is_some()
    }

    /// What it gives; nothing where it was cut short (it panicked, or the runtime ends).
    pub(super) async fn wait(&self) -> Option<T> {
        let mut landed = self.landed.clone();
        landed.wait_for(Option::is_some).await.ok().and_then(|landed| landed.clone())
    }
}

impl<T> Drop for Flight<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn everybody_who_waits_hears_the_one_answer() {
        let (go, gone) = (Arc::new(Notify::new()), Arc::new(AtomicU32::new(0)));
        let (wait, count) = (Arc::clone(&go), Arc::clone(&gone));
        let flight = Arc::new(Flight::begin(Instant::now(), async move {
            wait.notified().await;
            count.fetch_add(1, Ordering::Relaxed)
        }));
        let waiters: Vec<_> = (0..8)
            .map(|_| {
                let flight = Arc::clone(&flight);
                tokio::spawn(async move { flight.wait().await })
            })
            .collect();
        waiters[0].abort();
        go.notify_one();
        for waiter in waiters.into_iter().skip(1) {
            assert_eq!(waiter.await.unwrap(), Some(0));
        }
        assert_eq!(flight.landed(), Some(0));
        assert_eq!(gone.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn work_that_panics_is_an_end_and_no_hang() {
        let flight = Flight::<()>::begin(Instant::now(), async { panic!("on purpose") });
        assert_eq!(flight.wait().await, None);
        assert_eq!(flight.wait().await, None);
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_cancelled() {
        struct Tell(Option<tokio::sync::oneshot::Sender<()>>);
        impl Drop for Tell {
            fn drop(&mut self) {
                let _ = self.0.take().unwrap().send(());
            }
        }
        let (tell, told) = tokio::sync::oneshot::channel();
        let tell = Tell(Some(tell));
        let flight = Flight::<()>::begin(Instant::now(), async move {
            let _tell = tell;
            std::future::pending().await
        });
        drop(flight);
        told.await.unwrap();
    }
}
