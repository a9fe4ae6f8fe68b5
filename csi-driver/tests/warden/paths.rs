// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Target paths, told by somebody who means harm.

use std::fs;
use std::os::unix::fs::symlink;

use evanesce_csi::protocol::{ErrorKind, TargetPath};

use crate::ground::{Ground, foreign_tmpfs, mounts_of, volume};

#[test]
fn a_target_that_may_not_be_one_is_refused_and_nothing_is_touched() {
    let ground = Ground::new();
    let pods = ground.pods();
    let outside = ground.path("outside");
    fs::create_dir_all(outside.join("inner")).unwrap();
    fs::create_dir_all(pods.join("uid/dir")).unwrap();
    symlink(&outside, pods.join("uid/absolute-link")).unwrap();
    symlink("../../outside", pods.join("uid/relative-link")).unwrap();
    symlink("dir", pods.join("uid/harmless-link")).unwrap();
    symlink("/proc/self/root", pods.join("uid/magic-link")).unwrap();
    fs::write(pods.join("uid/file"), "x").unwrap();
    fs::create_dir(pods.join("uid/network")).unwrap();
    foreign_tmpfs(&ground.kernel(), &pods.join("uid/network"));

    let mut volumes = ground.volumes();
    volumes.make(volume("v"), 1 << 16, 64).unwrap();
    let before = ground.tree();
    for (path, kind) in [
        (outside.join("t"), ErrorKind::Invalid),
        (ground.path("pods-evil/t"), ErrorKind::Invalid),
        (pods.clone(), ErrorKind::Invalid),
        ("/etc".into(), ErrorKind::Invalid),
        (pods.join("uid/absolute-link/t"), ErrorKind::Invalid),
        (pods.join("uid/absolute-link/inner/t"), ErrorKind::Invalid),
        (pods.join("uid/relative-link/t"), ErrorKind::Invalid),
        (pods.join("uid/harmless-link/t"), ErrorKind::Invalid),
        (pods.join("uid/magic-link/etc/t"), ErrorKind::Invalid),
        (pods.join("uid/absolute-link"), ErrorKind::Invalid),
        (pods.join("uid/harmless-link"), ErrorKind::Invalid),
        (pods.join("uid/file"), ErrorKind::Invalid),
        (pods.join("uid/file/t"), ErrorKind::Invalid),
        (pods.join("uid/network/t"), ErrorKind::Invalid),
        (pods.join("uid").join("x".repeat(300)), ErrorKind::Invalid),
        (pods.join("nobody/t"), ErrorKind::NotFound),
    ] {
        let target = crate::ground::target(&path);
        assert_eq!(volumes.attach(&volume("v"), target.clone()).unwrap_err().kind, kind, "{target}");
        if kind == ErrorKind::NotFound {
            // What is not there is not attached, and is already detached.
            assert!(!volumes.is_attached(&volume("v"), &target).unwrap());
            volumes.detach(&volume("other"), Some(&target)).unwrap();
        } else {
            assert_eq!(volumes.detach(&volume("v"), Some(&target)).unwrap_err().kind, kind, "{target}");
            assert_eq!(volumes.is_attached(&volume("v"), &target).unwrap_err().kind, kind, "{target}");
            assert_eq!(volumes.adopt(&volume("v"), target.clone()).unwrap_err().kind, kind, "{target}");
        }
        assert_eq!(ground.tree(), before, "{target}");
    }
    assert_eq!(mounts_of("evanesce"), 0);
}

#[test]
fn a_path_that_is_not_normal_is_not_even_a_target() {
    let long = format!("/{}", "x".repeat(4096));
    for text in ["/pods/../etc", "/pods//a", "/pods/./a", "/pods/a/", "pods/a", "", "/", "/pods/a\0b", long.as_str()] {
        assert!(text.parse::<TargetPath>().is_err(), "{text:?}");
    }
}

#[test]
fn a_parent_that_becomes_a_link_is_refused() {
    let ground = Ground::new();
    let outside = ground.path("outside");
    fs::create_dir(&outside).unwrap();
    let mut volumes = ground.volumes();
    volumes.make(volume("v"), 1 << 16, 64).unwrap();
    volumes.attach(&volume("v"), ground.target()).unwrap();

    // The way to the target is exchanged for a link to a look-alike.
    let uid = ground.pods().join("uid");
    fs::create_dir_all(outside.join("volumes/csi/a/mount/precious")).unwrap();
    fs::rename(&uid, ground.pods().join("moved")).unwrap();
    symlink(&outside, &uid).unwrap();
    let before = ground.tree();
    assert_eq!(volumes.detach(&volume("v"), Some(&ground.target())).unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(ground.tree(), before);
    assert_eq!(mounts_of("evanesce"), 1, "what is not at the target is not unmounted");
}
