// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A private piece of the machine for one test: a mount namespace, a directory, a warden's insides.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use evanesce_csi::mount::{Kernel, Mount};
use evanesce_csi::mount::{LinuxKernel, Tmpfs};
use evanesce_csi::protocol::{TargetPath, VolumeId};
use evanesce_csi::warden::{PodsDir, StateDir, Volumes};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;

/// The uid that volumes belong to in these tests.
pub(crate) const OWNER: u32 = 60999;

/// What volumes may hold together.
pub(crate) const CEILING: u64 = 4 << 20;

/// A test's own directory in its own mount namespace. Mounts end with the thread.
pub(crate) struct Ground {
    root: tempfile::TempDir,
}

impl Ground {
    /// Moves the calling thread, and so the test and what it starts, into a mount namespace of its own. The `pods`
    /// directory in it is a shared mount, as kubelet's is.
    pub(crate) fn new() -> Self {
        enter_mount_namespace();
        let root = tempfile::tempdir().unwrap();
        for directory in ["pods", "pods/uid/volumes/csi/a", "state", "credentials", "classes", "csi", "registration"] {
            std::fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        let pods = root.path().join("pods");
        rustix::mount::mount_bind(&pods, &pods).unwrap();
        mount_change(&pods, MountPropagationFlags::SHARED).unwrap();
        Self { root }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn pods(&self) -> PathBuf {
        self.path("pods")
    }

    /// A target whose parent directory exists.
    pub(crate) fn target(&self) -> TargetPath {
        target(&self.pods().join("uid/volumes/csi/a/mount"))
    }

    pub(crate) fn kernel(&self) -> LinuxKernel {
        let state = StateDir::open(&self.path("state"), "test").unwrap();
        LinuxKernel::probe(OWNER, state.staging().unwrap()).unwrap().0
    }

    /// Volumes as a warden has them that has just started.
    pub(crate) fn volumes(&self) -> Volumes<LinuxKernel> {
        Volumes::new(self.kernel(), PodsDir::open(&self.pods()).unwrap(), OWNER, CEILING)
    }

    /// Everything under the directory, with symbolic links as such: to see that nothing was touched.
    pub(crate) fn tree(&self) -> Vec<PathBuf> {
        fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                found.push(entry.path());
                if entry.file_type().unwrap().is_dir() {
                    walk(&entry.path(), found);
                }
            }
        }
        let mut found = Vec::new();
        walk(self.root.path(), &mut found);
        found.sort();
        found
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // What is still mounted would keep the directory from being removed.
        let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        let mut points: Vec<_> = table.lines().filter_map(|line| line.split(' ').nth(4)).collect();
        points.retain(|point| Path::new(point).starts_with(self.root.path()));
        for point in points.iter().rev() {
            let _ = rustix::mount::unmount(*point, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

fn enter_mount_namespace() {
    // A thread may leave its process's mount namespace: the harness's other threads stay where they are.
    #[expect(unsafe_code, reason = "unshare is unsafe for what it does to descriptors; here it is the mounts alone")]
    // SAFETY: descriptors stay shared; paths are looked up anew by whoever uses them.
    let unshared = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) };
    if let Err(errno) = unshared {
        panic!(
            "a mount namespace is needed: {errno}: run the tests as root, or under `unshare --user --map-root-user`"
        );
    }
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).unwrap();
    // Of a plugin that runs on this machine, or of a test that was killed: not this test's to count, and only here gone.
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    for line in table.lines().filter(|line| line.contains(" - tmpfs evanesce")).collect::<Vec<_>>().iter().rev() {
        let point = line.split(' ').nth(4).expect("a mount has a mount point");
        // Where its directory is gone meanwhile, so is the mount.
        let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
    }
}

pub(crate) fn volume(id: &str) -> VolumeId {
    id.parse().unwrap()
}

pub(crate) fn target(path: &Path) -> TargetPath {
    path.to_str().unwrap().parse().unwrap()
}

/// Writes a file beneath a volume's root, as the engine half does: by descriptor.
pub(crate) fn write(root: &OwnedFd, name: &str, content: &str) -> OwnedFd {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(root, name, flags, Mode::from_raw_mode(0o444)).unwrap();
    assert_eq!(rustix::io::write(&file, content.as_bytes()).unwrap(), content.len());
    file
}

/// The mount that sits exactly at the path.
pub(crate) fn mount_at(kernel: &LinuxKernel, path: &TargetPath) -> Option<Mount> {
    let directory = rustix::fs::open(path.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    kernel.mount_at(directory.as_fd()).unwrap()
}

/// How many mounts of this source there are in this thread's namespace.
pub(crate) fn mounts_of(source: &str) -> usize {
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    table.lines().filter(|line| line.contains(&format!(" - tmpfs {source} "))).count()
}

/// A tmpfs that is not ours, on the path.
pub(crate) fn foreign_tmpfs(kernel: &LinuxKernel, path: &Path) {
    let tmpfs = Tmpfs { source: "somebody", size: 1 << 16, inodes: 16, mode: 0o755, owner: 0, context: None };
    let mount = kernel.make_tmpfs(&tmpfs).unwrap();
    let target = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    kernel.attach(mount.as_fd(), target.as_fd()).unwrap();
}
