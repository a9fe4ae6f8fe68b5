// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The kernel's mount interface, as far as the warden needs it: tmpfs only, and who asks gives descriptors, never a path.
//!
//! Whether a mount may be made, where, and for whom is decided elsewhere.

mod by_path;
mod linux;
mod table;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

pub use linux::{LinuxKernel, TooOld};

/// The mount source of every volume, as `findmnt` shows it. Only root can choose one, so a tmpfs with this source that
/// nobody remembers is a volume from before a restart.
pub const VOLUME_SOURCE: &str = "evanesce";

/// A tmpfs to be made. All of them are `nosuid,nodev,noexec`, and `noswap` where the kernel has it.
#[derive(Debug, Clone, Copy)]
pub struct Tmpfs<'a> {
    /// The mount source to show.
    pub source: &'static str,
    /// Bytes; never 0, which tmpfs reads as "no limit".
    pub size: u64,
    /// Inodes; never 0, for the same reason.
    pub inodes: u64,
    /// Permissions of the root directory.
    pub mode: u32,
    /// Owner and group of the root directory.
    pub owner: u32,
    /// The SELinux label of everything in it; the policy's own where absent. A kernel without SELinux refuses any.
    pub context: Option<&'a str>,
}

impl Tmpfs<'_> {
    /// What the file system is told, as names and values; a name without a value is a flag.
    fn options(&self, noswap: bool) -> Vec<(&'static str, String)> {
        let mut options = vec![
            ("size", self.size.to_string()),
            ("nr_inodes", self.inodes.to_string()),
            ("mode", format!("{:04o}", self.mode)),
            ("uid", self.owner.to_string()),
            ("gid", self.owner.to_string()),
        ];
        options.extend(self.context.map(|label| ("context", label.to_owned())));
        options.extend(noswap.then(|| ("noswap", String::new())));
        options
    }
}

/// One mount, as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The directory of the file system that the mount shows; `/` for all of it.
    pub root: String,
    /// The file system's type.
    pub fs_type: String,
    /// The mount source.
    pub source: String,
    /// The mount's options, then the file system's.
    pub options: Vec<String>,
}

impl Mount {
    /// Whether this is a volume: all of a tmpfs that this driver made.
    #[must_use]
    pub fn is_volume(&self) -> bool {
        self.fs_type == "tmpfs" && self.source == VOLUME_SOURCE && self.root == "/"
    }
}

/// Which of the two ways into a tmpfs a clone is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// For the pod.
    ReadOnly,
    /// For us.
    Writable,
}

/// What the warden asks of the kernel. Descriptors of mounts are `O_PATH` ones of their root directories.
pub trait Kernel {
    /// A new tmpfs, mounted nowhere; it lives as long as the descriptor or a clone.
    ///
    /// # Errors
    /// The kernel's.
    fn make_tmpfs(&self, tmpfs: &Tmpfs<'_>) -> io::Result<OwnedFd>;

    /// A second, private mount of the same file system, mounted nowhere.
    ///
    /// # Errors
    /// The kernel's.
    fn clone_mount(&self, mount: BorrowedFd<'_>, access: Access) -> io::Result<OwnedFd>;

    /// The mount is held no longer, once the caller closes its descriptor.
    fn release(&self, mount: BorrowedFd<'_>);

    /// Mounts a detached mount on a directory, visible to whoever shares the directory's mount.
    ///
    /// # Errors
    /// The kernel's.
    fn attach(&self, mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()>;

    /// Unmounts the mount whose root directory this is, and no other; open files in it stay usable.
    ///
    /// # Errors
    /// The kernel's.
    fn detach(&self, root: BorrowedFd<'_>) -> io::Result<()>;

    /// Changes a tmpfs's size, in bytes, and its inodes.
    ///
    /// # Errors
    /// The kernel's; `EINVAL` when more than that is in use.
    fn resize(&self, mount: BorrowedFd<'_>, size: u64, inodes: u64) -> io::Result<()>;

    /// The mount whose root directory this is, or `None` when it is an ordinary directory or mounted nowhere.
    ///
    /// # Errors
    /// The kernel's.
    fn mount_at(&self, directory: BorrowedFd<'_>) -> io::Result<Option<Mount>>;

    /// The devices of all volumes that are mounted beneath a directory, whoever made them.
    ///
    /// # Errors
    /// The kernel's.
    fn volumes(&self, beneath: &Path) -> io::Result<Vec<u64>>;
}
