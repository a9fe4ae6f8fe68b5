// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The first publish: what a pod finds in its volume, and when.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use evanesce_integration::sight::{self, Files, Sight};
use evanesce_integration::token_review::Claims;
use evanesce_integration::world::{AUDIENCE, PASSWORD, Setup, World};
use evanesce_integration::{counts, mounts, wait};
use evanesce_proto::csi::volume_usage::Unit;
use evanesce_proto::kubelet::{SERVICE_ACCOUNT_TOKENS, TokensIn};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_finds_its_secret_from_a_real_openbao() {
    let world = World::start().await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "db");
    world.kubelet.publish(&volume).await.unwrap();

    let target = volume.target_path();
    assert_eq!(sight::text(target, "username"), "app");
    assert_eq!(sight::text(target, "password"), PASSWORD);
    let whole: Value = serde_json::from_str(&sight::text(target, "db.json")).unwrap();
    assert_eq!(whole, json!({"username": "app", "password": PASSWORD}));

    // One login and one read for three files.
    let asked: Vec<_> = world.backend.requests().unwrap().into_iter().map(|request| request.path).collect();
    assert_eq!(asked, ["auth/kubernetes/login", "kv/data/payments/db"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_files_appear_complete_or_not_at_all() {
    let world = Setup::default().log("info").recorder().await.unwrap();
    let complete = expected_files();
    for round in 0..counts::FIRST_PUBLISHES.get() {
        let volume = world.volume(&world.pod("payments", "app"), "db");
        let poller = Poller::start(volume.target_path(), complete.clone());
        wait::until("the reader sees that nothing is there", || poller.absent() > 0).await;
        world.kubelet.publish(&volume).await.unwrap();
        wait::until("the reader sees files", || poller.complete() > 0 || poller.is_done()).await;
        let partial = poller.stop();
        assert_eq!(partial, None, "in round {round} a reader saw a volume that was neither empty nor complete");
        world.kubelet.unpublish(&volume).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mount_is_read_only_and_holds_nothing_but_plain_files() {
    let world = World::recorded().await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "db");
    world.kubelet.publish(&volume).await.unwrap();

    let mounts = mounts::at(volume.target_path());
    let [mount] = mounts.as_slice() else { panic!("one mount, not {mounts:?}") };
    assert_eq!(mount.filesystem, "tmpfs");
    for option in ["ro", "nosuid", "nodev", "noexec", "noswap"] {
        assert!(mount.has(option), "{option} is missing: {mount:?}");
    }
    assert_eq!(mount.value("size"), Some("1024k"));
    assert!(mount.value("nr_inodes").is_some(), "as many inodes as memory allows: {mount:?}");

    let target = volume.target_path();
    for attempt in [
        fs::write(target.join("password"), "forged"),
        fs::write(target.join("new"), "forged"),
        fs::remove_file(target.join("password")),
        fs::create_dir(target.join("directory")),
    ] {
        assert_eq!(attempt.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_the_pods_groups_to_read_and_roots_alone_without_one() {
    let class = "apiVersion: evanesce.dev/v1alpha1
kind: SecretVolume
metadata: {name: owned, namespace: payments}
spec:
  files:
    - {path: plain, from: {backend: vault, secret: kv/payments/db, key: password}}
    - {path: chosen, from: {backend: vault, secret: kv/payments/db, key: password}, mode: \"0604\", uid: 1234, gid: 4321}
    - {path: deep/down, from: {backend: vault, secret: kv/payments/db, key: password}, uid: 7}
";
    let world = Setup::default().class(class).recorder().await.unwrap();
    let with_group = world.volume(&world.pod("payments", "app"), "owned").mount_group(2000);
    let without = world.volume(&world.pod("payments", "app"), "owned");
    for (volume, plain, deep) in
        [(&with_group, (0o440, 0, 2000), (0o440, 7, 2000)), (&without, (0o400, 0, 0), (0o400, 7, 0))]
    {
        world.kubelet.publish(volume).await.unwrap();
        let target = volume.target_path();
        assert_eq!(mode_and_owner(&target.join("plain")), plain);
        assert_eq!(mode_and_owner(&target.join("chosen")), (0o604, 1234, 4321));
        assert_eq!(mode_and_owner(&target.join("deep/down")), deep);
        // Everybody in the pod may look for the files; what may be read, the files say.
        assert_eq!(mode_and_owner(&target.join("deep")).0, 0o755);
        assert_eq!(mode_and_owner(target).0, 0o755);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_layout_is_the_one_that_applications_know_from_kubelet() {
    let class = "apiVersion: evanesce.dev/v1alpha1
kind: SecretVolume
metadata: {name: keys, namespace: payments}
spec:
  files:
    - {path: db, from: {backend: vault, secret: kv/payments/db}, allKeys: true}
";
    let world = Setup::default().class(class).recorder().await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "keys");
    world.kubelet.publish(&volume).await.unwrap();

    let target = volume.target_path();
    assert_eq!(fs::read_link(target.join("db")).unwrap(), Path::new("..data/db"));
    let generation = sight::shown(target).unwrap();
    assert!(fs::symlink_metadata(target.join(generation)).unwrap().is_dir());
    let files: Vec<_> = sight::generation(target).unwrap().into_keys().collect();
    assert_eq!(files, ["db/password", "db/username"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_taken_from_secrets_and_from_older_kubelets_out_of_the_context() {
    let world = World::recorded().await.unwrap();
    let pod = world.pod("payments", "app");
    let claims = Claims::new(&pod, AUDIENCE);
    let token = world.cluster.tokens().mint(&claims).unwrap();
    let json = json!({AUDIENCE: {"token": token.token, "expirationTimestamp": token.expires}}).to_string();

    let older = world.volume(&pod, "db").raw_tokens(json, TokensIn::VolumeContext);
    world.kubelet.publish(&older).await.unwrap();
    world.kubelet.unpublish(&older).await.unwrap();

    let mut both = world.volume(&pod, "db").request();
    both.volume_context.insert(SERVICE_ACCOUNT_TOKENS.into(), "never looked at".into());
    fs::create_dir_all(older.target_path().parent().unwrap()).unwrap();
    world.kubelet.call_publish(both).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_tells_how_full_it_is() {
    let world = World::recorded().await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "db");
    world.kubelet.publish(&volume).await.unwrap();

    let usage = world.kubelet.stats(&volume).await.unwrap().usage;
    let bytes = usage.iter().find(|usage| usage.unit() == Unit::Bytes).unwrap();
    assert_eq!(bytes.total, 1 << 20);
    assert!(bytes.used > 0 && bytes.used + bytes.available == bytes.total, "{bytes:?}");
    let inodes = usage.iter().find(|usage| usage.unit() == Unit::Inodes).unwrap();
    assert!(inodes.used >= 3 && inodes.used + inodes.available == inodes.total, "{inodes:?}");
}

fn mode_and_owner(path: &Path) -> (u32, u32, u32) {
    let metadata = fs::metadata(path).unwrap();
    (metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
}

fn expected_files() -> Files {
    let whole = serde_json::to_vec(&json!({"password": PASSWORD, "username": "app"})).unwrap();
    Files::from([
        ("username".into(), b"app".to_vec()),
        ("password".into(), PASSWORD.as_bytes().to_vec()),
        ("db.json".into(), whole),
    ])
}

/// A thread that does nothing but look at a target.
struct Poller {
    seen: Arc<Seen>,
    thread: JoinHandle<Option<Files>>,
}

#[derive(Default)]
struct Seen {
    absent: AtomicU64,
    complete: AtomicU64,
    stop: AtomicBool,
}

impl Poller {
    fn start(target: &Path, complete: Files) -> Self {
        let seen = Arc::new(Seen::default());
        let (target, shared) = (target.to_owned(), Arc::clone(&seen));
        Self { seen, thread: std::thread::spawn(move || poll(target, complete, &shared)) }
    }

    fn absent(&self) -> u64 {
        self.seen.absent.load(Ordering::Relaxed)
    }

    fn complete(&self) -> u64 {
        self.seen.complete.load(Ordering::Relaxed)
    }

    /// Whether it has seen what it should not.
    fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// What it saw that was neither nothing nor everything.
    fn stop(self) -> Option<Files> {
        self.seen.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn poll(target: PathBuf, complete: Files, seen: &Seen) -> Option<Files> {
    while !seen.stop.load(Ordering::Relaxed) {
        match sight::look(&target).unwrap() {
            Sight::Absent => seen.absent.fetch_add(1, Ordering::Relaxed),
            Sight::Files(files) if files == complete => seen.complete.fetch_add(1, Ordering::Relaxed),
            Sight::Files(files) => return Some(files),
        };
    }
    None
}
