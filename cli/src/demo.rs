// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce demo`: the main job, for real, with nothing installed and nothing configured.
//!
//! It seals a few secrets, starts the real node plugin, plays kubelet over the real socket, and shows what a pod would
//! see: the files, their modes, the mount's options, a swap after a change, and every audit event as it happens.
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
mod reduced;
mod show;
mod tied;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::backend::Source;
use self::ground::Ground;
use self::kubelet::Kubelet;
use self::plugin::Plugin;
use self::show::{Show, Summary};
use crate::args::{Demo, DemoBackend, Output};

/// The longest that any one step may take: a machine that is busy building something else is slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pod's fsGroup, where files can be given to a group.
const GROUP: u32 = 2000;

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
    let mut summary = Summary::default();
    let result = set_up_and_play(args.backend, &show, &mut summary);
    summary.ok = result.is_ok();
    summary.audit_events = show.events();
    let code = result.err().map(|error| {
        summary.error = Some(format!("{error:#}"));
        error.downcast_ref::<End>().map_or(1, End::code)
    });
    show.summary(&summary)?;
    Ok(ExitCode::from(code.unwrap_or(0)))
}

fn set_up_and_play(kind: DemoBackend, show: &Arc<Show>, summary: &mut Summary) -> anyhow::Result<()> {
    let (ground, folder) = ground::enter()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        tokio::select! {
            biased;
            signal = signals.next() => Err(anyhow::Error::msg(End::Interrupted(signal))),
            done = play(kind, ground, &folder, show, summary) => done,
        }
    });
    if let Err(error) = &result
        && error.downcast_ref::<End>().is_none()
    {
        // The logs say why, and the folder that holds them is about to go.
        show.logs(&folder);
    }
    result
}

async fn play(
    kind: DemoBackend,
    ground: Ground,
    folder: &Path,
    show: &Arc<Show>,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    show.step(match ground {
        Ground::Root => "running as root, in a mount namespace of its own",
        Ground::Rootless => "running without root, in a user and mount namespace of its own",
    })?;
    let source = Source::start(kind, folder).await?;
    show.step(source.describe())?;
    let plugin = Plugin::start(folder, ground, source.flag(), Arc::clone(show)).await?;
    show.step(format_args!("started the node plugin: {}", plugin.program()))?;
    summary.reduced = plugin.reduced()?;
    let lacks = |word| summary.reduced.iter().any(|reduced| reduced.as_str() == word);
    let group = (!lacks(reduced::FS_GROUP)).then_some(GROUP);
    let noswap = !lacks(reduced::NOSWAP);
    let kubelet = Kubelet::new(folder, group);
    kubelet.register(&plugin).await?;
    show.step("registered it, as kubelet's plugin watcher does")?;

    kubelet.publish(&plugin).await.context("the first publish failed")?;
    let before = look::at(kubelet.target())?;
    summary.files = before.files().count();
    summary.mount_options = look::mount_options(kubelet.target())?;
    show.step("published a volume for the pod payments/web-0, which sees")?;
    show.tree(kubelet.target(), &before, None)?;
    show.options(&summary.mount_options)?;
    check_tree(&before, group)?;
    check_options(&summary.mount_options, noswap)?;

    source.change()?;
    show.step("changed the password at its source; waiting for the refresh")?;
    let after = look::until_swapped(kubelet.target(), &before, PATIENCE).await?;
    summary.swaps = 1;
    kubelet.publish(&plugin).await.context("kubelet's repeated publish failed")?;
    show.step(format_args!("swapped in one rename: {} → {}", before.generation, after.generation))?;
    show.tree(kubelet.target(), &after, Some(&before))?;
    check_tree(&after, group)?;
    let changed: BTreeSet<&str> = after.changed_since(&before).collect();
    ensure!(changed == BTreeSet::from(backend::CHANGING), "other files changed than should have: {changed:?}");

    kubelet.unpublish(&plugin).await.context("unpublish failed")?;
    ensure!(look::mount_options(kubelet.target()).is_err(), "the mount is still there");
    ensure!(!kubelet.target().exists(), "the volume's folder is still there");
    ensure!(!plugin.has_records()?, "a record is left");
    show.step("unpublished it: no mount, no folder and no record is left")?;
    plugin.stop().await?;
    ensure!(show.events() > 0, "no audit event was written");
    show.step("stopped the plugin: no process and no socket is left, and no file was ever on a disk")?;
    Ok(())
}

/// What the demo claims of the files, held against what the pod sees.
fn check_tree(tree: &look::Tree, group: Option<u32>) -> anyhow::Result<()> {
    let seen: Vec<&str> = tree.files().map(|file| file.path.as_str()).collect();
    ensure!(seen == backend::FILES, "the volume shows {seen:?} and should show {:?}", backend::FILES);
    let (mode, gid) = group.map_or((0o400, 0), |group| (0o440, group));
    for file in tree.files() {
        let mode = if file.path == backend::OPEN_FILE { 0o444 } else { mode };
        let is = (file.mode, file.uid, file.gid);
        ensure!(is == (mode, 0, gid), "{} has mode {:04o} and owner {}:{}", file.path, is.0, is.1, is.2);
    }
    Ok(())
}

/// What the demo claims of the mount.
fn check_options(options: &[String], noswap: bool) -> anyhow::Result<()> {
    let wanted = ["ro", "nosuid", "nodev", "noexec"].into_iter().chain(noswap.then_some("noswap"));
    for option in wanted {
        ensure!(options.iter().any(|have| have == option), "the mount lacks {option}; it has {}", options.join(","));
    }
    Ok(())
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
