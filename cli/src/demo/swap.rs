// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The first story: a pod's files, their modes, the mount's options, and a change that reaches the pod in one rename.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use serde::Serialize;

use super::backend::Source;
use super::ground::Ground;
use super::kubelet::Kubelet;
use super::plugin::Plugin;
use super::show::{Seen, Show};
use super::{backend, look, reduced};
use crate::args::DemoBackend;

/// The pod's fsGroup, where files can be given to a group.
const GROUP: u32 = 2000;

/// What was seen.
#[derive(Default, Serialize)]
pub(crate) struct SwapSeen {
    /// How many files the pod saw.
    files: usize,
    /// The mount's options.
    mount_options: Vec<String>,
    /// How many swaps the pod saw.
    swaps: usize,
    /// How many audit events were written.
    audit_events: usize,
    /// What a node has and this machine has not.
    reduced: Vec<String>,
}

impl fmt::Display for SwapSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, swaps, audit_events, .. } = self;
        let swaps = if *swaps == 1 { "1 swap".to_owned() } else { format!("{swaps} swaps") };
        write!(f, "{files} files, {swaps}, {audit_events} audit events")
    }
}

impl Seen for SwapSeen {
    fn end(&mut self, show: &Show) {
        self.audit_events = show.events();
    }

    fn reduced(&self) -> &[String] {
        &self.reduced
    }
}

/// Plays it.
pub(crate) async fn play(
    kind: DemoBackend,
    ground: Ground,
    folder: &Path,
    show: &Arc<Show>,
    seen: &mut SwapSeen,
) -> anyhow::Result<()> {
    let source = Source::start(kind, folder).await?;
    show.step(source.describe())?;
    let plugin = Plugin::start(folder, ground, source.flag(), Arc::clone(show)).await?;
    show.step(format_args!("started the node plugin: {}", plugin.program()))?;
    seen.reduced = plugin.reduced()?;
    let lacks = |word| seen.reduced.iter().any(|reduced| reduced.as_str() == word);
    let group = (!lacks(reduced::FS_GROUP)).then_some(GROUP);
    let noswap = !lacks(reduced::NOSWAP);
    let kubelet = Kubelet::new(folder, group);
    kubelet.register(&plugin).await?;
    show.step("registered it, as kubelet's plugin watcher does")?;

    kubelet.publish(&plugin).await.context("the first publish failed")?;
    let before = look::at(kubelet.target())?;
    seen.files = before.files().count();
    seen.mount_options = look::mount_options(kubelet.target())?;
    show.step("published a volume for the pod payments/web-0, which sees")?;
    show.tree(kubelet.target(), &before, None)?;
    show.options(&seen.mount_options)?;
    check_tree(&before, group)?;
    check_options(&seen.mount_options, noswap)?;

    source.change()?;
    show.step("changed the password at its source; waiting for the refresh")?;
    let after = look::until_swapped(kubelet.target(), &before).await?;
    seen.swaps = 1;
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
