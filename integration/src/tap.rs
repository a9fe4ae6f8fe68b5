// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A tap on a Unix socket: passes everything on, and sees when a connection ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// A running tap.
pub struct Tap {
    path: PathBuf,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    made: AtomicUsize,
    ended: AtomicUsize,
}

impl Tap {
    /// Listens at `path` for connections to `socket`, in the background of the current runtime.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn on(socket: &Path, path: PathBuf) -> Result<Self> {
        let listener = UnixListener::bind(&path).context("cannot listen")?;
        let (socket, counts) = (socket.to_owned(), Arc::new(Counts::default()));
        let counted = Arc::clone(&counts);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                counted.made.fetch_add(1, Ordering::SeqCst);
                let (socket, counted) = (socket.clone(), Arc::clone(&counted));
                tokio::spawn(async move { pass(client, &socket, &counted).await });
            }
        });
        Ok(Self { path, counts, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Connections so far.
    #[must_use]
    pub fn made(&self) -> usize {
        self.counts.made.load(Ordering::SeqCst)
    }

    /// Those that have ended, whoever hung up: told to go away, a client may be faster than the server.
    #[must_use]
    pub fn ended(&self) -> usize {
        self.counts.ended.load(Ordering::SeqCst)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut client: UnixStream, socket: &Path, counts: &Counts) {
    let Ok(mut server) = UnixStream::connect(socket).await else { return };
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
    }
    counts.ended.fetch_add(1, Ordering::SeqCst);
}
