// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The mount table as a test sees it: `/proc/self/mountinfo`, parsed.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One line of the mount table (`proc_pid_mountinfo(5)`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Unique while the mount exists; a replaced mount gets another.
    pub id: u64,
    /// Where it is mounted.
    pub target: PathBuf,
    /// Options of this mount: `ro`, `nosuid`, …
    pub options: Vec<String>,
    /// Type of the filesystem, `tmpfs` for a volume.
    pub filesystem: String,
    /// Options of the filesystem: `size=…`, `noswap`, …
    pub filesystem_options: Vec<String>,
}

impl Mount {
    /// Whether the mount, or else its filesystem, has this option.
    #[must_use]
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().chain(&self.filesystem_options).any(|have| have == option)
    }

    /// The value of an option of the filesystem, as `size` in `size=1024k`.
    #[must_use]
    pub fn value(&self, option: &str) -> Option<&str> {
        self.filesystem_options.iter().find_map(|have| have.strip_prefix(option)?.strip_prefix('='))
    }
}

/// Every mount at `path` exactly, bottom first.
///
/// # Panics
/// When the mount table cannot be read.
#[must_use]
pub fn at(path: &Path) -> Vec<Mount> {
    below(path).into_iter().filter(|mount| mount.target == path).collect()
}

/// Every mount at or below `path`, in the order in which they were made.
///
/// # Panics
/// When the mount table cannot be read.
#[must_use]
pub fn below(path: &Path) -> Vec<Mount> {
    let table = fs::read("/proc/self/mountinfo").expect("/proc is mounted");
    String::from_utf8_lossy(&table).lines().filter_map(parse).filter(|mount| mount.target.starts_with(path)).collect()
}

fn parse(line: &str) -> Option<Mount> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut mount = mount.split(' ');
    let id = mount.next()?.parse().ok()?;
    let target = PathBuf::from(unescape(mount.nth(3)?));
    let options = list(mount.next()?);
    let mut filesystem = filesystem.split(' ');
    let kind = filesystem.next()?.to_owned();
    let filesystem_options = list(filesystem.nth(1)?);
    Some(Mount { id, target, options, filesystem: kind, filesystem_options })
}

fn list(options: &str) -> Vec<String> {
    options.split(',').map(str::to_owned).collect()
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(path: &str) -> String {
    ["\\040", "\\011", "\\012"]
        .into_iter()
        .zip([" ", "\t", "\n"])
        .fold(path.to_owned(), |path, (octal, plain)| path.replace(octal, plain))
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_mount_table_is_understood() {
        let line = r"619 24 0:63 / /pods/a\040b/mount ro,nosuid shared:1 - tmpfs tmpfs rw,size=1024k,noswap";
        let mount = parse(line).expect("a mount");
        assert_eq!(mount.id, 619);
        assert_eq!(mount.target, Path::new("/pods/a b/mount"));
        assert!(mount.has("ro") && mount.has("noswap") && !mount.has("nodev"));
        assert_eq!(mount.value("size"), Some("1024k"));
        assert_eq!(mount.filesystem, "tmpfs");
    }
}
