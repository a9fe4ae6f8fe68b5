// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What is mounted at a directory: asked of the kernel by the mount's number, or looked up in the mount table.
//!
//! A node has thousands of mounts, and the table is written anew for each reader. So `statmount(2)` is asked where there is
//! one that says all we want to know (Linux 6.13), and the table is read where not.

#![expect(unsafe_code, reason = "neither rustix nor libc wraps statmount(2)")]

use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use evanesce_runtime::seccomp::SYS_STATMOUNT;
use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};

use super::Mount;

/// `STATX_MNT_ID_UNIQUE`, Linux 6.8: a number that is never used again.
const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
/// `STATMOUNT_SB_BASIC`, `_MNT_BASIC`, `_MNT_ROOT`, `_FS_TYPE`, `_MNT_OPTS` and `_SB_SOURCE`.
const WANTED: u64 = 0x1 | 0x2 | 0x8 | 0x20 | 0x80 | 0x200;
/// Where `struct statmount` has what; each text is an offset into what follows its fixed part.
const OPTIONS: usize = 4;
const MASK: usize = 8;
const SB_FLAGS: usize = 32;
const FS_TYPE: usize = 36;
const MNT_ATTR: usize = 64;
const ROOT: usize = 104;
const SOURCE: usize = 124;
const TEXTS: usize = 512;
/// Larger than any volume's answer; what does not fit is looked up in the table.
const ANSWER: usize = 4096;

/// `struct mnt_id_req` in its first version.
#[repr(C)]
struct Question {
    size: u32,
    spare: u32,
    id: u64,
    wanted: u64,
}

/// The mount whose root directory this is, or `None` when it is an ordinary directory or mounted nowhere.
///
/// # Errors
/// The kernel's.
pub(super) fn mount_at(directory: BorrowedFd<'_>) -> io::Result<Option<Mount>> {
    let ask = |flags| statx(directory, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, flags);
    let stat = ask(MNT_ID_UNIQUE)?;
    if !stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(None);
    }
    if stat.stx_mask & MNT_ID_UNIQUE.bits() != 0 {
        match statmount(stat.stx_mnt_id) {
            Ok(Some(mount)) => return Ok(Some(mount)),
            // There is such a mount, and it is nowhere in our namespace.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            Ok(None) | Err(_) => {}
        }
    }
    from_table(ask(StatxFlags::MNT_ID)?.stx_mnt_id)
}

/// `None` where this kernel does not say all of it.
fn statmount(id: u64) -> io::Result<Option<Mount>> {
    let question = Question { size: size_of::<Question>() as u32, spare: 0, id, wanted: WANTED };
    let mut answer = [0_u8; ANSWER];
    // SAFETY: the kernel reads `question`, whose size it holds, and writes at most `ANSWER` bytes into `answer`; both
    // outlive the call.
    let result = unsafe { libc::syscall(SYS_STATMOUNT, &raw const question, answer.as_mut_ptr(), ANSWER, 0) };
    if result == 0 { Ok(parse_statmount(&answer)) } else { Err(io::Error::last_os_error()) }
}

fn parse_statmount(answer: &[u8]) -> Option<Mount> {
    let u32_at = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_ne_bytes(answer.get(at..at + 8)?.try_into().ok()?));
    let text_at = |at: usize| {
        let text = answer.get(TEXTS + usize::try_from(u32_at(at)?).ok()?..)?;
        Some(CStr::from_bytes_until_nul(text).ok()?.to_str().ok()?.to_owned())
    };
    if u64_at(MASK)? & WANTED != WANTED {
        return None;
    }
    let (attributes, flags) = (u64_at(MNT_ATTR)?, u64::from(u32_at(SB_FLAGS)?));
    let access = |read_only| if read_only { "ro" } else { "rw" };
    let mut options = vec![access(attributes & libc::MOUNT_ATTR_RDONLY != 0).to_owned()];
    for (bit, name) in [
        (libc::MOUNT_ATTR_NOSUID, "nosuid"),
        (libc::MOUNT_ATTR_NODEV, "nodev"),
        (libc::MOUNT_ATTR_NOEXEC, "noexec"),
        (libc::MOUNT_ATTR_NOATIME, "noatime"),
        (libc::MOUNT_ATTR_NODIRATIME, "nodiratime"),
    ] {
        if attributes & bit != 0 {
            options.push(name.to_owned());
        }
    }
    // The default is a zero among the settings of access times.
    if attributes & libc::MOUNT_ATTR__ATIME == 0 {
        options.push("relatime".to_owned());
    }
    options.push(access(flags & libc::MS_RDONLY != 0).to_owned());
    options.extend(text_at(OPTIONS)?.split(',').map(str::to_owned));
    Some(Mount { root: text_at(ROOT)?, fs_type: text_at(FS_TYPE)?, source: text_at(SOURCE)?, options })
}

/// The devices of all volumes in the mount table whose targets lie beneath a directory.
///
/// # Errors
/// The kernel's.
pub(super) fn volumes(beneath: &Path) -> io::Result<Vec<u64>> {
    Ok(read_table()?.lines().filter_map(|line| volume(line, beneath)).collect())
}

fn volume(line: &str, beneath: &Path) -> Option<u64> {
    let mut fields = line.split(' ');
    let (id, _parent, device) = (fields.next()?.parse().ok()?, fields.next()?, fields.next()?);
    let (_root, target) = (fields.next()?, fields.next()?);
    let (major, minor) = device.split_once(':')?;
    let is_ours = parse_mountinfo(line, id)?.is_volume() && Path::new(&unescaped(target)).starts_with(beneath);
    is_ours.then_some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// A path of the mount table: blanks, tabs, line feeds and backslashes are octal in it (proc_pid_mountinfo(5)).
fn unescaped(path: &str) -> String {
    let octals = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    octals.iter().fold(path.to_owned(), |path, (octal, byte)| path.replace(octal, byte))
}

fn from_table(id: u64) -> io::Result<Option<Mount>> {
    Ok(read_table()?.lines().find_map(|line| parse_mountinfo(line, id)))
}

fn read_table() -> io::Result<String> {
    std::fs::read_to_string("/proc/thread-self/mountinfo")
}

/// One line of `/proc/thread-self/mountinfo` (proc_pid_mountinfo(5)), if it is the mount with this id.
fn parse_mountinfo(line: &str, id: u64) -> Option<Mount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ');
    if mount.next()?.parse() != Ok(id) {
        return None;
    }
    let (_parent, _device, root, _target, options) =
        (mount.next()?, mount.next()?, mount.next()?, mount.next()?, mount.next()?);
    let mut file_system = file_system.split(' ');
    let (fs_type, source, fs_options) = (file_system.next()?, file_system.next()?, file_system.next()?);
    Some(Mount {
        root: root.to_owned(),
        fs_type: fs_type.to_owned(),
        source: source.to_owned(),
        options: options.split(',').chain(fs_options.split(',')).map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read_with_and_without_optional_fields() {
        let line = "36 35 98:0 /mnt1 /pods/a\\040b ro,noexec shared:7 master:1 - tmpfs evanesce rw,size=4k,noswap";
        let mount = parse_mountinfo(line, 36).unwrap();
        assert_eq!((mount.root.as_str(), mount.source.as_str()), ("/mnt1", "evanesce"));
        assert_eq!(mount.options, ["ro", "noexec", "rw", "size=4k", "noswap"]);
        assert!(!mount.is_volume(), "a bind mount of a directory of ours is not a volume");
        assert!(parse_mountinfo("36 35 98:0 / /x ro - tmpfs evanesce rw", 36).unwrap().is_volume());
        for other in ["37 35 98:0 / /x ro - tmpfs evanesce rw", "36 35 98:0 / /x ro", "", "36"] {
            assert!(parse_mountinfo(other, 36).is_none());
        }
    }

    #[test]
    fn a_volume_is_found_beneath_its_directory_alone() {
        let line = |target: &str| format!("36 35 0:98 / {target} ro - tmpfs evanesce rw");
        let found = |target: &str| volume(&line(target), Path::new("/var/lib/a b/pods"));
        assert_eq!(found("/var/lib/a\\040b/pods/uid/mount"), Some(rustix::fs::makedev(0, 98)));
        for elsewhere in ["/var/lib/a\\040b/pods-2/uid/mount", "/var/lib/a", "/elsewhere"] {
            assert_eq!(found(elsewhere), None, "{elsewhere}");
        }
    }

    /// All the tmpfs of this system, of which some have `nosuid`, `nodev`, `noexec`, or are read-only.
    #[test]
    fn the_kernel_and_the_table_say_the_same_of_a_mount() {
        let mut compared = 0;
        for line in std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap().lines() {
            if !line.contains(" - tmpfs ") && !line.contains(" - devpts ") {
                continue;
            }
            let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
            let target = line.split(' ').nth(4).unwrap();
            let Ok(directory) = rustix::fs::open(target, flags, rustix::fs::Mode::empty()) else { continue };
            let ask = |flags| statx(&directory, "", AtFlags::EMPTY_PATH, flags).unwrap();
            // Something else may lie upon it, and somebody else may unmount it.
            let Some(table) = parse_mountinfo(line, ask(StatxFlags::MNT_ID).stx_mnt_id) else { continue };
            if let Ok(Some(kernel)) = statmount(ask(MNT_ID_UNIQUE).stx_mnt_id) {
                assert_eq!(kernel, table, "{line}");
                compared += 1;
            }
            assert!(mount_at(directory.as_fd()).unwrap().is_none_or(|mount| mount == table), "{line}");
        }
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
        if (numbers.next(), numbers.next()) >= (Some(6), Some(13)) {
            assert!(compared > 0, "Linux {release} has statmount(2), and it told nothing");
        }
    }

    #[test]
    fn an_answer_that_lacks_something_is_none() {
        let mut answer = [0; ANSWER];
        assert!(parse_statmount(&answer).is_none());
        answer[MASK..MASK + 8].copy_from_slice(&WANTED.to_ne_bytes());
        assert_eq!(parse_statmount(&answer).unwrap().options[..2], ["rw", "relatime"]);
        answer[OPTIONS..OPTIONS + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(parse_statmount(&answer).is_none(), "a text outside of the answer");
    }
}
