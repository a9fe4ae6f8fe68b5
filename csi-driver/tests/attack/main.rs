// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What hostile code in the engine half could do is tried.
//!
//! This program is the plugin: its warden and its launcher are the real ones. Started in the engine half's place it is
//! confined by the same function, [`engine_half::begin`], with what a release answers; then, instead of serving, it attacks
//! and reports. Needs root.

#![expect(unsafe_code, reason = "attacks are made of raw system calls")]
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a test program without a harness")]

mod attempts;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};

use attempts::{Aim, Attempt, Wall};
use evanesce_csi::engine_half;
use evanesce_csi::protocol::{Channel, EngineFrame, Reply, Request, VolumeId, WardenFrame};
use evanesce_csi::role::Role;
use evanesce_runtime::seccomp::Unlisted;

const AIM: &str = "ATTACK_AIM";
const CONTROL: &str = "ATTACK_CONTROL";
const UID: u32 = 60_999;
/// From a volume's root out of any target.
const UPWARDS: &std::ffi::CStr = c"../../../../../../../../etc/passwd";

fn main() -> ExitCode {
    match Role::of_this_process() {
        Some(Role::Engine) => attack(),
        Some(role) => return role.run(),
        None if std::env::var_os(CONTROL).is_some() => report(attempts::all(&aim())),
        None => run(),
    }
    ExitCode::SUCCESS
}

fn aim() -> Aim {
    serde_json::from_str(&std::env::var(AIM).unwrap()).unwrap()
}

/// In the engine half's place.
fn attack() {
    let start = engine_half::begin(Unlisted::Missing).unwrap();
    let aim = aim();
    let mut made = [attempts::all(&aim), attempts::writing(&aim)].concat();
    made.extend(a_volume_that_is_gone(&start.channel, &aim));
    report(made);
    for entry in fs::read_dir("/").unwrap() {
        eprintln!("root\t{}", entry.unwrap().file_name().display());
    }
    eprintln!("over");
    std::thread::park();
}

fn report(made: Vec<Attempt>) {
    for (name, wall, errno) in made {
        eprintln!("attempt\t{name}\t{wall:?}\t{}\t{errno}", wall.errno());
    }
}

/// Has a volume made, attached and detached, and looks for it by every way that is left.
fn a_volume_that_is_gone(channel: &Channel, aim: &Aim) -> Vec<Attempt> {
    let ask = |body| {
        channel.send(&EngineFrame::Request { id: 1, body }, &[]).unwrap();
        match channel.receive().unwrap().unwrap() {
            (WardenFrame::Reply { result, .. }, fds) => (result, fds),
            _ => panic!("the warden answers"),
        }
    };
    let volume: VolumeId = "csi-attack".parse().unwrap();
    let target = format!("{}/pod/mount", aim.pods);
    let (made, fds) = ask(Request::MakeVolume { volume: volume.clone(), size: 1 << 16, inodes: 16 });
    assert_eq!(made, Ok(Reply::Volume));
    let up = format!("/proc/self/fd/{}", fds[0].as_raw_fd());
    // SAFETY: paths are constant strings.
    let from_volume = |path: &std::ffi::CStr| match unsafe {
        libc::openat(fds[0].as_raw_fd(), path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC)
    } {
        -1 => std::io::Error::last_os_error().raw_os_error().unwrap(),
        _ => 0,
    };
    let up_from_it = from_volume(UPWARDS);
    let (attached, _) = ask(Request::Attach { volume: volume.clone(), target: target.parse().unwrap() });
    assert!(attached.is_ok(), "{attached:?}");
    // What is attached has a directory above it: the descriptor must not be of that mount.
    let up_from_target = from_volume(UPWARDS);
    let (gone, _) = ask(Request::Detach { volume: volume.clone(), target: Some(target.parse().unwrap()) });
    assert_eq!(gone, Ok(Reply::Done));
    let (adopted, none) = ask(Request::Adopt { volume, target: target.parse().unwrap() });
    let adopted = if adopted == Ok(Reply::NotThere) && none.is_empty() { libc::ENOENT } else { 0 };
    vec![
        ("leave a volume upwards".into(), Wall::NoSuchPath, up_from_it),
        ("leave a volume upwards that is attached".into(), Wall::NoSuchPath, up_from_target),
        ("adopt a volume that is gone".into(), Wall::NoSuchPath, adopted),
        ("open a volume that is gone by its target".into(), Wall::NoSuchPath, attempts::open(&target, libc::O_PATH)),
        ("open a descriptor by its number".into(), Wall::NoSuchPath, attempts::open(&up, libc::O_PATH)),
    ]
}

/// Kills what it holds.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The state directory's tmpfs outlives its warden, for the next one.
struct Unmounted(String);

impl Drop for Unmounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Name → wall, expected and actual error number.
type Outcomes = BTreeMap<String, (String, i32, i32)>;

fn run() {
    let ground = tempfile::tempdir().unwrap();
    let path = |name: &str| format!("{}/{name}", ground.path().display());
    fs::set_permissions(ground.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for directory in ["csi", "registration", "pods/pod", "state", "classes"] {
        fs::create_dir_all(path(directory)).unwrap();
    }
    fs::write(path("file"), "for everybody").unwrap();
    let _state = Unmounted(path("state/csi.evanesce.dev"));
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let (backend, other) = (listen(), listen());
    let unused = port(&listen());
    let tenant = Killed(Command::new("sleep").arg("600").uid(UID).gid(UID).spawn().unwrap());

    let mut warden = Command::new("/proc/self/exe");
    warden.arg0(Role::Warden.name()).env_clear().stdin(Stdio::null()).stderr(Stdio::piped());
    for flag in ["registration-dir=registration", "pods-dir=pods", "state-dir=state", "classes-dir=classes"] {
        let (name, directory) = flag.split_once('=').unwrap();
        warden.arg(format!("--{name}={}", path(directory)));
    }
    warden.arg(format!("--csi-socket={}", path("csi/csi.sock")));
    warden.args(["--node-name=n", "--http-address=none", "--audit=none"]);
    warden.arg(format!("--backend-ports={}", port(&backend)));
    let mut aim = Aim {
        backend: port(&backend),
        other: port(&other),
        unused,
        tenant: tenant.0.id().cast_signed(),
        warden: std::process::id().cast_signed(),
        file: path("file"),
        classes: path("classes"),
        socket: path("csi/csi.sock"),
        admin: path("state/csi.evanesce.dev/admin.sock"),
        pods: path("pods"),
    };
    let mut warden = Killed(warden.env(AIM, serde_json::to_string(&aim).unwrap()).spawn().unwrap());
    let (confined, root) = read(&mut warden.0);

    // The socket is gone with the warden; any path does.
    aim.socket = path("csi");
    let mut control = Command::new("/proc/self/exe");
    control.env(AIM, serde_json::to_string(&aim).unwrap()).env(CONTROL, "1").uid(UID).gid(UID).stderr(Stdio::piped());
    let mut control = Killed(control.spawn().unwrap());
    let (free, _) = read(&mut control.0);

    let mut wrong = Vec::new();
    for (name, (wall, expected, errno)) in &confined {
        let unconfined = free.get(name).map(|(_, _, errno)| *errno);
        let differs = wall == "None" || unconfined != Some(*errno);
        let good = expected == errno && differs;
        println!(
            "{} {name}: {wall}, errno {errno}, without confinement {unconfined:?}",
            if good { "ok " } else { "BAD" }
        );
        if !good {
            wrong.push(name);
        }
    }
    let only: Vec<_> = ["etc", "usr", "var", "tmp"].into();
    let more: Vec<_> = root.iter().filter(|name| !only.contains(&name.as_str())).collect();
    assert!(more.is_empty(), "the private root holds {more:?}");
    assert!(confined.len() > 70, "only {} attempts were made", confined.len());
    assert!(wrong.is_empty(), "not denied, or by nothing of ours: {wrong:#?}");
    println!("{} attempts, each denied by what is to deny it", confined.len());
}

fn read(child: &mut Child) -> (Outcomes, Vec<String>) {
    let (mut outcomes, mut root) = (Outcomes::new(), Vec::new());
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        match line.split('\t').collect::<Vec<_>>()[..] {
            ["attempt", name, wall, expected, errno] => {
                let outcome = (wall.to_owned(), expected.parse().unwrap(), errno.parse().unwrap());
                outcomes.insert(name.to_owned(), outcome);
            }
            ["root", name] => root.push(name.to_owned()),
            ["over"] => break,
            // It would be started again, and again.
            _ if line.contains("engine half ended") => panic!("the attacker could not even begin: {line}"),
            _ => println!("{line}"),
        }
    }
    (outcomes, root)
}
