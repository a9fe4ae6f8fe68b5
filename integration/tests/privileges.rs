// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What each process of the plugin may do, as the kernel tells it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use evanesce_integration::processes::Process;
use evanesce_integration::world::{Setup, World};
use evanesce_integration::{binaries, mounts};

/// Prints how many bytes a gRPC server sends after the client's preface, until it hangs up or has sent its settings.
const GREET: &str = r#"
import socket, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect(sys.argv[1])
try:
    s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
    print(len(s.recv(9)))
except ConnectionError:
    print(0)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_half_has_no_privilege_left() {
    // As a container of a pod with supplementalGroups is started.
    let world =
        Setup::default().under(["setpriv", "--groups=4242", "--"].map(str::to_owned).into()).recorder().await.unwrap();
    assert_eq!(fields(world.plugin.warden(), "Groups"), ["4242"]);
    // A volume's worth of work behind it: what it needs later must not need more.
    world.kubelet.publish(&world.volume(&world.pod("payments", "app"), "db")).await.unwrap();
    let engine = world.plugin.engine().unwrap();
    assert_eq!(uids(engine), ["60999"; 4]);
    assert_eq!(fields(engine, "Gid"), ["60999"; 4]);
    assert_eq!(fields(engine, "Groups"), [""; 0]);
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(engine.status(set).unwrap(), "0000000000000000", "{set}");
    }
    assert_eq!(engine.status("NoNewPrivs").unwrap(), "1");
    assert_eq!(engine.status("Seccomp").unwrap(), "2");
    assert_not_dumpable(engine);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_thread_of_the_engine_half_is_as_confined_as_the_first() {
    let world = World::recorded().await.unwrap();
    world.kubelet.publish(&world.volume(&world.pod("payments", "app"), "db")).await.unwrap();
    let engine = world.plugin.engine().unwrap();
    let mut threads = 0;
    for thread in fs::read_dir(engine.path("task")).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let none = ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|set| format!("{set}:\t0000000000000000"));
        for expected in
            ["Seccomp:\t2", "NoNewPrivs:\t1", "Uid:\t60999\t"].into_iter().chain(none.iter().map(|it| &**it))
        {
            assert!(status.contains(expected), "a thread without {expected:?}:\n{status}");
        }
        threads += 1;
    }
    assert!(threads > 1, "the engine half has one thread, which the other test knows");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_warden_is_root_with_little_and_without_a_network() {
    let world = World::recorded().await.unwrap();
    world.kubelet.publish(&world.volume(&world.pod("payments", "app"), "db")).await.unwrap();
    let warden = world.plugin.warden();
    assert_eq!(uids(warden), ["0"; 4]);
    assert_eq!(warden.status("NoNewPrivs").unwrap(), "1");
    assert_eq!(warden.status("Seccomp").unwrap(), "2");
    assert_not_dumpable(warden);
    let capabilities = u64::from_str_radix(&warden.status("CapEff").unwrap(), 16).unwrap();
    // linux/capability.h
    for (name, bit) in [("NET_ADMIN", 12), ("NET_RAW", 13), ("SYS_MODULE", 16), ("SYS_PTRACE", 19), ("SYS_BOOT", 22)] {
        assert_eq!(capabilities & (1 << bit), 0, "the warden has CAP_{name}");
    }
    // Every socket that it has is a Unix one.
    let unix = String::from_utf8(warden.read("net/unix")).unwrap();
    for fd in fs::read_dir(warden.path("fd")).unwrap().flatten() {
        let link = fs::read_link(fd.path()).unwrap_or_default().to_string_lossy().into_owned();
        if let Some(inode) = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
            assert!(unix.contains(&format!(" {inode}")), "the warden has a socket that is no Unix one: {link}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_launcher_can_start_the_engine_half_and_nothing_else() {
    let world = World::recorded().await.unwrap();
    let launcher = world.plugin.launcher().unwrap();
    let capabilities = u64::from_str_radix(&launcher.status("CapEff").unwrap(), 16).unwrap();
    // KILL, SETGID, SETUID, SYS_CHROOT
    assert_eq!(capabilities & !(1 << 5 | 1 << 6 | 1 << 7 | 1 << 18), 0, "the launcher has {capabilities:#x}");
    assert_not_dumpable(launcher);
    assert_eq!(fs::read_dir(launcher.path("task")).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_uid_is_a_setting_and_never_one_that_others_share() {
    let world = Setup::default().argument("--engine-uid=61234").recorder().await.unwrap();
    assert_eq!(uids(world.plugin.engine().unwrap()), ["61234"; 4]);
    // And the volume works under it.
    world.kubelet.publish(&world.volume(&world.pod("payments", "app"), "db")).await.unwrap();

    for shared in ["0", "65532", "65533", "65534", "65535", "65536", "100000", "4294967295"] {
        let output = Command::new(binaries::evanesce_csi().unwrap())
            .args(["--node-name=node-1", &format!("--engine-uid={shared}")])
            .output()
            .unwrap();
        assert!(!output.status.success(), "{shared} was accepted");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("--engine-uid"), "{shared}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sockets_are_for_root_alone() {
    let world = World::recorded().await.unwrap();
    for socket in [world.plugin.csi_socket(), &world.plugin.registration_socket(), &world.plugin.admin_socket()] {
        let metadata = fs::metadata(socket).unwrap();
        assert_eq!(metadata.mode() & 0o7777, 0o600, "{}", socket.display());
        assert_eq!((metadata.uid(), metadata.gid()), (0, 0), "{}", socket.display());
        assert_eq!(greet(socket, 0), "9", "root is greeted");

        // Whoever gets past the mode is asked who he is.
        open_the_way_to(socket);
        assert_eq!(greet(socket, 1000), "0", "{} speaks to uid 1000", socket.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_for_root_alone_and_in_memory() {
    let world = World::recorded().await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "db");
    world.kubelet.publish(&volume).await.unwrap();
    let record = find(world.plugin.state(), volume.volume_id()).expect("the volume has a record");
    let directory = record.parent().unwrap();
    for path in [record.as_path(), directory] {
        let metadata = fs::metadata(path).unwrap();
        assert_eq!((metadata.uid(), metadata.mode() & 0o077), (0, 0), "others may look into {}", path.display());
    }
    let mounts = mounts::below(world.plugin.state());
    let holder = mounts.iter().rfind(|mount| record.starts_with(&mount.target)).expect("a mount for records");
    assert_eq!(holder.filesystem, "tmpfs");
}

fn uids(process: Process) -> Vec<String> {
    fields(process, "Uid")
}

fn fields(process: Process, name: &str) -> Vec<String> {
    process.status(name).unwrap().split_whitespace().map(str::to_owned).collect()
}

/// A process that is not dumpable belongs to root in `/proc`, whoever runs it (`proc(5)`); one of root's own is told by
/// the limit on its core.
fn assert_not_dumpable(process: Process) {
    let owner = fs::metadata(process.path("environ")).unwrap().uid();
    assert_eq!(owner, 0, "{} is dumpable", process.name());
    let limits = String::from_utf8(process.read("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{} may dump core: {core}", process.name());
}

fn greet(socket: &Path, uid: u32) -> String {
    let mut command = Command::new("python3");
    command.args(["-I", "-c", GREET]).arg(socket);
    if uid != 0 {
        command.uid(uid).gid(uid);
    }
    let output = command.output().expect("python3 is installed: `apt-get install python3`");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Lets everybody reach the socket, up to the temporary directory that everybody can.
fn open_the_way_to(socket: &Path) {
    fs::set_permissions(socket, fs::Permissions::from_mode(0o777)).unwrap();
    for directory in socket.ancestors().skip(1).take_while(|path| *path != std::env::temp_dir()) {
        if directory.parent().is_some() {
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}

fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(directory).unwrap().flatten().find_map(|entry| {
        let path = entry.path();
        if path.is_dir() { find(&path, name) } else { path.to_string_lossy().contains(name).then_some(path) }
    })
}
