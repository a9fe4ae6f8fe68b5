// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The volumes: made, filled through a descriptor by somebody else, attached, adopted, detached.
//!
//! What is remembered here is only what must be held open. Whether something is attached is asked of the kernel each time,
//! so a restart forgets nothing that matters.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use evanesce_engine::crash_point;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fstat, fstatvfs, openat, openat2};

use super::failure::{busy, failed, internal, invalid, no_space, not_found};
use super::paths::{PodsDir, beneath, is_empty};
use super::selinux::SelinuxContext;
use crate::mount::{Access, Kernel, Mount, Tmpfs, VOLUME_SOURCE};
use crate::protocol::{
    ErrorKind, MAX_INODES, MAX_OWN, Owner, TargetPath, VolumeId, VolumePath, WardenError, inodes_for,
};

/// The smallest tmpfs: one page.
const MIN_SIZE: u64 = 4096;

/// All volumes that this warden knows.
#[derive(Debug)]
pub struct Volumes<K> {
    kernel: K,
    pods: PodsDir,
    owner: u32,
    ceiling: u64,
    label: Option<SelinuxContext>,
    kept: HashMap<VolumeId, Kept>,
}

/// A volume's writable mount.
#[derive(Debug)]
struct Kept {
    mount: OwnedFd,
    device: u64,
    size: u64,
    target: Option<TargetPath>,
    /// The engine half that runs now has its root: it made the volume, or took it over.
    given: bool,
}

impl Kept {
    /// Finds a file or directory of the volume. Whoever fills the volume may exchange it meanwhile, for another of the volume.
    fn open(&self, path: &VolumePath) -> Result<OwnedFd, WardenError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat2(&self.mount, path.as_str(), flags, Mode::empty(), beneath() | ResolveFlags::NO_XDEV)
            .map_err(|errno| invalid(format!("a file to be owned is not on its volume: {errno}")))?;
        let stat = fstat(&file).map_err(|errno| internal(format!("fstat: {errno}")))?;
        if stat.st_dev != self.device {
            return Err(invalid("a file to be owned is not on its volume"));
        }
        if !matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Directory) {
            return Err(invalid("only regular files and directories get owners"));
        }
        Ok(file)
    }
}

impl<K: Kernel> Volumes<K> {
    /// No volumes yet. Their root directories will belong to `owner`, and all of them together hold `ceiling` bytes.
    pub fn new(kernel: K, pods: PodsDir, owner: u32, ceiling: u64) -> Self {
        Self { kernel, pods, owner, ceiling, label: None, kept: HashMap::new() }
    }

    /// The same, with an SELinux label for everything in a volume.
    #[must_use]
    pub fn labelled(self, label: Option<SelinuxContext>) -> Self {
        Self { label, ..self }
    }

    /// Makes a volume and opens its root directory.
    ///
    /// # Errors
    /// `Invalid`, `NoSpace` over the node's ceiling, `Busy` when the volume is attached.
    pub fn make(&mut self, volume: VolumeId, size: u64, inodes: u64) -> Result<OwnedFd, WardenError> {
        if self.kept.get(&volume).is_some_and(|kept| kept.target.is_some()) {
            return Err(busy(format!("volume {volume} is attached: detach it first")));
        }
        // Made by an engine half that never came to attaching it.
        self.forget(&volume);
        if !(1..=MAX_INODES).contains(&inodes) {
            return Err(invalid(format!("volume {volume}: {inodes} inodes is not within 1 to {MAX_INODES}")));
        }
        self.check_size(&volume, size)?;
        let context = self.label.as_ref().map(SelinuxContext::as_str);
        let tmpfs = Tmpfs { source: VOLUME_SOURCE, size, inodes, mode: 0o755, owner: self.owner, context };
        let mount = self.kernel.make_tmpfs(&tmpfs).map_err(failed("making a tmpfs"))?;
        crash_point!("make:tmpfs-made");
        let (root, device) = open_root(mount.as_fd())?;
        self.kept.insert(volume, Kept { mount, device, size, target: None, given: true });
        crash_point!("make:kept");
        Ok(root)
    }

    /// Gives files of a volume to owners.
    ///
    /// # Errors
    /// `NotFound` without such a volume; `Invalid` before anything is changed, when one of them is not a file or directory
    /// on it.
    pub fn own(&self, volume: &VolumeId, files: &[(VolumePath, Owner)]) -> Result<(), WardenError> {
        let kept = self.kept.get(volume).ok_or_else(|| unknown(volume))?;
        if files.len() > MAX_OWN {
            return Err(invalid(format!("{} files are more than {MAX_OWN}", files.len())));
        }
        // The all-ones id would mean "leave it" to the kernel.
        if files.iter().any(|(_, owner)| owner.uid == Some(u32::MAX) || owner.gid == Some(u32::MAX)) {
            return Err(invalid("4294967295 is no user and no group"));
        }
        let opened = files.iter().map(|(path, owner)| Ok((kept.open(path)?, owner)));
        for (file, owner) in opened.collect::<Result<Vec<_>, _>>()? {
            let (uid, gid) = (owner.uid.map(Uid::from_raw), owner.gid.map(Gid::from_raw));
            chownat(file, "", uid, gid, AtFlags::EMPTY_PATH)
                .map_err(|errno| failed("changing a file's owner")(errno.into()))?;
            crash_point!("own:owned");
        }
        Ok(())
    }

    /// Shows a read-only clone at the target. Done twice, it is done.
    ///
    /// # Errors
    /// `NotFound` without such a volume or parent directory, `Busy` when something else is there, `Invalid` for a target
    /// that may not be one.
    pub fn attach(&mut self, volume: &VolumeId, target: TargetPath) -> Result<Vec<String>, WardenError> {
        let kept = self.kept.get_mut(volume).ok_or_else(|| unknown(volume))?;
        if kept.target.as_ref().is_some_and(|there| *there != target) {
            return Err(busy(format!("volume {volume} is attached elsewhere")));
        }
        let place = self.pods.place(&target)?;
        let directory = place.open_or_make()?;
        crash_point!("attach:directory-made");
        let look = failed("looking at the target");
        if let Some(mount) = self.kernel.mount_at(directory.as_fd()).map_err(look)? {
            return if device_of(directory.as_fd())? == kept.device {
                kept.target = Some(target);
                Ok(mount.options)
            } else {
                Err(busy(format!("target {target}: something else is mounted there: unmount it first")))
            };
        }
        if !is_empty(directory.as_fd()).map_err(failed("reading the target directory"))? {
            return Err(busy(format!("target {target} is a directory with content that is not ours: left alone")));
        }
        let clone = self
            .kernel
            .clone_mount(kept.mount.as_fd(), Access::ReadOnly)
            .map_err(failed("cloning the volume's mount"))?;
        crash_point!("attach:cloned");
        self.kernel.attach(clone.as_fd(), directory.as_fd()).map_err(failed("attaching the volume"))?;
        crash_point!("attach:attached");
        kept.target = Some(target);
        let mount = self.kernel.mount_at(clone.as_fd()).map_err(failed("reading the mount's options"))?;
        Ok(mount.map(|mount| mount.options).unwrap_or_default())
    }

    /// Changes a volume's size, and gives it the inodes of that size, never fewer than it has.
    ///
    /// # Errors
    /// `NotFound`, `NoSpace` over the node's ceiling, `Busy` when more is in use.
    pub fn resize(&mut self, volume: &VolumeId, size: u64) -> Result<(), WardenError> {
        self.check_size(volume, size)?;
        let kept = self.kept.get_mut(volume).ok_or_else(|| unknown(volume))?;
        let there = fstatvfs(&kept.mount).map_err(|errno| internal(format!("fstatvfs: {errno}")))?.f_files;
        self.kernel.resize(kept.mount.as_fd(), size, inodes_for(size).max(there)).map_err(|error| {
            match error.raw_os_error() {
                Some(libc::EINVAL) => busy(format!("volume {volume} holds more than {size} bytes")),
                _ => failed("resizing the volume")(error),
            }
        })?;
        crash_point!("resize:resized");
        kept.size = size;
        Ok(())
    }

    /// Whether the volume is what sits at the target.
    ///
    /// # Errors
    /// `Invalid` for a target that may not be one.
    pub fn is_attached(&self, volume: &VolumeId, target: &TargetPath) -> Result<bool, WardenError> {
        Ok(match self.volume_at(target)? {
            Some((_, device)) => self.may_be(volume, device),
            None => false,
        })
    }

    /// Undoes whatever was done for the volume: the mount, if it is ours, the directory, the memory. Done twice, it is done.
    ///
    /// # Errors
    /// `Busy` when something at the target is not ours; it is left as it is.
    pub fn detach(&mut self, volume: &VolumeId, target: Option<&TargetPath>) -> Result<(), WardenError> {
        let remembered = self.kept.get(volume).and_then(|kept| kept.target.clone());
        if let Some(target) = target.or(remembered.as_ref()) {
            self.clear(volume, target)?;
        }
        crash_point!("detach:directory-removed");
        self.forget(volume);
        crash_point!("detach:forgotten");
        Ok(())
    }

    /// The writable root of a volume that is attached at the target, or `None` when it is not.
    ///
    /// # Errors
    /// `Invalid` for a target that may not be one.
    pub fn adopt(&mut self, volume: &VolumeId, target: TargetPath) -> Result<Option<OwnedFd>, WardenError> {
        let Some((directory, device)) = self.volume_at(&target)? else {
            self.forget(volume);
            return Ok(None);
        };
        if !self.may_be(volume, device) {
            return Err(invalid(format!("target {target} shows another volume than {volume}")));
        }
        if let Some(kept) = self.kept.get_mut(volume) {
            let root = open_root(kept.mount.as_fd())?.0;
            (kept.target, kept.given) = (Some(target), true);
            return Ok(Some(root));
        }
        // From before our own restart: the mount the pod sees is the only way in.
        let mount = self
            .kernel
            .clone_mount(directory.as_fd(), Access::Writable)
            .map_err(failed("cloning the volume's mount"))?;
        crash_point!("adopt:cloned");
        let (root, device) = open_root(mount.as_fd())?;
        self.check_owner(volume, root.as_fd())?;
        let stat = fstatvfs(&mount).map_err(|errno| internal(format!("fstatvfs: {errno}")))?;
        let size = stat.f_blocks.saturating_mul(stat.f_frsize);
        self.kept.insert(volume.clone(), Kept { mount, device, size, target: Some(target), given: true });
        Ok(Some(root))
    }

    /// Whether a volume is mounted anywhere that the engine half did not take over: a lost record told of it, it was left
    /// alone, or it is another driver's.
    ///
    /// # Errors
    /// The mount table cannot be read.
    pub fn any_unknown(&self) -> Result<bool, WardenError> {
        let mounted = self.kernel.volumes(self.pods.real_path()).map_err(failed("reading the mount table"))?;
        let given = |device: &u64| self.kept.values().any(|kept| kept.given && kept.device == *device);
        Ok(!mounted.iter().all(given))
    }

    /// The engine half is gone: lets go of what was made and never attached; the rest is the next one's to take over.
    pub fn engine_ended(&mut self) {
        self.kept.values_mut().for_each(|kept| kept.given = false);
        let unattached: Vec<_> =
            self.kept.iter().filter(|(_, kept)| kept.target.is_none()).map(|(volume, _)| volume.clone()).collect();
        unattached.iter().for_each(|volume| self.forget(volume));
    }

    fn forget(&mut self, volume: &VolumeId) {
        if let Some(kept) = self.kept.remove(volume) {
            self.kernel.release(kept.mount.as_fd());
        }
    }

    fn clear(&self, volume: &VolumeId, target: &TargetPath) -> Result<(), WardenError> {
        let place = match self.pods.place(target) {
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        // One volume can lie on another only after a mistake; clearing ends when the directory is an ordinary one again.
        while let Some(directory) = place.open()? {
            let Some(mount) = self.kernel.mount_at(directory.as_fd()).map_err(failed("looking at the target"))? else {
                break;
            };
            if !mount.is_volume() || !self.may_be(volume, device_of(directory.as_fd())?) {
                return Err(busy(format!("target {target}: what is mounted there is not volume {volume}: left alone")));
            }
            self.kernel.detach(directory.as_fd()).map_err(failed("unmounting the volume"))?;
            crash_point!("detach:unmounted");
        }
        place.remove()
    }

    /// The volume at the target, whichever it is: its root directory and its device.
    fn volume_at(&self, target: &TargetPath) -> Result<Option<(OwnedFd, u64)>, WardenError> {
        let place = match self.pods.place(target) {
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let Some(directory) = place.open()? else { return Ok(None) };
        let mount = self.kernel.mount_at(directory.as_fd()).map_err(failed("looking at the target"))?;
        if !mount.as_ref().is_some_and(Mount::is_volume) {
            return Ok(None);
        }
        let device = device_of(directory.as_fd())?;
        Ok(Some((directory, device)))
    }

    /// Whether this device can be the volume's: it is the one we hold, or nobody's that we hold.
    fn may_be(&self, volume: &VolumeId, device: u64) -> bool {
        match self.kept.iter().find(|(_, kept)| kept.device == device) {
            Some((holder, _)) => holder == volume,
            None => !self.kept.contains_key(volume),
        }
    }

    /// A volume's folders belong to whoever made it: under another uid the engine half could not change a file in it.
    fn check_owner(&self, volume: &VolumeId, root: BorrowedFd<'_>) -> Result<(), WardenError> {
        let owner = fstat(root).map_err(|errno| internal(format!("fstat: {errno}")))?.st_uid;
        if owner == self.owner {
            return Ok(());
        }
        Err(busy(format!(
            "volume {volume} was made under --engine-uid {owner}, and it is {} now: its pod keeps its files, which nobody \
             refreshes; go back to {owner}, or delete the pod",
            self.owner
        )))
    }

    fn check_size(&self, volume: &VolumeId, size: u64) -> Result<(), WardenError> {
        if size < MIN_SIZE {
            return Err(invalid(format!("volume {volume}: {size} bytes is less than one page")));
        }
        let others: u64 = self.kept.iter().filter(|(id, _)| *id != volume).map(|(_, kept)| kept.size).sum();
        if others.saturating_add(size) > self.ceiling {
            return Err(no_space(format!(
                "volume {volume}: {size} bytes and the {others} of the node's other volumes are more than \
                 --node-tmpfs-limit {}",
                self.ceiling
            )));
        }
        Ok(())
    }
}

fn unknown(volume: &VolumeId) -> WardenError {
    not_found(format!("volume {volume} is not known: make or adopt it first"))
}

/// The mount's root directory as an ordinary descriptor, which `fchmod`, `fsync` and `getdents` accept, and its device.
fn open_root(mount: BorrowedFd<'_>) -> Result<(OwnedFd, u64), WardenError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(mount, ".", flags, Mode::empty()).map_err(|errno| failed("opening the volume")(errno.into()))?;
    let device = device_of(root.as_fd())?;
    Ok((root, device))
}

fn device_of(file: BorrowedFd<'_>) -> Result<u64, WardenError> {
    Ok(fstat(file).map_err(|errno| internal(format!("fstat: {errno}")))?.st_dev)
}
