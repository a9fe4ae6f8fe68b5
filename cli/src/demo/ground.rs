// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Where the demo runs: namespaces of its own, so that nothing of it can stay behind.
#![expect(unsafe_code, reason = "unshare(2) has no safe wrapper: CLONE_FILES could break others' descriptors")]

use std::fs;

use anyhow::{Context as _, bail};
use rustix::mount::MountPropagationFlags;
use rustix::thread::UnshareFlags;

/// What this process may do here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    /// Everything.
    Root,
    /// What one uid may do in a user namespace.
    Rootless,
}

impl Ground {
    /// What a node has and this ground has not.
    pub(crate) fn reduced(self) -> Vec<&'static str> {
        match self {
            Self::Root => Vec::new(),
            Self::Rootless => vec!["noswap", "a uid of its own for the engine half", "fsGroup"],
        }
    }
}

/// The settings that forbid user namespaces, with the value that does.
const FORBIDDING: [(&str, &str, &str); 3] = [
    ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces (it is 0; set it to 1000 or so)"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone (it is 0; set it to 1)"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "kernel.apparmor_restrict_unprivileged_userns (it is 1; set it to 0)",
    ),
];

/// Moves this process into namespaces of its own.
///
/// # Errors
/// Where the kernel forbids it: the message names the setting.
pub(crate) fn enter() -> anyhow::Result<Ground> {
    let ground = if rustix::process::geteuid().is_root() { Ground::Root } else { Ground::Rootless };
    let entered = match ground {
        Ground::Root => unshare(UnshareFlags::NEWNS),
        Ground::Rootless => enter_user_namespace(),
    };
    entered
        .and_then(|()| {
            Ok(rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
        })
        .map_err(|error| match forbidding() {
            Some(setting) if ground == Ground::Rootless => error.context(format!(
                "user namespaces are forbidden here by the sysctl {setting}; or run the demo as root"
            )),
            _ => error.context(
                "no namespace of its own can be made for the demo: run it as root, or in a container that may",
            ),
        })?;
    Ok(ground)
}

fn enter_user_namespace() -> anyhow::Result<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)?;
    // One uid and one gid are all that a process without privilege may map; user_namespaces(7).
    fs::write("/proc/self/setgroups", "deny").context("/proc/self/setgroups")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).context("/proc/self/uid_map")?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).context("/proc/self/gid_map")?;
    if !rustix::process::geteuid().is_root() {
        bail!("the new user namespace did not take its uid map");
    }
    Ok(())
}

fn unshare(flags: UnshareFlags) -> anyhow::Result<()> {
    // SAFETY: neither CLONE_FILES nor CLONE_FS is among the flags, so no descriptor and no working folder of another
    // thread changes its meaning; and no other thread runs yet.
    unsafe { rustix::thread::unshare_unsafe(flags) }.context("unshare")
}

fn forbidding() -> Option<&'static str> {
    let holds = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    FORBIDDING.iter().find(|(path, value, _)| holds(path, value)).map(|(_, _, setting)| *setting)
}
