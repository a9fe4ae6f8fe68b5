// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Making, filling, attaching, owning, resizing, detaching.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use evanesce_csi::protocol::{ErrorKind, MAX_OWN, Owner, VolumePath};
use rustix::fs::{FileType, Mode};

use crate::ground::{CEILING, Ground, OWNER, foreign_tmpfs, mount_at, mounts_of, volume, write};

#[test]
fn a_volume_is_attached_complete_read_only_and_with_exactly_these_options() {
    let ground = Ground::new();
    let mut volumes = ground.volumes();
    let root = volumes.make(volume("v"), 1 << 16, 64).unwrap();
    write(&root, "password", "hunter2");

    let reported = volumes.attach(&volume("v"), ground.target()).unwrap();

    let mount = mount_at(&ground.kernel(), &ground.target()).unwrap();
    assert_eq!(reported, mount.options, "what is reported is what the kernel says");
    let mut options = mount.options;
    options.sort();
    let expected = [
        "gid=60999",
        "mode=755",
        "nodev",
        "noexec",
        "nosuid",
        "noswap",
        "nr_inodes=64",
        "relatime",
        "ro",
        "rw",
        "size=64k",
    ];
    // `rw` is the file system's: the engine half's own way in; `inode64` is a compile-time default of some kernels.
    options.retain(|option| option != "inode64" && option != "uid=60999");
    assert_eq!(options, expected);

    let file = format!("{}/password", ground.target());
    assert_eq!(fs::read_to_string(&file).unwrap(), "hunter2");
    for refused in [
        fs::write(&file, "x").unwrap_err(),
        fs::write(format!("{}/new", ground.target()), "x").unwrap_err(),
        fs::remove_file(&file).unwrap_err(),
        fs::set_permissions(&file, fs::Permissions::from_mode(0o777)).unwrap_err(),
    ] {
        assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
    }
}

#[test]
fn the_root_of_a_volume_belongs_to_the_engine_half() {
    let ground = Ground::new();
    let mut volumes = ground.volumes();
    let root = fs::File::from(volumes.make(volume("v"), 1 << 16, 64).unwrap());
    let metadata = root.metadata().unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (OWNER, OWNER, 0o755));
}

#[test]
fn the_target_directory_is_made_with_mode_0750() {
    let ground = Ground::new();
    let mut volumes = ground.volumes();
    volumes.make(volume("v"), 1 << 16, 64).unwrap();
    rustix::process::umask(Mode::empty());
    volumes.attach(&volume("v"), ground.target()).unwrap();
    rustix::mount::unmount(ground.target().as_str(), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(fs::metadata(ground.target().as_str()).unwrap().mode() & 0o7777, 0o750);
}

#[test]
fn a_change_through_the_kept_descriptor_is_seen_at_the_target() {
    let ground = Ground::new();
    let mut volumes = ground.volumes();
    let root = volumes.make(volume("v"), 1 << 16, 64).unwrap();
    volumes.attach(&volume("v"), ground.target()).unwrap();
    write(&root, "late", "fresh");
    assert_eq!(fs::read_to_string(format!("{}/late", ground.target())).unwrap(), "fresh");
}

#[test]
fn who_shares_the_pods_directory_sees_the_volume() {
    let ground = Ground::new();
    let mut volumes = ground.volumes();
    // Kubelet's view: another mount of the same shared directory.
    let peer = ground.path("peer");
    fs::create_dir(&peer).unwrap();
    rustix::mount::mount_bind(ground.pods(), &peer).unwrap();

    let root = volumes.make(volume("v"), 1 << 16, 64).unwrap();
    write(&root, "f", "x");
    volumes.attach(&volume("v"), ground.target()).unwrap();
    assert_eq!(fs::read_to_string(peer.join("uid/volumes/csi/a/mount/f")).unwrap(), "x");
    volumes.detach(&volume("v"), Some(&ground.target())).unwrap();
    assert!(!peer.join("uid/volumes/csi/a/mount").exists());
}

#[test]
fn attaching_twice_is_attaching_once_and_elsewhere_is_refused() {
    let ground = Ground::new();
    let mut volumes = ground.volumes();
    volumes.make(volume("v"), 1 << 16, 64).unwrap();
    let first = volumes.attach(&volume("v"), ground.target()).unwrap();
    assert_eq!(volumes.attach(&volume("v"), ground.target()).unwrap(), first);
    let other = crate::ground::target(&ground.pods().join("uid/volumes/csi/b"));
    assert_eq!(volumes.attach(&volume("v"), other).unwrap_err().kind, ErrorKind::Busy);
    assert_eq!(volumes.make(volume("v"), 1 << 16, 64).unwrap_err().kind, ErrorKind::Busy);
    assert_eq!(mounts_of("evanesce"), 1);
}

#[test]
fn what_is_in_the_way_is_left_alone() {
    let ground = Ground::new();
    let mut volumes = ground.volumes();
    let (v, w) = (volume("v"), volume("w"));
    volumes.make(v.clone(), 1 << 16, 64).unwrap();

    // A directory with content.
    let file = format!("{}/precious", ground.target());
    fs::create_dir(ground.target().as_str()).unwrap();
    fs::write(&file, "x").unwrap();
    assert_eq!(volumes.attach(&v, ground.target()).unwrap_err().kind, ErrorKind::Busy);
    assert_eq!(volumes.detach(&v, Some(&ground.target())).unwrap_err().kind, ErrorKind::Busy);
    assert!(fs::exists(&file).unwrap());
    fs::remove_file(&file).unwrap();

    // Somebody's tmpfs.
    foreign_tmpfs(&ground.kernel(), ground.target().as_str().as_ref());
    assert_eq!(volumes.attach(&v, ground.target()).unwrap_err().kind, ErrorKind::Busy);
    assert_eq!(volumes.detach(&v, Some(&ground.target())).unwrap_err().kind, ErrorKind::Busy);
    assert!(!volumes.is_attached(&v, &ground.target()).unwrap());
    assert_eq!(mounts_of("somebody"), 1);
    rustix::mount::unmount(ground.target().as_str(), rustix::mount::UnmountFlags::DETACH).unwrap();

    // Another volume of ours, and a file.
    volumes.attach(&v, ground.target()).unwrap();
    volumes.make(w.clone(), 1 << 16, 64).unwrap();
    assert_eq!(volumes.attach(&w, ground.target()).unwrap_err().kind, ErrorKind::Busy);
    assert_eq!(volumes.detach(&w, Some(&ground.target())).unwrap_err().kind, ErrorKind::Busy);
    assert!(volumes.is_attached(&v, &ground.target()).unwrap());
    let file = ground.pods().join("uid/file");
    fs::write(&file, "x").unwrap();
    assert_eq!(volumes.attach(&w, crate::ground::target(&file)).unwrap_err().kind, ErrorKind::Invalid);
}

#[test]
fn detaching_leaves_nothing_and_may_be_repeated() {
    let ground = Ground::new();
    let mut volumes = ground.volumes();
    let before = ground.tree();
    volumes.make(volume("v"), 1 << 16, 64).unwrap();
    volumes.attach(&volume("v"), ground.target()).unwrap();
    for _ in 0..2 {
        volumes.detach(&volume("v"), Some(&ground.target())).unwrap();
        assert_eq!(mounts_of("evanesce"), 0);
        assert_eq!(ground.tree(), before);
    }
    // Its parent gone as well, and nothing ever there.
    fs::remove_dir(ground.pods().join("uid/volumes/csi/a")).unwrap();
    volumes.detach(&volume("v"), Some(&ground.target())).unwrap();
    volumes.detach(&volume("never"), None).unwrap();
    // The name is free again.
    volumes.make(volume("v"), 1 << 16, 64).unwrap();
}

#[test]
fn detaching_without_a_target_finds_where_it_was_attached() {
    let ground = Ground::new();
    let mut volumes = ground.volumes();
    volumes.make(volume("v"), 1 << 16, 64).unwrap();
    volumes.attach(&volume("v"), ground.target()).unwrap();
    volumes.detach(&volume("v"), None).unwrap();
    assert_eq!(mounts_of("evanesce"), 0);
}

#[test]
fn an_open_file_does_not_hold_up_detaching() {
    let ground = Ground::new();
    let mut volumes = ground.volumes();
    let root = volumes.make(volume("v"), 1 << 16, 64).unwrap();
    write(&root, "f", "x");
    volumes.attach(&volume("v"), ground.target()).unwrap();
    let _open = fs::File::open(format!("{}/f", ground.target())).unwrap();
    volumes.detach(&volume("v"), Some(&ground.target())).unwrap();
    assert!(!fs::exists(ground.target().as_str()).unwrap());
}

#[test]
fn only_files_of_the_volume_get_owners() {
    let ground = Ground::new();
    let mut volumes = ground.volumes();
    let v = volume("v");
    let root = volumes.make(v.clone(), 1 << 16, 64).unwrap();
    rustix::fs::mkdirat(&root, "d", Mode::from_raw_mode(0o755)).unwrap();
    let file = write(&root, "d/f", "x");
    let owner_of = |file: &OwnedFd| rustix::fs::fstat(file).map(|stat| (stat.st_uid, stat.st_gid)).unwrap();
    let named = |path: &str, uid, gid| (path.parse().unwrap(), Owner { uid, gid });

    volumes.own(&v, &[named("d/f", Some(1000), Some(2000))]).unwrap();
    assert_eq!(owner_of(&file), (1000, 2000));
    volumes.own(&v, &[named("d/f", None, Some(7))]).unwrap();
    assert_eq!(owner_of(&file), (1000, 7));
    assert_eq!(volumes.own(&v, &[named("d/f", Some(u32::MAX), None)]).unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(volumes.own(&volume("w"), &[named("d/f", Some(0), None)]).unwrap_err().kind, ErrorKind::NotFound);
    let many = vec![named("d/f", Some(0), None); MAX_OWN + 1];
    assert_eq!(volumes.own(&v, &many).unwrap_err().kind, ErrorKind::Invalid);

    // Whatever an engine half in wrong hands puts in the way: links out of the volume, to a file, and within it.
    let outside = ground.path("outside");
    fs::write(&outside, "x").unwrap();
    rustix::fs::symlinkat(&outside, &root, "absolute").unwrap();
    rustix::fs::symlinkat(format!("../../../../../../../../..{}", outside.display()), &root, "climbs").unwrap();
    rustix::fs::symlinkat(ground.path(""), &root, "folder").unwrap();
    rustix::fs::symlinkat("d", &root, "within").unwrap();
    rustix::fs::symlinkat("/proc/self/fd", &root, "magic").unwrap();
    rustix::fs::mknodat(&root, "fifo", FileType::Fifo, Mode::RUSR, 0).unwrap();
    let magic = format!("magic/{}", file.as_raw_fd());
    for refused in ["absolute", "climbs", "folder/outside", "within/f", "fifo", "none", "d/f/none", &magic] {
        let files = [named("d/f", Some(1), None), named(refused, Some(1), None)];
        assert_eq!(volumes.own(&v, &files).unwrap_err().kind, ErrorKind::Invalid, "{refused}");
        assert_eq!(owner_of(&file), (1000, 7), "nothing is changed before all are checked");
    }
    assert_eq!(fs::metadata(&outside).unwrap().uid(), 0);
    for no_path in ["/d/f", "../d/f", "d/../../d", ""] {
        assert!(no_path.parse::<VolumePath>().is_err(), "{no_path}");
    }
}

#[test]
fn sizes_and_inodes_have_bounds_and_the_node_has_a_ceiling() {
    let ground = Ground::new();
    let mut volumes = ground.volumes();
    for (size, inodes) in [(0, 64), (4095, 64), (1 << 16, 0), (1 << 16, u64::MAX)] {
        assert_eq!(volumes.make(volume("v"), size, inodes).unwrap_err().kind, ErrorKind::Invalid);
    }
    assert_eq!(volumes.make(volume("v"), CEILING + 1, 64).unwrap_err().kind, ErrorKind::NoSpace);
    assert_eq!(volumes.make(volume("v"), u64::MAX, 64).unwrap_err().kind, ErrorKind::NoSpace);
    volumes.make(volume("v"), CEILING - 4096, 64).unwrap();
    assert_eq!(volumes.make(volume("w"), 8192, 64).unwrap_err().kind, ErrorKind::NoSpace);
    volumes.make(volume("w"), 4096, 64).unwrap();
    assert_eq!(volumes.resize(&volume("w"), 8192).unwrap_err().kind, ErrorKind::NoSpace);
    volumes.detach(&volume("v"), None).unwrap();
    volumes.resize(&volume("w"), 8192).unwrap();
}

#[test]
fn a_volume_grows_shrinks_and_keeps_its_options() {
    let ground = Ground::new();
    let mut volumes = ground.volumes();
    let root = volumes.make(volume("v"), 1 << 16, 64).unwrap();
    volumes.attach(&volume("v"), ground.target()).unwrap();
    volumes.resize(&volume("v"), 1 << 20).unwrap();
    write(&root, "f", &"x".repeat(1 << 19));
    let mount = mount_at(&ground.kernel(), &ground.target()).unwrap();
    for option in ["size=1024k", "noswap", "ro", "nr_inodes=1024"] {
        assert!(mount.options.iter().any(|there| there == option), "{option} in {:?}", mount.options);
    }
    assert_eq!(volumes.resize(&volume("v"), 1 << 16).unwrap_err().kind, ErrorKind::Busy);
    volumes.resize(&volume("v"), (1 << 19) + (1 << 16)).unwrap();
    let mount = mount_at(&ground.kernel(), &ground.target()).unwrap();
    assert!(mount.options.contains(&"nr_inodes=1024".to_owned()), "never fewer than there are: {:?}", mount.options);
    assert_eq!(volumes.resize(&volume("other"), 1 << 16).unwrap_err().kind, ErrorKind::NotFound);
}

#[test]
fn a_volume_that_has_grown_has_room_for_as_many_files_as_one_of_that_size() {
    let ground = Ground::new();
    let mut volumes = ground.volumes();
    let root = volumes.make(volume("v"), 1 << 16, 64).unwrap();
    volumes.attach(&volume("v"), ground.target()).unwrap();
    volumes.resize(&volume("v"), 1 << 20).unwrap();
    for file in 0..1000 {
        write(&root, &format!("f{file}"), "");
    }
}
