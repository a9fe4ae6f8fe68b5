// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce demo`: the main job, for real, with nothing installed and nothing configured.
//!
//! It starts the real node plugin, plays kubelet over the real socket, and tells one of two stories, with every audit event
//! as it happens:
//!
//! - [`swap`]: what a pod sees of a few secrets, and how a change reaches it;
//! - [`rotate`]: a database's credentials that come and go under a client that never fails.
//!
//! **Nothing stays behind, however it ends.** All that it makes lies on a tmpfs in a mount namespace of its own, and all
//! that it starts is killed by the kernel when the demo is gone ([`tied`]). So there is no folder to remove and no mount
//! to take off, not even after `kill -9`.

mod audit;
mod backend;
mod ground;
mod kubelet;
mod look;
mod openbao;
mod plugin;
mod postgres;
mod program;
mod reduced;
mod rotate;
mod show;
mod swap;
mod tied;
mod wait;

use std::fmt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use self::ground::Ground;
use self::show::{Seen, Show, Summary};
use crate::args::{Demo, Output};

/// The longest that any one step may take: a machine that is busy building something else is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// An end that has an exit code of its own.
#[derive(Debug)]
enum End {
    /// This machine lacks something that the demo needs: 3.
    NotHere(String),
    /// A signal asked it to stop: 128 and the signal's number, as a shell has it.
    Interrupted(SignalKind),
}

impl End {
    fn code(&self) -> u8 {
        match self {
            Self::NotHere(_) => 3,
            Self::Interrupted(signal) => u8::try_from(128 + signal.as_raw_value()).unwrap_or(1),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHere(why) => f.write_str(why),
            Self::Interrupted(_) => f.write_str("interrupted: everything that was started has ended"),
        }
    }
}

/// Runs the demo. Call it before any thread starts: it moves the process into namespaces of its own.
pub(crate) fn run(args: &Demo, output: Output) -> anyhow::Result<ExitCode> {
    let show = Arc::new(Show::new(output));
    if args.rotate {
        return tell(&show, async |ground, folder, seen| rotate::play(ground, folder, &show, seen).await);
    }
    tell(&show, async |ground, folder, seen| swap::play(args.backend, ground, folder, &show, seen).await)
}

/// Tells a story, and what was seen of it, however it ends.
fn tell<S: Seen>(
    show: &Show,
    play: impl AsyncFnOnce(Ground, &Path, &mut S) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let mut seen = S::default();
    let result = set_up_and_play(show, async |ground, folder: &Path| play(ground, folder, &mut seen).await);
    seen.end(show);
    let error = result.as_ref().err();
    show.summary(&Summary { ok: result.is_ok(), seen, error: error.map(|error| format!("{error:#}")) })?;
    Ok(ExitCode::from(error.map_or(0, |error| error.downcast_ref::<End>().map_or(1, End::code))))
}

fn set_up_and_play(show: &Show, play: impl AsyncFnOnce(Ground, &Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let (ground, folder) = ground::enter()?;
    show.step(match ground {
        Ground::Root => "running as root, in a mount namespace of its own",
        Ground::Rootless => "running without root, in a user and mount namespace of its own",
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        tokio::select! {
            biased;
            signal = signals.next() => Err(anyhow::Error::msg(End::Interrupted(signal))),
            done = play(ground, &folder) => done,
        }
    });
    show.settle();
    if let Err(error) = &result
        && error.downcast_ref::<End>().is_none()
    {
        // The logs say why, and the folder that holds them is about to go.
        show.logs(&folder);
    }
    result
}

/// What a terminal, a supervisor or a closed window says to mean "stop".
struct Signals([(SignalKind, Signal); 3]);

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| Ok::<_, std::io::Error>((kind, signal(kind)?));
        let [interrupt, terminate, hangup] = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        Ok(Self([listen(interrupt)?, listen(terminate)?, listen(hangup)?]))
    }

    async fn next(&mut self) -> SignalKind {
        let [(interrupt, a), (terminate, b), (hangup, c)] = &mut self.0;
        tokio::select! {
            _ = a.recv() => *interrupt,
            _ = b.recv() => *terminate,
            _ = c.recv() => *hangup,
        }
    }
}
