// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Credentials that are made for a pod, in a real PostgreSQL: always one that logs in, and none left behind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use evanesce_integration::chance::{Chance, seed};
use evanesce_integration::kubelet::Kubelet;
use evanesce_integration::openbao::OpenBao;
use evanesce_integration::plugin::Plugin;
use evanesce_integration::postgres::Postgres;
use evanesce_integration::token_review::{Claims, TokenReview, WorkloadName};
use evanesce_integration::wait::{self, Patience};
use evanesce_integration::world::{AUDIENCE, Setup, World, volume};
use evanesce_integration::{binaries, counts, memory, sight};
use evanesce_proto::kubelet::Publish;
use futures_util::future::join_all;
use serde_json::{Value, json};

/// How many leases logins are tried over.
const LEASES: usize = 20;
/// How many pods live side by side.
const PODS: usize = 4;

/// The class `NAME`: the role `NAME` as two files and as one.
fn class(name: &str) -> String {
    class_of(name, name, "overlap: 1s")
}

/// The class `NAME-shared`: one credential for the pods of a service account.
fn shared(name: &str) -> String {
    class_of(&format!("{name}-shared"), name, "overlap: 1s, scope: serviceAccount")
}

fn class_of(name: &str, role: &str, leases: &str) -> String {
    format!(
        "apiVersion: evanesce.dev/v1alpha1
kind: SecretVolume
metadata: {{name: {name}, namespace: payments}}
spec:
  keepPrevious: 1s
  leases: {{{leases}}}
  files:
    - {{path: username, from: {{backend: vault, secret: database/creds/{role}, key: username}}}}
    - {{path: password, from: {{backend: vault, secret: database/creds/{role}, key: password}}}}
    - {{path: db.json, from: {{backend: vault, secret: database/creds/{role}}}}}
"
    )
}

/// How long a lease of the role `app` is good for.
const LEASE: Duration = Duration::from_secs(30);

/// A world whose OpenBao makes roles in a PostgreSQL: `app` for [`LEASE`], `short` for six seconds and twelve at most, `brief`
/// for two.
async fn ground(setup: Setup) -> (World<OpenBao>, Arc<Postgres>) {
    let allow = "{namespaces: [payments], serviceAccounts: [app], secrets: [\"database/creds/*\"]}";
    let classes = ["app", "short", "brief"].map(|name| [class(name), shared(name)]).concat().join("---\n");
    let setup = setup.class(&classes).allow(allow).log("info");
    let (world, postgres) = (setup.openbao().await.unwrap(), Arc::new(Postgres::start().await.unwrap()));
    let admin = world.backend.admin();
    admin.enable_database("database", &postgres).await.unwrap();
    let create = r#"create role "{{name}}" with login password '{{password}}' valid until '{{expiration}}'"#;
    let seconds = Duration::from_secs;
    for (role, lease, longest) in
        [("app", LEASE, 10 * LEASE), ("short", seconds(6), seconds(12)), ("brief", seconds(2), seconds(2))]
    {
        let (lease, longest) = (lease.as_secs(), longest.as_secs());
        let role = format!("database/roles/{role}");
        let body =
            json!({"db_name": "postgres", "default_ttl": lease, "max_ttl": longest, "creation_statements": create});
        admin.write(&role, &body).await.unwrap();
    }
    admin.policy("payments", r#"path "database/creds/*" { capabilities = ["read"] }"#).await.unwrap();
    (world, postgres)
}

/// A client that logs in anew again and again, with what it reads in both safe ways: beneath one open of `..data`, and from
/// one file.
#[derive(Default)]
struct Client {
    logins: AtomicU32,
    failed: AtomicU32,
    enough: AtomicBool,
}

impl Client {
    async fn run(self: Arc<Self>, target: std::path::PathBuf, postgres: Arc<Postgres>) {
        // A connection takes a while to be gone, and PostgreSQL has room for so many.
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        while !self.enough.load(Ordering::Relaxed) {
            pace.tick().await;
            for read in [beneath, whole] {
                let (role, password) = read(&target);
                let logged_in = postgres.log_in(&role, &password).await;
                let count = if logged_in.is_ok() { &self.logins } else { &self.failed };
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn beneath(target: &Path) -> (String, String) {
    let files = sight::generation(target).unwrap();
    let text = |name: &str| String::from_utf8(files[name].to_vec()).unwrap();
    (text("username"), text("password"))
}

fn whole(target: &Path) -> (String, String) {
    let all: Value = serde_json::from_str(&sight::text(target, "db.json")).unwrap();
    let text = |key: &str| all[key].as_str().unwrap().to_owned();
    (text("username"), text("password"))
}

/// Which roles may be left.
#[derive(Clone, Copy)]
enum Left {
    None,
    /// Those whose making OpenBao broke off when its client was killed. Where that hits the database's commit, the role is
    /// there and no lease is: nobody was ever told of it, and nobody can log in after its `valid until`.
    NeverAnswered,
}

/// The journal names nothing, and nobody is left in PostgreSQL.
async fn assert_nothing_lent(plugin: &Plugin, backend: &OpenBao, postgres: &Postgres, left: Left) {
    // OpenBao stops ending a login when whoever asked for it dies, and hears of it no more: then a lease's own end is the last.
    let begun = Instant::now();
    loop {
        let mut roles = postgres.roles().await.unwrap();
        if let Left::NeverAnswered = left {
            roles.retain(|role| !role.over || backend.has_answered(&role.name).unwrap());
        }
        if roles.is_empty() {
            break;
        }
        let patience = LEASE + wait::SOON;
        assert!(begun.elapsed() < patience, "{roles:?}\nOpenBao:\n{}\nplugin:\n{}", backend.log(), plugin.log());
        wait::a_moment().await;
    }
    let journal = plugin.csi_socket().with_file_name("leases");
    wait::until("the journal is empty", || std::fs::read_dir(&journal).unwrap().next().is_none()).await;
}

fn events(plugin: &Plugin, code: &str) -> Vec<Value> {
    plugin.audit().into_iter().filter(|event| event["metadata"]["event_code"] == code).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn over_twenty_leases_every_login_succeeds_and_then_no_role_is_left() {
    let (world, postgres) = ground(Setup::default()).await;
    let volumes: Vec<_> = (0..PODS).map(|_| world.volume(&world.pod("payments", "app"), "short")).collect();
    let client = Arc::<Client>::default();
    let mut clients = Vec::new();
    for volume in &volumes {
        world.kubelet.publish(volume).await.unwrap();
        let target = volume.target_path().to_owned();
        clients.push(tokio::spawn(Arc::clone(&client).run(target, Arc::clone(&postgres))));
    }
    let replaced = || events(&world.plugin, "revoke").len();
    for lease in 1..=LEASES {
        let what = format!("lease {lease} is given back");
        wait::until(&what, || replaced() >= lease || client.failed.load(Ordering::Relaxed) > 0).await;
    }
    client.enough.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let (logins, failed) = (client.logins.load(Ordering::Relaxed), client.failed.load(Ordering::Relaxed));
    assert!(failed == 0 && logins > 100, "{failed} of {} logins failed\n{}", logins + failed, world.plugin.log());
    for revoked in events(&world.plugin, "revoke") {
        assert_eq!(
            (&revoked["status"], &revoked["unmapped"]["lease_group"]["cause"]),
            (&json!("Success"), &json!("replaced"))
        );
    }
    // Each was prolonged first, as long as its end allowed.
    let requests = world.backend.requests().unwrap();
    let asked = |path: &str| requests.iter().filter(|request| request.path == path).count();
    assert!(asked("auth/token/renew-self") >= LEASES);
    for volume in &volumes {
        world.kubelet.unpublish(volume).await.unwrap();
    }
    assert_nothing_lent(&world.plugin, &world.backend, &postgres, Left::None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_one_account_log_in_with_one_credential_at_a_time_until_the_last_of_them_goes() {
    let (world, postgres) = ground(Setup::default()).await;
    let volumes: Vec<_> = (0..PODS).map(|_| world.volume(&world.pod("payments", "app"), "short-shared")).collect();
    let client = Arc::<Client>::default();
    let mut clients = Vec::new();
    let published = join_all(volumes.iter().map(|volume| world.kubelet.publish(volume))).await;
    published.into_iter().for_each(Result::unwrap);
    let shown: BTreeSet<_> = volumes.iter().map(|volume| whole(volume.target_path())).collect();
    assert_eq!((shown.len(), postgres.roles().await.unwrap().len()), (1, 1), "{shown:?}");
    for volume in &volumes {
        clients.push(tokio::spawn(Arc::clone(&client).run(volume.target_path().to_owned(), Arc::clone(&postgres))));
    }
    let replaced = || events(&world.plugin, "revoke").len();
    let what = "five are given back";
    wait::until(what, || replaced() >= 5 || client.failed.load(Ordering::Relaxed) > 0).await;
    client.enough.store(true, Ordering::Relaxed);
    join_all(clients).await.into_iter().for_each(Result::unwrap);
    assert_eq!(client.failed.load(Ordering::Relaxed), 0, "{}", world.plugin.log());
    // One is shown, one may be in its overlap, and one may be in the making.
    let asked = world.backend.requests().unwrap();
    let lent = asked.iter().filter(|request| request.path == "database/creds/short").count();
    assert!(lent <= replaced() + 3, "{lent} were lent, {} given back", replaced());
    let (last, others) = volumes.split_last().unwrap();
    for volume in others {
        world.kubelet.unpublish(volume).await.unwrap();
    }
    let (role, password) = whole(last.target_path());
    postgres.log_in(&role, &password).await.unwrap();
    world.kubelet.unpublish(last).await.unwrap();
    assert_nothing_lent(&world.plugin, &world.backend, &postgres, Left::None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_credentials_that_were_lent_no_process_holds_a_copy() {
    const VOLUMES: usize = 5;
    let (world, postgres) = ground(Setup::default()).await;
    let processes = world.plugin.processes();
    // Two of them share what they are lent.
    let class = |number| if number < 3 { "brief" } else { "brief-shared" };
    let volumes: Vec<_> =
        (0..VOLUMES).map(|number| world.volume(&world.pod("payments", "app"), class(number))).collect();
    for volume in &volumes {
        world.kubelet.publish(volume).await.unwrap();
    }
    let mut passwords = BTreeSet::new();
    let rotations = counts::ROTATIONS_SCANNED.get() as usize * VOLUMES;
    while passwords.len() < rotations + VOLUMES {
        let known = passwords.len();
        wait::until(&format!("a password follows the {known} before"), || {
            passwords.extend(volumes.iter().map(|volume| whole(volume.target_path()).1));
            passwords.len() > known
        })
        .await;
    }
    let mut canaries: Vec<_> = passwords.into_iter().collect();
    canaries.extend(world.backend.tokens().unwrap());
    assert!(canaries.len() >= 2 * rotations, "each has a login of its own: {}", canaries.len());
    // Those that are shown too: a value lies in its file, and in no process.
    memory::until_clean("after the rotations", &processes, &canaries);
    for volume in &volumes {
        world.kubelet.unpublish(volume).await.unwrap();
    }
    assert_nothing_lent(&world.plugin, &world.backend, &postgres, Left::None).await;
    memory::until_clean("after the end", &processes, &canaries);
}

/// Whom the storm kills.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Engine,
    Warden,
    Both,
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_whenever_what_pods_hold_logs_in_and_what_they_held_is_gone() {
    let seed = seed();
    let (world, postgres) = ground(Setup::default()).await;
    let World { mut plugin, kubelet, backend, cluster, scratch: _scratch } = world;
    let node =
        Arc::new(Node { kubelet, cluster, postgres: Arc::clone(&postgres), over: false.into(), lives: 0.into() });
    let pods: Vec<_> = (0..PODS).map(|slot| tokio::spawn(Arc::clone(&node).live(slot, seed))).collect();
    let mut chance = Chance::new(seed, u64::MAX);
    for victim in [Victim::Engine, Victim::Warden, Victim::Both] {
        for kill in 0..counts::LEASE_KILLS.get() {
            let lives = node.lives.load(Ordering::Relaxed) + 1 + chance.below(2);
            let goes_on = || node.lives.load(Ordering::Relaxed) >= lives || pods.iter().any(|pod| pod.is_finished());
            wait::until(&format!("seed {seed}: pods live on before kill {kill} of {victim:?}"), goes_on).await;
            // Where in the lives of four pods the kill falls: no condition says so.
            tokio::time::sleep(Duration::from_millis(chance.below(60).into())).await;
            match victim {
                Victim::Engine => wait::until_some("the engine half runs", || plugin.engine()).await.kill(),
                Victim::Warden => plugin.kill_and_restart().await.unwrap(),
                Victim::Both => {
                    plugin.engine().into_iter().for_each(|engine| engine.kill());
                    plugin.kill_and_restart().await.unwrap();
                }
            }
        }
    }
    node.over.store(true, Ordering::Relaxed);
    for pod in pods {
        pod.await.unwrap();
    }
    assert_nothing_lent(&plugin, &backend, &postgres, Left::NeverAnswered).await;
}

/// The steps of a lease, in [`evanesce_engine::crash::POINTS`].
const STEPS: [&str; 6] =
    ["lease:written", "lease:renamed", "lease:journalled", "lease:lent", "lease:revoked", "lease:removed"];

#[tokio::test(flavor = "multi_thread")]
async fn death_at_every_step_of_a_lease_leaves_no_role_behind() {
    let (mut world, postgres) = ground(Setup::default().crash_points()).await;
    for step in STEPS {
        let volume = world.volume(&world.pod("payments", "app"), "app");
        world.plugin.crash_at(step).unwrap();
        let what = format!("{step}: the volume is published");
        let patience = Patience::new(&what);
        while world.kubelet.publish(&volume).await.is_err() {
            tend(&mut world.plugin).await;
            patience.a_moment().await;
        }
        for read in [beneath, whole] {
            let (role, password) = read(volume.target_path());
            postgres.log_in(&role, &password).await.unwrap();
        }
        let what = format!("{step}: it is reached, and the volume is unpublished");
        let patience = Patience::new(&what);
        while world.kubelet.unpublish(&volume).await.is_err() || world.plugin.is_to_crash() {
            tend(&mut world.plugin).await;
            patience.a_moment().await;
        }
        tend(&mut world.plugin).await;
        world.plugin.ready().await.unwrap();
        assert_nothing_lent(&world.plugin, &world.backend, &postgres, Left::None).await;
    }
}

/// The container runtime: what has ended is started again.
async fn tend(plugin: &mut Plugin) {
    if plugin.has_ended() {
        plugin.ended().await;
        plugin.restart().await.unwrap();
    }
}

/// Pods that come, log in and go.
struct Node {
    kubelet: Kubelet,
    cluster: TokenReview,
    postgres: Arc<Postgres>,
    over: AtomicBool,
    lives: AtomicU32,
}

impl Node {
    async fn live(self: Arc<Self>, slot: usize, seed: u64) {
        let mut chance = Chance::new(seed, slot as u64);
        while !self.over.load(Ordering::Relaxed) {
            let pod = WorkloadName::new("payments", "app", &format!("app-{slot}"));
            let class = ["app", "app-shared"][chance.below(2) as usize];
            let volume = self.volume(&pod, class);
            // What kubelet does while a plugin comes back. Whoever kills it sees that pods live on.
            while self.kubelet.publish(&self.volume(&pod, class)).await.is_err() {
                wait::a_moment().await;
            }
            for _ in 0..=chance.below(4) {
                self.log_in(&volume).await;
            }
            while self.kubelet.unpublish(&volume).await.is_err() {
                wait::a_moment().await;
            }
            self.lives.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn log_in(&self, volume: &Publish) {
        for read in [beneath, whole] {
            let (role, password) = read(volume.target_path());
            let logged_in = self.postgres.log_in(&role, &password).await;
            assert!(logged_in.is_ok(), "{role} was taken from a pod that holds it: {:?}", logged_in.err());
        }
    }

    fn volume(&self, pod: &WorkloadName, class: &str) -> Publish {
        volume(&self.kubelet, &self.cluster, pod, class, &Claims::new(pod, AUDIENCE))
    }
}

/// `evanesce leases`, for programs.
fn listed(plugin: &Plugin, arguments: &[&str]) -> Vec<Value> {
    let output = plugin.leases(&[&["--output", "json"], arguments].concat()).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    said["groups"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lent_is_listed_and_counted_until_it_is_given_back() {
    let (mut world, _postgres) = ground(Setup::default()).await;
    let volume = world.volume(&world.pod("payments", "app"), "app");
    world.kubelet.publish(&volume).await.unwrap();
    let shown = listed(&world.plugin, &["--namespace", "payments"]).remove(0);
    let [lease] = &shown["leases"].as_array().unwrap()[..] else { panic!("{shown}") };
    let named = json!({
        "group": shown["group"], "state": "shown", "volume": volume.volume_id(), "namespace": "payments",
        "pod": "app-0", "pod_uid": shown["pod_uid"], "service_account": "app", "class": "app", "backend": "vault",
        "scope": "volume", "volumes": 1, "ends_seconds": shown["ends_seconds"], "next_seconds": shown["next_seconds"], "cause": null, "failures": 0,
        "last_error": null, "leases": [{
            "path": "database/creds/app", "id_digest": lease["id_digest"], "renewable": true,
            "ends_seconds": lease["ends_seconds"],
        }],
    });
    assert_eq!(shown, named);
    let seconds = |value: &Value| value.as_u64().unwrap();
    assert!(seconds(&shown["next_seconds"]) <= 20 && seconds(&shown["ends_seconds"]) > 500, "{shown}");
    assert!(seconds(&lease["ends_seconds"]) <= LEASE.as_secs(), "{shown}");
    assert!(listed(&world.plugin, &["--namespace", "elsewhere"]).is_empty());

    // What the backend calls it is nowhere to be seen.
    let ids = world.backend.admin().list("sys/leases/lookup/database/creds/app").await.unwrap();
    let table = || String::from_utf8(world.plugin.leases(&[]).unwrap().stdout).unwrap();
    let text = table();
    for said in [text.clone(), shown.to_string()] {
        assert!(ids.len() == 1 && !said.contains(&ids[0]), "{said}");
    }
    let lines: Vec<_> = text.lines().collect();
    let [head, group, below, "1 group, 1 lease"] = lines[..] else { panic!("{text}") };
    assert!(head.starts_with("NAMESPACE") && group.contains("vault    shown"), "{text}");
    assert!(below.starts_with("  database/creds/app  ") && below.ends_with("renewable"), "{text}");
    let metrics = world.plugin.metrics().await.unwrap();
    assert!(metrics.contains(r#"evanesce_lease_groups{backend="vault",state="shown"} 1.0"#), "{metrics}");

    world.plugin.kill_engine().await.unwrap();
    let adopted = listed(&world.plugin, &[]).remove(0);
    assert_eq!((&adopted["group"], &adopted["state"]), (&shown["group"], &json!("shown")));
    assert_eq!(adopted["leases"], Value::Null, "nobody wrote them down");

    world.backend.kill();
    world.kubelet.unpublish(&volume).await.unwrap();
    let failed = || listed(&world.plugin, &["--returning"]).into_iter().find(|it| it["failures"].as_u64() > Some(1));
    let group = wait::until_some("it was tried twice", failed).await;
    assert_eq!((&group["group"], &group["cause"]), (&shown["group"], &json!("unmounted")));
    assert_eq!(group["last_error"]["kind"], "unavailable", "{group}");
    let text = String::from_utf8(world.plugin.leases(&[]).unwrap().stdout).unwrap();
    assert!(text.contains("returning (unmounted)") && text.contains("  unavailable ("), "{text}");
    assert!(text.ends_with("1 group, 0 leases and those of 1 earlier group, 1 not given back\n"), "{text}");
}

#[test]
fn who_is_not_root_is_told_nothing_of_leases() {
    let mut command = Command::new(binaries::evanesce().unwrap());
    let output = command.env_clear().arg("leases").uid(1000).gid(1000).output().unwrap();
    assert_eq!(output.status.code(), Some(77), "{output:?}");
}

/// The lines of the plugin's log that say this.
fn said(plugin: &Plugin, what: &str) -> usize {
    plugin.log().lines().filter(|line| line.contains(what)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_is_said_once_with_its_cure_and_the_pod_has_what_it_needs() {
    let patient = class("short").replace("overlap: 1s", "overlap: 10m").replace("name: short", "name: patient");
    let (world, postgres) = ground(Setup::default().class(&patient)).await;
    let admin = world.backend.admin();
    // Neither renew-self nor sys/leases/renew nor revoke-self, all of which the policy `default` has.
    let role = json!({
        "bound_service_account_names": "app", "bound_service_account_namespaces": "payments", "audience": AUDIENCE,
        "token_policies": "payments", "token_no_default_policy": true, "token_ttl": "10m",
    });
    admin.write("auth/kubernetes/role/app", &role).await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "patient");
    world.kubelet.publish(&volume).await.unwrap();
    let replaced = || events(&world.plugin, "revoke").len();
    wait::until("three leases were replaced, and their overlap cut", || replaced() >= 3).await;
    let (role, password) = beneath(volume.target_path());
    postgres.log_in(&role, &password).await.unwrap();
    let line = "lower spec.leases.overlap, or raise default_ttl of the role";
    assert_eq!(said(&world.plugin, line), 1, "{}", world.plugin.log());
    assert_eq!(
        said(&world.plugin, "lack update on auth/token/renew-self or sys/leases/renew"),
        1,
        "{}",
        world.plugin.log()
    );
    for revoked in events(&world.plugin, "revoke") {
        assert_eq!(revoked["status"], "Failure", "{revoked}");
    }
    assert!(said(&world.plugin, "lack update on auth/token/revoke-self") >= 3);
    assert_eq!(said(&world.plugin, "volume is stale"), 0, "{}", world.plugin.log());
    world.kubelet.unpublish(&volume).await.unwrap();
    assert_nothing_lent(&world.plugin, &world.backend, &postgres, Left::None).await;
}
