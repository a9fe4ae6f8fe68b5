// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What a pod sees, read the safe way: one open of `..data`, and everything beneath it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::fs::{Mode, OFlags};

/// One consistent set of files.
pub(crate) struct Tree {
    /// The generation's folder.
    pub(crate) generation: String,
    /// The files, in the order of their paths.
    pub(crate) files: Vec<File>,
}

/// One file, without its contents.
pub(crate) struct File {
    /// Below the volume's root.
    pub(crate) path: String,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Length in bytes.
    pub(crate) size: u64,
}

/// Reads the volume at `target`.
///
/// # Errors
/// Where it is not a volume.
pub(crate) fn at(target: &Path) -> anyhow::Result<Tree> {
    let generation =
        fs::read_link(target.join("..data")).with_context(|| format!("{} has no ..data", target.display()))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let data = rustix::fs::open(target.join("..data"), flags, Mode::empty())?;
    // A descriptor keeps its meaning whatever ..data points to next.
    let root = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&data));
    let mut files = Vec::new();
    walk(Path::new(&root), "", &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Tree { generation: generation.to_string_lossy().into_owned(), files })
}

fn walk(folder: &Path, prefix: &str, files: &mut Vec<File>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            walk(&entry.path(), &format!("{path}/"), files)?;
        } else {
            let mode = metadata.mode() & 0o7777;
            files.push(File { path, mode, uid: metadata.uid(), gid: metadata.gid(), size: metadata.size() });
        }
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
        // The file system below stays writable for the plugin; what counts for the pod is the mount.
        all.extend(filesystem.split(',').filter(|option| *option != "rw").map(str::to_owned));
        return Ok(all);
    }
    bail!("nothing is mounted at {}", target.display())
}

/// The names in a folder.
///
/// # Errors
/// Where it cannot be read.
pub(crate) fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Waits until another generation is shown than the one in `before`.
///
/// # Errors
/// Where none is within `limit`.
pub(crate) async fn until_swapped(target: &Path, before: &Tree, limit: Duration) -> anyhow::Result<Tree> {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        let now = at(target)?;
        if now.generation != before.generation {
            return Ok(now);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("the change did not reach the volume within {limit:?}")
}
