// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What is on the node, compared with the volumes that have to be there: mounts, directories, records, descriptors.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use evanesce_integration::plugin::{DRIVER, Plugin};
use evanesce_integration::processes::Process;
use evanesce_integration::{mounts, wait};

/// The volumes that have to be there, by id, and their targets.
pub(crate) type Live = (BTreeSet<String>, BTreeSet<PathBuf>);

/// Descriptors of a plugin without volumes.
pub(crate) struct Leaks {
    warden: usize,
    engine: usize,
}

impl Leaks {
    /// Looks at a plugin that has no volume yet.
    pub(crate) async fn look(plugin: &Plugin) -> Self {
        let engine = wait::until_some("the engine half runs", || plugin.engine()).await;
        Self { warden: descriptors(plugin.warden()), engine: descriptors(engine) }
    }

    /// Nothing is there that is no live volume's, and nothing of theirs is missing. Nobody may change anything meanwhile.
    pub(crate) async fn assert_none(&self, live: Live, plugin: &mut Plugin) {
        plugin.ready().await.unwrap();
        let (volumes, targets) = live;

        let mounted: Vec<_> = mounts::below(plugin.pods()).into_iter().map(|mount| mount.target).collect();
        assert_eq!(mounted.len(), targets.len(), "mounts beside the volumes {targets:?}");
        assert_eq!(mounted.into_iter().collect::<BTreeSet<_>>(), targets, "mounts");
        assert_eq!(directories(plugin), targets, "target directories");

        let state = plugin.state().join(DRIVER);
        assert!(mounts::at(&state).len() <= 1, "the state directory is mounted twice");
        let mut records = names(&state);
        assert!(records.remove("key"), "the digest key is gone");
        assert!(records.remove("admin.sock"), "the operator's socket is gone");
        records.remove("staging");
        assert_eq!(records, volumes.iter().map(|id| format!("{id}.json")).collect(), "records");
        assert_eq!(mounts::below(&state.join("staging")), [], "mounts in the staging directory");

        let live = volumes.len();
        let engine = wait::until_some("the engine half runs", || plugin.engine()).await;
        for (who, process, most) in
            [("warden", plugin.warden(), self.warden + live), ("engine half", engine, self.engine + live)]
        {
            // Connections end a moment after the last call.
            let what = format!("the {who} has no more than {most} descriptors for {live} volumes");
            wait::until(&what, || descriptors(process) <= most).await;
        }
    }
}

fn descriptors(process: Process) -> usize {
    fs::read_dir(process.path("fd")).map_or(usize::MAX, Iterator::count)
}

/// Every target directory, whether something is mounted on it or not.
fn directories(plugin: &Plugin) -> BTreeSet<PathBuf> {
    let pods = fs::read_dir(plugin.pods()).unwrap().flatten();
    let volumes = pods.filter_map(|pod| fs::read_dir(pod.path().join("volumes/kubernetes.io~csi")).ok());
    volumes.flatten().flatten().map(|volume| volume.path().join("mount")).filter(|target| target.exists()).collect()
}

fn names(directory: &std::path::Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
