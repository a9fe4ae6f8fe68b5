// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A real OpenBao that makes users in a real PostgreSQL, a client that logs in, and what may be left of either.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use evanesce_integration::openbao::OpenBao;
use evanesce_integration::plugin::Plugin;
use evanesce_integration::postgres::Postgres;
use evanesce_integration::world::{AUDIENCE, Setup, World};
use evanesce_integration::{sight, wait};
use evanesce_proto::kubelet::Publish;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// The class `NAME`: the role `NAME` as two files and as one.
pub(crate) fn class(name: &str) -> String {
    class_of(name, name, "overlap: 1s")
}

/// The class `NAME-shared`: one credential for the pods of a service account.
pub(crate) fn shared(name: &str) -> String {
    class_of(&format!("{name}-shared"), name, "overlap: 1s, scope: serviceAccount")
}

pub(crate) fn class_of(name: &str, role: &str, leases: &str) -> String {
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
pub(crate) const LEASE: Duration = Duration::from_secs(30);

/// The roles of the database: how many seconds a lease is good for, and how many at most.
const ROLES: [(&str, u64, u64); 5] = [
    ("app", LEASE.as_secs(), 10 * LEASE.as_secs()),
    ("medium", 15, 15),
    ("short", 6, 12),
    ("swift", 6, 6),
    ("brief", 2, 2),
];

/// A service account whose logins live for six seconds and twelve at most.
pub(crate) const HASTY: &str = "hasty";

/// A world whose OpenBao makes the [`ROLES`] in a PostgreSQL, each with a class of its name, and one whose credential is shared.
pub(crate) async fn ground(setup: Setup) -> (World<OpenBao>, Arc<Postgres>) {
    let setup = setup
        .allow("{namespaces: [payments], serviceAccounts: [app], secrets: [\"database/*\"]}")
        .allow("{namespaces: [payments], serviceAccounts: [hasty], secrets: [\"database/*\"], role: hasty}");
    let classes = ROLES.map(|(name, ..)| [class(name), shared(name)]).concat().join("---\n");
    let setup = setup.class(&classes).log("info");
    let (world, postgres) = (setup.openbao().await.unwrap(), Arc::new(Postgres::start().await.unwrap()));
    let admin = world.backend.admin();
    admin.enable_database("database", &postgres).await.unwrap();
    let create = r#"create role "{{name}}" with login password '{{password}}' valid until '{{expiration}}'"#;
    for (role, lease, longest) in ROLES {
        let body =
            json!({"db_name": "postgres", "default_ttl": lease, "max_ttl": longest, "creation_statements": create});
        admin.write(&format!("database/roles/{role}"), &body).await.unwrap();
    }
    admin.policy("payments", r#"path "database/*" { capabilities = ["read"] }"#).await.unwrap();
    let hasty = json!({
        "bound_service_account_names": HASTY, "bound_service_account_namespaces": "payments", "audience": AUDIENCE,
        "token_policies": "payments", "token_ttl": "6s", "token_max_ttl": "12s",
    });
    admin.write(&format!("auth/kubernetes/role/{HASTY}"), &hasty).await.unwrap();
    (world, postgres)
}

/// A client that logs in anew again and again, with what it reads in both safe ways: beneath one open of `..data`, and from
/// one file.
#[derive(Default)]
pub(crate) struct Client {
    logins: AtomicU32,
    failed: AtomicU32,
    enough: AtomicBool,
}

/// Clients of volumes, one each.
pub(crate) struct Clients {
    all: Arc<Client>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Lets one loose on each.
    pub(crate) fn of(volumes: &[Publish], postgres: &Arc<Postgres>) -> Self {
        let all = Arc::<Client>::default();
        let run = |volume: &Publish| Arc::clone(&all).run(volume.target_path().to_owned(), Arc::clone(postgres));
        let tasks = volumes.iter().map(|volume| tokio::spawn(run(volume))).collect();
        Self { all, tasks }
    }

    /// Waits for something to happen, unless a login fails first.
    pub(crate) async fn until(&self, what: &str, happened: impl Fn() -> bool) {
        wait::until(what, || happened() || self.all.failed.load(Ordering::Relaxed) > 0).await;
    }

    /// Ends them: none may have failed.
    pub(crate) async fn end(self, plugin: &Plugin) {
        self.all.enough.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        let (logins, failed) = (self.all.logins.load(Ordering::Relaxed), self.all.failed.load(Ordering::Relaxed));
        assert!(failed == 0 && logins > 50, "{failed} of {} logins failed\n{}", logins + failed, plugin.log());
    }
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

pub(crate) fn beneath(target: &Path) -> (String, String) {
    let files = sight::generation(target).unwrap();
    let text = |name: &str| String::from_utf8(files[name].to_vec()).unwrap();
    (text("username"), text("password"))
}

pub(crate) fn whole(target: &Path) -> (String, String) {
    let all: Value = serde_json::from_str(&sight::text(target, "db.json")).unwrap();
    let text = |key: &str| all[key].as_str().unwrap().to_owned();
    (text("username"), text("password"))
}

/// Which roles may be left.
#[derive(Clone, Copy)]
pub(crate) enum Left {
    None,
    /// Those whose making OpenBao broke off when its client was killed. Where that hits the database's commit, the role is
    /// there and no lease is: nobody was ever told of it, and nobody can log in after its `valid until`.
    NeverAnswered,
}

/// The journal names nothing, and nobody is left in PostgreSQL.
pub(crate) async fn assert_nothing_lent(plugin: &Plugin, backend: &OpenBao, postgres: &Postgres, left: Left) {
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
    let begun = Instant::now();
    while let Some(entry) = std::fs::read_dir(&journal).unwrap().next() {
        let listed = || String::from_utf8_lossy(&plugin.leases(&[]).unwrap().stdout).into_owned();
        assert!(begun.elapsed() < wait::SOON, "the journal has {entry:?} still\n{}\n{}", listed(), plugin.log());
        wait::a_moment().await;
    }
}

pub(crate) fn events(plugin: &Plugin, code: &str) -> Vec<Value> {
    plugin.audit().into_iter().filter(|event| event["metadata"]["event_code"] == code).collect()
}

/// How often the login of a volume was ended because another took its place. None may fail.
pub(crate) fn replaced(plugin: &Plugin, volume: &Publish) -> usize {
    let revoked = events(plugin, "revoke");
    let ours: Vec<_> = revoked.iter().filter(|event| event.to_string().contains(volume.volume_id())).collect();
    assert!(ours.iter().all(|event| event["status"] == "Success"), "{ours:?}");
    ours.iter().filter(|event| event["unmapped"]["lease_group"]["cause"] == "replaced").count()
}
