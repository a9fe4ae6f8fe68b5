// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What a pod sees, read the safe way: one open of `..data`, and everything beneath it. Contents are not looked at.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use rustix::fs::{Mode, OFlags};

use super::{PATIENCE, wait};

/// One consistent set of files.
pub(crate) struct Tree {
    /// The generation's folder.
    pub(crate) generation: String,
    /// Files and folders in the order of their paths, so that a folder is followed by what it holds.
    pub(crate) entries: Vec<Entry>,
}

/// A file or a folder.
pub(crate) struct Entry {
    /// Below the volume's root.
    pub(crate) path: String,
    /// Which of the two.
    pub(crate) kind: Kind,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Length in bytes.
    pub(crate) size: u64,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
}

impl Tree {
    /// The files alone.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.kind == Kind::File)
    }

    /// The files that are not as they were. Lengths tell: the demo's secrets change theirs.
    pub(crate) fn changed_since(&self, before: &Self) -> impl Iterator<Item = &str> {
        self.files().filter(|file| file.was_other_in(before)).map(|file| file.path.as_str())
    }
}

impl Entry {
    /// Whether it was not there, or of another length.
    pub(crate) fn was_other_in(&self, before: &Tree) -> bool {
        self.kind == Kind::File && !before.files().any(|file| file.path == self.path && file.size == self.size)
    }
}

/// Reads the volume at `target`.
///
/// # Errors
/// Where it is not a volume.
pub(crate) fn at(target: &Path) -> anyhow::Result<Tree> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let data = rustix::fs::open(target.join("..data"), flags, Mode::empty())
        .with_context(|| format!("{} shows no volume", target.display()))?;
    // A descriptor keeps its meaning whatever ..data points to next; so does its name.
    let root = format!("/proc/self/fd/{}", data.as_raw_fd());
    let generation = fs::read_link(&root)?;
    let generation = generation.file_name().context("a generation has a name")?.to_string_lossy().into_owned();
    let mut entries = Vec::new();
    walk(Path::new(&root), "", &mut entries)?;
    entries.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
    Ok(Tree { generation, entries })
}

fn walk(folder: &Path, prefix: &str, entries: &mut Vec<Entry>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let metadata = entry.metadata()?;
        let kind = if metadata.is_dir() { Kind::Folder } else { Kind::File };
        if kind == Kind::Folder {
            walk(&entry.path(), &format!("{path}/"), entries)?;
        }
        let (mode, uid, gid) = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
        entries.push(Entry { path, kind, mode, uid, gid, size: metadata.size() });
    }
    Ok(())
}

/// The options of the mount at `target`: of the mount, then of its file system.
///
/// # Errors
/// Where nothing is mounted there.
pub(crate) fn mount_options(target: &Path) -> anyhow::Result<Vec<String>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(4);
        let (Some(point), Some(options)) = (fields.next(), fields.next()) else { continue };
        if Path::new(point) != target {
            continue;
        }
        let filesystem = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').nth(2)).unwrap_or_default();
        let mut all: Vec<String> = options.split(',').map(str::to_owned).collect();
        // The file system beneath stays writable for the plugin; what counts for the pod is the mount.
        all.extend(filesystem.split(',').filter(|option| *option != "rw").map(str::to_owned));
        return Ok(all);
    }
    bail!("nothing is mounted at {}", target.display())
}

/// Waits until another generation is shown than the one in `before`.
///
/// # Errors
/// Where none is for as long as one step may take.
pub(crate) async fn until_swapped(target: &Path, before: &Tree) -> anyhow::Result<Tree> {
    wait::until(
        || format!("the change did not reach the volume within {PATIENCE:?}"),
        async || {
            let now = at(target)?;
            Ok((now.generation != before.generation).then_some(now))
        },
    )
    .await
}
