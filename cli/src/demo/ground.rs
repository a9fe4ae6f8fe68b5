// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Where the demo runs: namespaces of its own, and in them a tmpfs for everything it makes. Both are gone with the last
//! process of the demo, whoever ends it and how.

#![expect(unsafe_code, reason = "unshare(2) has no safe wrapper: CLONE_FILES could break others' descriptors")]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;

use super::End;

/// What this process may do here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    /// Everything.
    Root,
    /// What one uid may do in a user namespace.
    Rootless,
}

/// Where the tmpfs may lie: directories that every machine has and that no program is started from. What is in them is
/// hidden from the demo, and from nobody else.
const PLACES: [&str; 3] = ["/dev/shm", "/mnt", "/srv"];

/// The settings that forbid user namespaces, with the value that does, and one that does not.
const FORBIDDING: [(&str, &str, &str); 3] = [
    (MAX, "0", "10000"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
];
/// How many there may be; counted against those of the namespaces around this one as well.
const MAX: &str = "user.max_user_namespaces";

/// Moves this process into namespaces of its own; returns what it may do there, and the folder for everything it makes.
///
/// # Errors
/// [`End::NotHere`] where the kernel forbids it: the message names the setting.
pub(crate) fn enter() -> anyhow::Result<(Ground, PathBuf)> {
    // The half without privileges reads what is made here, whatever the user's own files are like.
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    let ground = enter_namespaces()?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context("the mount namespace cannot be made private")?;
    let own = std::env::current_exe().context("this program's own file is not known")?;
    let place = PLACES
        .iter()
        .filter_map(|place| fs::canonicalize(place).ok())
        .find(|place| place.is_dir() && !own.starts_with(place))
        .ok_or_else(|| End::NotHere(format!("none of {} is a directory to mount a tmpfs on", PLACES.join(", "))))
        .map_err(anyhow::Error::msg)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("evanesce-demo", &place, "tmpfs", flags, Some(c"mode=0755"))
        .with_context(|| format!("no tmpfs can be mounted on {} in the demo's own namespace", place.display()))?;
    Ok((ground, place))
}

fn enter_namespaces() -> anyhow::Result<Ground> {
    // Root in a container may lack the right, and have a user namespace all the same.
    if rustix::process::geteuid().is_root() && unshare(UnshareFlags::NEWNS).is_ok() {
        return Ok(Ground::Root);
    }
    match enter_user_namespace() {
        Ok(()) => Ok(Ground::Rootless),
        Err((step, errno)) => Err(anyhow::Error::msg(End::NotHere(refusal(step, errno, forbidding())))),
    }
}

/// One uid and one gid are all that a process without privilege may map (user_namespaces(7)).
fn enter_user_namespace() -> Result<(), (&'static str, Errno)> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS).map_err(|errno| ("unshare", errno))?;
    for (file, content) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {uid} 1")),
        ("/proc/self/gid_map", format!("0 {gid} 1")),
    ] {
        fs::write(file, content).map_err(|error| (file, Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    }
    Ok(())
}

fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: neither CLONE_FILES nor CLONE_FS is among the flags, so no descriptor and no working folder of another
    // thread changes its meaning; and no other thread runs yet.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Why there is no user namespace, and what to do.
fn refusal(step: &str, errno: Errno, forbidding: Option<(&str, &str)>) -> String {
    let what = "the demo without root needs a user namespace";
    let or = "or run the demo as root";
    match forbidding {
        Some((setting, value)) => format!("{what}, and the sysctl {setting} forbids it: set it to {value}, {or}"),
        // The limit of a namespace around this one, whose number cannot be read from here.
        None if errno == Errno::NOSPC => {
            format!("{what}, and the sysctl {MAX} is reached here or in a container around this one: raise it, {or}")
        }
        None => format!(
            "{what}, and {step} is refused ({errno}), though no sysctl known to forbid it ({}) is set: \
             a container's seccomp profile may be the reason; loosen that, {or}",
            FORBIDDING.map(|(setting, _, _)| setting).join(", ")
        ),
    }
}

/// The sysctl that forbids user namespaces, and a value that does not.
fn forbidding() -> Option<(&'static str, &'static str)> {
    let holds = |setting: &str, value: &str| {
        let path = Path::new("/proc/sys").join(setting.replace('.', "/"));
        fs::read_to_string(path).is_ok_and(|text| text.trim() == value)
    };
    FORBIDDING.into_iter().find(|(setting, bad, _)| holds(setting, bad)).map(|(setting, _, good)| (setting, good))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_names_a_sysctl_and_the_other_way() {
        let known = refusal("unshare", Errno::PERM, Some(("kernel.unprivileged_userns_clone", "1")));
        assert!(known.contains("the sysctl kernel.unprivileged_userns_clone forbids it: set it to 1"), "{known}");
        for errno in [Errno::NOSPC, Errno::PERM] {
            let unknown = refusal("unshare", errno, None);
            assert!(unknown.contains("user.max_user_namespaces") && unknown.ends_with("as root"), "{unknown}");
        }
    }
}
