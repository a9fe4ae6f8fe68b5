// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce demo`: the main job, for real, with nothing installed and nothing configured.
//!
//! It seals a few secrets, starts the real node plugin, plays kubelet over the real socket, and shows what a pod would
//! see: the files, their modes, the mount's options, a swap after a change, and every audit event as it happens. What it
//! makes lies in a temporary folder and in a mount namespace of its own, so even a killed demo leaves no mount.

mod backend;
mod ground;
mod kubelet;
mod look;
mod plugin;
mod show;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};

use self::backend::Source;
use self::ground::Ground;
use self::kubelet::Kubelet;
use self::plugin::Plugin;
use self::show::{Show, Summary};
use crate::output::Output;

/// The longest that any one step may take: a machine that is busy building something else is slow.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pod's fsGroup where there is more than one group id.
const GROUP: u32 = 2000;

/// What the demo is told.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Where the secrets live: sealed files that the demo makes, or a real OpenBao server that it starts.
    #[arg(long, value_enum, default_value_t = Kind::Sealed)]
    backend: Kind,
}

/// Where the demo's secrets live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// age-encrypted files; needs nothing.
    Sealed,
    /// A server; needs the program `bao`.
    Openbao,
}

/// Runs the demo. Call it before any thread starts: it moves the process into namespaces of its own.
///
/// # Errors
/// What failed, and what to do about it.
pub(crate) fn run(args: &DemoArgs, output: Output) -> anyhow::Result<()> {
    let ground = ground::enter()?;
    let folder =
        tempfile::Builder::new().prefix("evanesce-demo-").tempdir().context("no temporary folder can be made")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut show = Show::new(output);
    let result = runtime.block_on(play(args.backend, ground, folder.path(), &mut show));
    // The plugin's log says why, and the folder that holds it is about to go.
    if result.is_err() {
        show.log(&folder.path().join("evanesce-csi.log"));
    }
    result
}

async fn play(kind: Kind, ground: Ground, folder: &Path, show: &mut Show) -> anyhow::Result<()> {
    show.step(match ground {
        Ground::Root => "running as root, in a mount namespace of its own",
        Ground::Rootless => "running without root, in a user and mount namespace of its own",
    });
    let mut source = Source::start(kind, folder).await?;
    show.step(&source.describe());
    let mut plugin = Plugin::start(folder, ground, show).await?;
    show.step(&format!("started the node plugin ({})", plugin.program()));
    let kubelet = Kubelet::new(folder, ground);
    kubelet.register(&plugin).await?;
    show.step("registered it as kubelet's plugin watcher would");

    kubelet.publish(&plugin).await.context("the first publish failed")?;
    plugin.show_events(show);
    let before = look::at(kubelet.target())?;
    let options = look::mount_options(kubelet.target())?;
    show.step("published a pod's volume; the pod sees");
    show.tree(&before);
    show.options(&options);
    check(&before, &options, ground)?;

    source.change().await?;
    show.step("changed the password; waiting for the refresh");
    let after = look::until_swapped(kubelet.target(), &before, PATIENCE).await?;
    kubelet.publish(&plugin).await.context("kubelet's repeated publish failed")?;
    ensure!(after.files.len() == before.files.len(), "files were lost in the swap");
    show.step(&format!("swapped in one step: {} → {}", before.generation, after.generation));
    show.tree(&after);

    plugin.show_events(show);
    kubelet.unpublish(&plugin).await.context("unpublish failed")?;
    ensure!(!kubelet.target().exists(), "the volume's folder is still there");
    ensure!(look::mount_options(kubelet.target()).is_err(), "the mount is still there");
    show.step("unpublished it: no mount, no folder, no record is left");
    ensure!(look::names(&folder.join("state"))?.iter().all(|name| !name.starts_with("csi-")), "a record is left");
    let audit_events = plugin.stop(show, PATIENCE).await?;
    ensure!(audit_events > 0, "no audit event was written");
    show.summary(&Summary {
        ok: true,
        files: after.files.len(),
        mount_options: options,
        swaps: 1,
        audit_events,
        reduced: ground.reduced(),
    });
    Ok(())
}

/// What the demo claims, held against what it sees.
fn check(tree: &look::Tree, options: &[String], ground: Ground) -> anyhow::Result<()> {
    let expected: BTreeSet<&str> = backend::FILES.into_iter().collect();
    let seen: BTreeSet<&str> = tree.files.iter().map(|file| file.path.as_str()).collect();
    ensure!(seen == expected, "the volume shows {seen:?} and should show {expected:?}");
    let (mode, gid) = match ground {
        Ground::Root => (0o440, GROUP),
        Ground::Rootless => (0o400, 0),
    };
    for file in tree.files.iter().filter(|file| file.path != backend::OPEN_FILE) {
        ensure!(
            (file.mode, file.uid, file.gid) == (mode, 0, gid),
            "{} has mode {:04o} and owner {}:{}",
            file.path,
            file.mode,
            file.uid,
            file.gid
        );
    }
    let mut wanted = vec!["ro", "nosuid", "nodev", "noexec"];
    if ground == Ground::Root {
        wanted.push("noswap");
    }
    for option in wanted {
        ensure!(options.iter().any(|have| have == option), "the mount lacks {option}; it has {}", options.join(","));
    }
    Ok(())
}
