// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The warden's loop and the engine half's client, face to face; the test plays the launcher and, where it matters, an
//! engine half that misbehaves.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::thread::JoinHandle;
use std::time::Duration;

use evanesce_csi::engine_half::warden_client::{CallError, Start, WardenClient};
use evanesce_csi::mount::LinuxKernel;
use evanesce_csi::protocol::{
    AuditChoice, Channel, ClassesChoice, DigestKey, EngineConfig, EngineFrame, ErrorKind, FromLauncher, HelloBack,
    LeaseGroupId, Limits, LogFormat, MAX_RECORD, Owner, PROTOCOL, Request, ToLauncher, VolumeId, VolumePath,
    WardenFrame,
};
use evanesce_csi::warden::{CredentialsDir, Fatal, Greeting, Journal, Records, Requests, Socket, StateDir, Supervisor};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;

use crate::ground::{CEILING, Ground, mounts_of, volume, write};

/// A test that waits longer for what has to come has failed.
const LONG: Duration = Duration::from_secs(30);

/// A running warden without processes.
struct Warden {
    launcher: Channel,
    stop: Option<std::io::PipeWriter>,
    ended: JoinHandle<Result<(), Fatal>>,
}

impl Warden {
    fn start(ground: &Ground) -> Self {
        let kernel = ground.kernel();
        let state = StateDir::open(&ground.path("state"), "test").unwrap().ensure_tmpfs(&kernel).unwrap();
        let digest_key = DigestKey::new(&[7; 32]);
        let csi = Socket::bind(&ground.path("csi/csi.sock")).unwrap();
        let registration = Socket::bind(&ground.path("registration/reg@reg.sock")).unwrap();
        let admin = Socket::bind(&ground.path("state/test/admin.sock")).unwrap();
        let listeners = [&csi, &registration, &admin];
        let fds = listeners.map(|socket| socket.as_fd().try_clone_to_owned().unwrap()).into();
        let credentials = CredentialsDir::open(Some(&ground.path("credentials"))).unwrap();
        let journal = Journal::open(&ground.path("leases")).unwrap();
        let requests: Requests<LinuxKernel> =
            Requests::new(ground.volumes(), Records::load(state).unwrap(), journal, credentials, csi);
        let (ours, launcher) = Channel::pair().unwrap();
        launcher.set_receive_timeout(Some(LONG)).unwrap();
        let (signals, stop) = std::io::pipe().unwrap();
        let greeting = Greeting { config: config(ground), digest_key, fds };
        let ended = std::thread::spawn(move || Supervisor::new(requests, greeting, ours, OwnedFd::from(signals)).run());
        Self { launcher, stop: Some(stop), ended }
    }

    fn told(&self) -> ToLauncher {
        self.launcher.receive().unwrap().unwrap().0
    }

    /// Plays the launcher that starts an engine half; returns the latter's end.
    fn start_engine(&self) -> Channel {
        assert_eq!(self.told(), ToLauncher::Start);
        let (wardens, engines) = Channel::pair().unwrap();
        self.launcher.send(&FromLauncher::Started { pid: 1 }, &[wardens.as_fd()]).unwrap();
        engines
    }

    fn engine_exited(&self) {
        self.launcher.send(&FromLauncher::Exited { how: "test".into() }, &[]).unwrap();
    }

    fn signal(&mut self) {
        self.stop.as_mut().unwrap().write_all(b"x").unwrap();
    }

    fn stop(mut self) {
        self.signal();
        // Whatever was running when the signal came.
        while let Ok(Some((ToLauncher::Kill, _))) = self.launcher.receive() {
            self.engine_exited();
        }
        self.ended.join().unwrap().unwrap();
    }
}

fn config(ground: &Ground) -> EngineConfig {
    EngineConfig {
        driver_name: "csi.evanesce.dev".into(),
        node_name: "n".into(),
        kubelet_csi_socket: ground.path("csi/csi.sock"),
        pods_dir: ground.pods(),
        classes: ClassesChoice::Directory("/etc/evanesce/classes".into()),
        sealed_dir: "/etc/evanesce/sealed".into(),
        backend_ports: vec![443],
        https_proxy: None,
        http_address: None,
        audit: AuditChoice::None,
        limits: Limits { node_tmpfs: CEILING, namespace_tmpfs: CEILING },
        first_delivery_timeout: Duration::from_secs(20),
        log: "info".into(),
        log_format: LogFormat::Auto,
        reduced: Vec::new(),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    // On this thread, which is in the test's mount namespace.
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn records(client: &WardenClient) -> Vec<(VolumeId, Vec<u8>)> {
    let mut found: Vec<(VolumeId, Vec<u8>)> = Vec::new();
    while let Some(next) = client.next_record(found.last().map(|(volume, _)| volume)).await.unwrap() {
        found.push(next);
    }
    found
}

fn refusal<T>(result: Result<T, CallError>) -> ErrorKind {
    match result {
        Err(CallError::Refused(error)) => error.kind,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was not refused"),
    }
}

#[test]
fn the_client_does_with_the_warden_all_that_a_volume_needs() {
    let ground = Ground::new();
    fs::write(ground.path("credentials/token"), "t0k3n").unwrap();
    let warden = Warden::start(&ground);
    let start = Start::from_channel(warden.start_engine()).unwrap();
    assert_eq!(start.config, config(&ground));
    assert_eq!(start.digest_key.as_bytes(), &[7; 32]);
    let csi = start.csi;

    runtime().block_on(async {
        let client = WardenClient::new(start.channel).unwrap();
        let (v, target) = (volume("v"), ground.target());
        let root = client.make_volume(&v, 1 << 20, 256).await.unwrap();
        let files: Vec<_> = (0..100).map(|n| write(&root, &format!("f{n}"), "x")).collect();
        // More than one packet's worth, of files and then of bytes.
        let owner = Owner { uid: None, gid: Some(4242) };
        let paths = (0..100).map(|n| (format!("f{n}").parse().unwrap(), owner));
        client.own(&v, paths.collect()).await.unwrap();
        assert!(files.iter().all(|file| rustix::fs::fstat(file).unwrap().st_gid == 4242));
        let long = "d".repeat(255);
        for depth in 1..=4 {
            rustix::fs::mkdirat(&root, vec![&*long; depth].join("/"), Mode::from_raw_mode(0o755)).unwrap();
        }
        let path: VolumePath = format!("{}/f", [&*long; 4].join("/")).parse().unwrap();
        let file = write(&root, path.as_str(), "x");
        client.own(&v, vec![(path, Owner { uid: Some(7), gid: None }); 64]).await.unwrap();
        assert_eq!(rustix::fs::fstat(&file).unwrap().st_uid, 7);

        let options = client.attach(&v, &target).await.unwrap();
        assert!(options.contains(&"ro".to_owned()) && options.contains(&"nosuid".to_owned()));
        assert!(client.is_attached(&v, &target).await.unwrap());
        client.resize(&v, 1 << 21).await.unwrap();
        let again = client.adopt(&v, &target).await.unwrap().unwrap();
        write(&again, "f0", "new");
        assert_eq!(fs::read_to_string(format!("{target}/f0")).unwrap(), "new");
        assert!(client.adopt(&volume("w"), &crate::ground::target(&ground.pods().join("t"))).await.unwrap().is_none());

        for name in ["a", "b", "c"] {
            client.put_record(&volume(name), format!("\"{name}\"").into_bytes()).await.unwrap();
        }
        client.drop_record(&volume("b")).await.unwrap();
        let records = records(&client).await;
        assert_eq!(records, [(volume("a"), b"\"a\"".to_vec()), (volume("c"), b"\"c\"".to_vec())]);

        let groups = [1, 2, 3].map(|number| LeaseGroupId::from([number; 16]));
        for group in &groups {
            client.put_lease(group, vec![7; MAX_RECORD]).await.unwrap();
        }
        client.drop_lease(&groups[0]).await.unwrap();
        client.drop_lease(&groups[0]).await.unwrap();
        let (first, entry) = client.next_lease(None).await.unwrap().unwrap();
        assert_eq!((&first, entry), (&groups[1], vec![7; MAX_RECORD]));
        assert_eq!(client.next_lease(Some(&first)).await.unwrap().unwrap().0, groups[2]);
        assert!(client.next_lease(Some(&groups[2])).await.unwrap().is_none());
        assert_eq!(refusal(client.put_lease(&first, vec![7; MAX_RECORD + 1]).await), ErrorKind::Invalid);

        let token = "token".parse().unwrap();
        let (identity, file) = client.open_credential(&token, None).await.unwrap().unwrap();
        let mut content = String::new();
        File::from(file).read_to_string(&mut content).unwrap();
        assert_eq!(content, "t0k3n");
        assert!(client.open_credential(&token, Some(identity)).await.unwrap().is_none());

        let mut probe = client.probe().await.unwrap();
        let (mut accepted, _) = csi.accept().unwrap();
        probe.write_all(b"ping").unwrap();
        probe.shutdown(Shutdown::Write).unwrap();
        content.clear();
        accepted.set_nonblocking(false).unwrap();
        accepted.read_to_string(&mut content).unwrap();
        assert_eq!(content, "ping");

        client.detach(&v, Some(&target)).await.unwrap();
        client.detach(&v, Some(&target)).await.unwrap();
        assert!(!client.is_attached(&v, &target).await.unwrap());

        assert_eq!(refusal(client.make_volume(&v, u64::MAX, 64).await), ErrorKind::NoSpace);
        assert_eq!(refusal(client.attach(&v, &target).await), ErrorKind::NotFound);
        assert_eq!(refusal(client.open_credential(&"absent".parse().unwrap(), None).await), ErrorKind::NotFound);
    });
    warden.stop();
}

#[test]
fn what_is_shown_has_its_record_and_its_owners_or_is_not_shown() {
    let ground = Ground::new();
    let warden = Warden::start(&ground);
    let start = Start::from_channel(warden.start_engine()).unwrap();
    runtime().block_on(async {
        let client = WardenClient::new(start.channel).unwrap();
        let owner = Owner { uid: Some(7), gid: Some(4242) };
        let owned = |name: &str| (name.parse::<VolumePath>().unwrap(), owner);
        let far = ["d".repeat(250).as_str(); 4].join("/");
        // All in one packet; files for another one; a record that leaves no room for anything.
        for (number, (files, record)) in [(10, 100), (100, 100), (10, MAX_RECORD - 2)].into_iter().enumerate() {
            let (v, parent) = (volume(&format!("v{number}")), ground.pods().join(&far).join(number.to_string()));
            fs::create_dir_all(&parent).unwrap();
            let target = crate::ground::target(&parent.join("t"));
            let root = client.make_volume(&v, 1 << 20, 256).await.unwrap();
            let names: Vec<_> = (0..files).map(|n| format!("f{n}")).collect();
            names.iter().for_each(|name| drop(write(&root, name, "x")));
            let record = format!("\"{}\"", "r".repeat(record)).into_bytes();

            let wrong = [owned("f0"), owned("not-there")].into();
            assert_eq!(refusal(client.show(&v, &target, record.clone(), wrong).await), ErrorKind::Invalid);
            assert!(!client.is_attached(&v, &target).await.unwrap());
            assert!(records(&client).await.contains(&(v.clone(), record.clone())), "the record comes first");

            let files = names.iter().map(|name| owned(name)).collect();
            let options = client.show(&v, &target, record.clone(), files).await.unwrap();
            assert!(options.contains(&"ro".to_owned()));
            for name in names {
                let file = fs::metadata(format!("{target}/{name}")).unwrap();
                assert_eq!((file.uid(), file.gid()), (7, 4242), "{name}");
            }
            assert!(records(&client).await.contains(&(v, record)));
        }
    });
    warden.stop();
}

#[test]
fn many_requests_at_once_get_each_its_own_answer() {
    let ground = Ground::new();
    let warden = Warden::start(&ground);
    let start = Start::from_channel(warden.start_engine()).unwrap();
    runtime().block_on(async {
        let client = WardenClient::new(start.channel).unwrap();
        let tasks: Vec<_> = (0..500)
            .map(|n| {
                let client = client.clone();
                tokio::spawn(async move {
                    let id = volume(&format!("v{n:03}"));
                    client.put_record(&id, n.to_string().into_bytes()).await.unwrap();
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        for (n, (id, record)) in records(&client).await.into_iter().enumerate() {
            assert_eq!((id, record), (volume(&format!("v{n:03}")), n.to_string().into_bytes()));
        }
    });
    warden.stop();
}

#[test]
fn a_caller_that_gives_up_costs_nobody_anything() {
    let ground = Ground::new();
    let warden = Warden::start(&ground);
    let start = Start::from_channel(warden.start_engine()).unwrap();
    runtime().block_on(async {
        let client = WardenClient::new(start.channel).unwrap();
        let v = volume("v");
        for _ in 0..200 {
            let abandoned = client.make_volume(&v, 4096, 8);
            // Polled once: sent, and never waited for.
            tokio::select! { biased; _ = abandoned => {}, () = std::future::ready(()) => {} }
        }
        client.make_volume(&volume("w"), 4096, 8).await.unwrap();
    });
    warden.stop();
}

#[test]
fn a_warden_that_dies_with_a_request_unread_is_gone_and_nothing_worse() {
    let (warden, engine) = Channel::pair().unwrap();
    runtime().block_on(async {
        let client = WardenClient::new(engine).unwrap();
        let caller = client.clone();
        let unread = tokio::spawn(async move { caller.drop_record(&volume("v")).await });
        let is_there = || {
            let mut fds = [PollFd::new(&warden, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
        };
        while !is_there() {
            tokio::task::yield_now().await;
        }
        drop(warden);
        // Before anybody has noticed: anything but "gone" would be final to kubelet.
        assert!(matches!(client.drop_record(&volume("w")).await, Err(CallError::Gone)));
        assert!(matches!(unread.await.unwrap(), Err(CallError::Gone)));
    });
}

#[test]
fn an_engine_half_that_sends_garbage_is_killed_and_replaced() {
    let ground = Ground::new();
    let hello_back = EngineFrame::HelloBack(HelloBack::ours());
    let request = EngineFrame::Request { id: 1, body: Request::Probe };

    type Misbehaviour<'a> = &'a dyn Fn(&Channel);
    let misbehaviours: [Misbehaviour<'_>; 7] = [
        &|engine| engine.send(&[0xffu8; 9], &[]).unwrap(),
        &|engine| engine.send(&request, &[]).unwrap(),
        &|engine| engine.send(&hello_back, &[engine.as_fd()]).unwrap(),
        &|engine| {
            engine.send(&hello_back, &[]).unwrap();
            engine.send(&hello_back, &[]).unwrap();
        },
        &|engine| {
            engine.send(&hello_back, &[]).unwrap();
            engine.send(&(1u32, 7u64, 7u32, "../etc"), &[]).unwrap();
        },
        &|engine| {
            engine.send(&hello_back, &[]).unwrap();
            engine.send(&request, &[engine.as_fd()]).unwrap();
        },
        &|engine| rustix::net::shutdown(engine, rustix::net::Shutdown::Both).unwrap(),
    ];
    // Each to a fresh warden, which has no back-off to wait for yet.
    for misbehave in misbehaviours {
        let warden = Warden::start(&ground);
        let engine = warden.start_engine();
        assert!(matches!(engine.receive().unwrap(), Some((WardenFrame::Hello(_), _))));
        misbehave(&engine);
        assert_eq!(warden.told(), ToLauncher::Kill);
        assert!(engine.receive::<WardenFrame>().ok().flatten().is_none(), "its channel is closed");
        warden.engine_exited();
        // The next one is served.
        let start = Start::from_channel(warden.start_engine()).unwrap();
        runtime().block_on(async {
            let client = WardenClient::new(start.channel).unwrap();
            client.make_volume(&volume("v"), 4096, 8).await.unwrap();
        });
        warden.stop();
        fs::remove_file(ground.path("csi/csi.sock")).unwrap();
        fs::remove_file(ground.path("registration/reg@reg.sock")).unwrap();
    }
}

#[test]
fn the_next_engine_half_gets_the_same_listeners_and_the_attached_volumes() {
    let ground = Ground::new();
    let warden = Warden::start(&ground);
    let start = Start::from_channel(warden.start_engine()).unwrap();
    runtime().block_on(async {
        let client = WardenClient::new(start.channel).unwrap();
        drop(client.make_volume(&volume("v"), 4096, 8).await.unwrap());
        client.attach(&volume("v"), &ground.target()).await.unwrap();
        drop(client.make_volume(&volume("half"), CEILING - 4096, 8).await.unwrap());
    });
    drop((start.csi, start.registration, start.admin));
    assert_eq!(warden.told(), ToLauncher::Kill, "the client is gone, so its channel is closed");
    // Kubelet calls in between.
    let _connection = std::os::unix::net::UnixStream::connect(ground.path("csi/csi.sock")).unwrap();
    warden.engine_exited();

    let start = Start::from_channel(warden.start_engine()).unwrap();
    start.csi.accept().unwrap();
    runtime().block_on(async {
        let client = WardenClient::new(start.channel).unwrap();
        let root = client.adopt(&volume("v"), &ground.target()).await.unwrap().unwrap();
        write(&root, "f", "x");
        // What the first one never attached holds no memory.
        client.make_volume(&volume("w"), CEILING - 4096, 8).await.unwrap();
        client.detach(&volume("v"), Some(&ground.target())).await.unwrap();
    });
    assert_eq!(mounts_of("evanesce"), 0);
    warden.stop();
}

#[test]
fn a_stop_lets_the_engine_half_finish() {
    let ground = Ground::new();
    let mut warden = Warden::start(&ground);
    let start = Start::from_channel(warden.start_engine()).unwrap();
    runtime().block_on(async {
        let client = WardenClient::new(start.channel).unwrap();
        client.make_volume(&volume("v"), 4096, 8).await.unwrap();
        warden.signal();
        client.draining().await;
        // It still serves what was begun.
        client.attach(&volume("v"), &ground.target()).await.unwrap();
    });
    warden.stop();
}

#[test]
fn a_second_stop_does_not_wait() {
    let ground = Ground::new();
    let mut warden = Warden::start(&ground);
    let start = Start::from_channel(warden.start_engine()).unwrap();
    runtime().block_on(async {
        let client = WardenClient::new(start.channel).unwrap();
        warden.signal();
        client.draining().await;
        warden.signal();
        tokio::time::timeout(LONG, client.gone()).await.expect("the client does not say that the warden is gone");
        assert!(matches!(client.detach(&volume("v"), None).await, Err(CallError::Gone)));
    });
    assert_eq!(warden.told(), ToLauncher::Kill);
    warden.engine_exited();
    warden.ended.join().unwrap().unwrap();
}

#[test]
fn an_engine_half_of_another_build_ends_the_warden_with_one_line() {
    let ground = Ground::new();
    let warden = Warden::start(&ground);
    let engine = warden.start_engine();
    engine.send(&EngineFrame::HelloBack(HelloBack { protocol: PROTOCOL + 1, version: "9.9.9".into() }), &[]).unwrap();
    let error = warden.ended.join().unwrap().unwrap_err();
    assert!(matches!(error, Fatal::OtherProtocol(_)));
    assert!(error.to_string().contains("9.9.9") && !error.to_string().contains('\n'), "{error}");
}

#[test]
fn without_its_launcher_the_warden_ends() {
    let ground = Ground::new();
    let warden = Warden::start(&ground);
    drop(warden.launcher);
    assert!(matches!(warden.ended.join().unwrap(), Err(Fatal::Launcher)));
}

#[test]
fn a_launcher_that_cannot_start_a_program_is_asked_again() {
    let ground = Ground::new();
    let warden = Warden::start(&ground);
    assert_eq!(warden.told(), ToLauncher::Start);
    warden.launcher.send(&FromLauncher::Failed { message: "no memory".into() }, &[]).unwrap();
    Start::from_channel(warden.start_engine()).unwrap();
    assert_eq!(warden.told(), ToLauncher::Kill);
    warden.engine_exited();
    warden.stop();
}

#[test]
fn a_socket_is_for_its_owner_alone_and_only_a_dead_one_is_replaced() {
    let ground = Ground::new();
    let path = ground.path("csi/s.sock");
    let socket = Socket::bind(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(Socket::bind(&path).unwrap_err().to_string().contains("another process serves"));
    drop(socket);
    let second = Socket::bind(&path).unwrap();
    // A successor has the name now: it is not removed with the predecessor.
    fs::remove_file(&path).unwrap();
    let third = Socket::bind(&path).unwrap();
    second.remove();
    assert!(path.exists());
    third.remove();
    assert!(!path.exists());
    fs::write(&path, "precious").unwrap();
    assert!(Socket::bind(&path).unwrap_err().to_string().contains("not a socket"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}
