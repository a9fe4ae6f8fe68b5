// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What a pod sees of its volume, read in the way that is safe while files are being swapped: everything beneath one
//! open directory. Two opens by path can meet two generations, whoever writes them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// File contents by their path below the volume's root.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What one look at a volume has shown.
#[derive(Debug, PartialEq, Eq)]
pub enum Sight {
    /// Nothing is there: no directory, or an empty one.
    Absent,
    /// There are files.
    Files(Files),
}

/// Looks at the target as a pod that starts does: opens the directory once, and reads what is in it through the links.
///
/// # Errors
/// What a reader would meet.
pub fn look(target: &Path) -> io::Result<Sight> {
    let root = match open(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Sight::Absent),
        root => root?,
    };
    let root = through(&root);
    let mut files = Files::new();
    for entry in fs::read_dir(&root)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") {
            read_below(&root, &name, &mut files)?;
        }
    }
    let is_empty = files.is_empty() && fs::read_dir(&root)?.next().is_none();
    Ok(if is_empty { Sight::Absent } else { Sight::Files(files) })
}

/// Reads one generation: opens `..data` once and reads beneath it.
///
/// # Errors
/// What a reader would meet.
pub fn generation(target: &Path) -> io::Result<Files> {
    let generation = open(&target.join("..data"))?;
    let root = through(&generation);
    let mut files = Files::new();
    for entry in fs::read_dir(&root)? {
        read_below(&root, &entry?.file_name().to_string_lossy(), &mut files)?;
    }
    Ok(files)
}

/// One file by its path, as most applications read.
///
/// # Panics
/// When it cannot be read or is not text.
#[must_use]
pub fn text(target: &Path, file: &str) -> String {
    let path = target.join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// The folder that `..data` points to.
///
/// # Errors
/// When there is none.
pub fn shown(target: &Path) -> io::Result<PathBuf> {
    fs::read_link(target.join("..data"))
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// A path that means the open directory, wherever its name has gone.
fn through(directory: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

fn read_below(root: &Path, name: &str, files: &mut Files) -> io::Result<()> {
    let path = root.join(name);
    if !fs::metadata(&path)?.is_dir() {
        files.insert(name.to_owned(), fs::read(&path)?);
        return Ok(());
    }
    for entry in fs::read_dir(&path)? {
        read_below(root, &format!("{name}/{}", entry?.file_name().to_string_lossy()), files)?;
    }
    Ok(())
}
