// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Volumes that outlive the engine half, and the warden.

use std::fs;

use crate::ground::{CEILING, Ground, foreign_tmpfs, mount_at, volume, write};
use evanesce_csi::mount::{Access, Kernel};
use evanesce_csi::protocol::ErrorKind;
use evanesce_csi::warden::{PodsDir, StateDir, Volumes};
use std::os::fd::AsFd;

#[test]
fn the_next_engine_half_gets_the_writable_root_back() {
    let ground = Ground::new();
    let mut volumes = ground.volumes();
    drop(volumes.make(volume("v"), 1 << 16, 64).unwrap());
    volumes.attach(&volume("v"), ground.target()).unwrap();
    volumes.engine_ended();
    let root = volumes.adopt(&volume("v"), ground.target()).unwrap().unwrap();
    write(&root, "f", "after the engine half");
    assert_eq!(fs::read_to_string(format!("{}/f", ground.target())).unwrap(), "after the engine half");
}

#[test]
fn the_next_warden_gets_a_writable_clone_and_the_pod_still_cannot_write() {
    let ground = Ground::new();
    let mut earlier = ground.volumes();
    drop(earlier.make(volume("v"), 1 << 16, 64).unwrap());
    earlier.attach(&volume("v"), ground.target()).unwrap();
    drop(earlier);

    let mut volumes = ground.volumes();
    assert!(volumes.is_attached(&volume("v"), &ground.target()).unwrap());
    let root = volumes.adopt(&volume("v"), ground.target()).unwrap().unwrap();
    write(&root, "f", "after the warden");
    let file = format!("{}/f", ground.target());
    assert_eq!(fs::read_to_string(&file).unwrap(), "after the warden");
    assert!(fs::write(&file, "x").is_err());
    assert!(mount_at(&ground.kernel(), &ground.target()).unwrap().options.contains(&"noexec".to_owned()));
    // Its size counts again, and it can be resized and detached like any other.
    assert_eq!(volumes.make(volume("w"), CEILING, 64).unwrap_err().kind, ErrorKind::NoSpace);
    volumes.resize(&volume("v"), 1 << 17).unwrap();
    volumes.detach(&volume("v"), Some(&ground.target())).unwrap();
    assert!(!fs::exists(ground.target().as_str()).unwrap());
}

#[test]
fn a_volume_that_nobody_adopted_is_known_to_be_there() {
    let ground = Ground::new();
    let mut earlier = ground.volumes();
    earlier.make(volume("v"), 1 << 16, 64).unwrap();
    assert!(!earlier.any_unknown().unwrap());
    earlier.attach(&volume("v"), ground.target()).unwrap();
    assert!(!earlier.any_unknown().unwrap());
    earlier.engine_ended();
    assert!(earlier.any_unknown().unwrap(), "the next engine half has not taken it over");
    earlier.adopt(&volume("v"), ground.target()).unwrap();
    assert!(!earlier.any_unknown().unwrap());
    drop(earlier);
    let mut volumes = ground.volumes();
    assert!(volumes.any_unknown().unwrap());
    volumes.adopt(&volume("v"), ground.target()).unwrap();
    assert!(!volumes.any_unknown().unwrap());
    foreign_tmpfs(&ground.kernel(), &ground.path("credentials"));
    assert!(!volumes.any_unknown().unwrap(), "a tmpfs of somebody's is no volume");
    volumes.detach(&volume("v"), Some(&ground.target())).unwrap();
    assert!(!volumes.any_unknown().unwrap());
}

#[test]
fn the_next_warden_detaches_without_adopting() {
    let ground = Ground::new();
    let mut earlier = ground.volumes();
    earlier.make(volume("v"), 1 << 16, 64).unwrap();
    earlier.attach(&volume("v"), ground.target()).unwrap();
    drop(earlier);
    ground.volumes().detach(&volume("v"), Some(&ground.target())).unwrap();
    assert!(!fs::exists(ground.target().as_str()).unwrap());
}

#[test]
fn a_volume_that_was_never_attached_is_not_adopted_but_forgotten() {
    let ground = Ground::new();
    let mut volumes = ground.volumes();
    volumes.make(volume("v"), CEILING, 64).unwrap();
    assert!(volumes.adopt(&volume("v"), ground.target()).unwrap().is_none());
    volumes.make(volume("w"), CEILING, 64).unwrap();
    volumes.engine_ended();
    volumes.make(volume("x"), CEILING, 64).unwrap();
}

#[test]
fn what_is_not_ours_is_not_adopted() {
    let ground = Ground::new();
    let mut volumes = ground.volumes();
    fs::create_dir(ground.target().as_str()).unwrap();
    foreign_tmpfs(&ground.kernel(), ground.target().as_str().as_ref());
    assert!(volumes.adopt(&volume("v"), ground.target()).unwrap().is_none());
    rustix::mount::unmount(ground.target().as_str(), rustix::mount::UnmountFlags::DETACH).unwrap();

    // Another volume's target.
    volumes.make(volume("v"), 1 << 16, 64).unwrap();
    volumes.attach(&volume("v"), ground.target()).unwrap();
    assert_eq!(volumes.adopt(&volume("w"), ground.target()).unwrap_err().kind, ErrorKind::Invalid);
}

#[test]
fn a_bind_mount_of_a_part_of_a_volume_is_not_a_volume() {
    let ground = Ground::new();
    let mut volumes = ground.volumes();
    let root = volumes.make(volume("v"), 1 << 16, 64).unwrap();
    rustix::fs::mkdirat(&root, "sub", rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
    volumes.attach(&volume("v"), ground.target()).unwrap();
    // What kubelet makes of a `subPath`.
    let subpath = ground.pods().join("uid/subpath");
    fs::create_dir(&subpath).unwrap();
    rustix::mount::mount_bind(format!("{}/sub", ground.target()), &subpath).unwrap();
    let subpath = crate::ground::target(&subpath);
    assert!(!volumes.is_attached(&volume("v"), &subpath).unwrap());
    assert_eq!(volumes.detach(&volume("v"), Some(&subpath)).unwrap_err().kind, ErrorKind::Busy);
    assert!(volumes.is_attached(&volume("v"), &ground.target()).unwrap());
}

#[test]
fn an_older_kernel_clones_by_way_of_the_staging_directory() {
    let ground = Ground::new();
    let staging = || StateDir::open(&ground.path("state"), "test").unwrap().staging().unwrap();
    let kernel = ground.kernel().staged(staging());
    let mut volumes = Volumes::new(kernel, PodsDir::open(&ground.pods()).unwrap(), 60999, CEILING);
    let root = volumes.make(volume("v"), 1 << 16, 64).unwrap();
    write(&root, "f", "before");
    volumes.attach(&volume("v"), ground.target()).unwrap();
    write(&root, "g", "after");
    assert_eq!(crate::ground::mounts_of("evanesce"), 1, "nothing stays in the staging directory");
    for (name, content) in [("f", "before"), ("g", "after")] {
        assert_eq!(fs::read_to_string(format!("{}/{name}", ground.target())).unwrap(), content);
    }
    volumes.resize(&volume("v"), 1 << 17).unwrap();
    drop(volumes);
    // And after a restart: the target is attached, so it needs no staging.
    let kernel = ground.kernel().staged(staging());
    let there = fs::File::open(ground.target().as_str()).unwrap();
    let clone = kernel.clone_mount(there.as_fd(), Access::Writable).unwrap();
    assert!(crate::ground::mounts_of("evanesce") == 1);
    write(&clone, "h", "clone");
}
