// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What a real OpenBao lends beside database users: each engine is delivered, replaced in time and given back, and what it made
//! elsewhere is gone. RabbitMQ and the API server are a stand-in that keeps what it is told to.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use evanesce_integration::openbao::{Admin, OpenBao};
use evanesce_integration::plugin::Plugin;
use evanesce_integration::token_review::{Claims, TokenReview, WorkloadName};
use evanesce_integration::world::{Setup, World};
use evanesce_integration::{sight, wait};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// How many times each is replaced.
const REPLACEMENTS: usize = 3;

/// Whoever an engine makes things at: what was made there and not deleted, by path.
#[derive(Default)]
struct Elsewhere(Mutex<BTreeSet<String>>);

impl Elsewhere {
    /// Where it listens.
    async fn start(tokens: TokenReview) -> (Arc<Self>, String) {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = format!("http://{}", tcp.local_addr().unwrap());
        let elsewhere = Arc::<Self>::default();
        let router = Router::new().fallback(answer).with_state((Arc::clone(&elsewhere), Arc::new(tokens)));
        tokio::spawn(async move {
            // Ends only with the runtime.
            let _ = axum::serve(tcp, router).await;
        });
        (elsewhere, address)
    }

    /// RabbitMQ's users, or the API server's roles.
    fn made(&self, what: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|path| path.contains(what)).count()
    }
}

async fn answer(State((elsewhere, tokens)): State<(Arc<Elsewhere>, Arc<TokenReview>)>, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let body = to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let mut body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if method == Method::DELETE {
        elsewhere.0.lock().unwrap().remove(&path);
        return axum::Json(json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})).into_response();
    }
    if path.starts_with("/api/users/") || path.starts_with("/api/permissions/") {
        elsewhere.0.lock().unwrap().insert(path);
        return StatusCode::NO_CONTENT.into_response();
    }
    if path.ends_with("/token") {
        let account = WorkloadName::new("payments", "made", "made-0");
        let token = tokens.tokens().mint(&Claims::new(&account, "https://kubernetes.default.svc")).unwrap().token;
        body["status"] = json!({"token": token, "expirationTimestamp": "2130-01-01T00:00:00Z"});
    } else if let Some(name) = body["metadata"]["name"].as_str() {
        elsewhere.0.lock().unwrap().insert(format!("{path}/{name}"));
        body["metadata"]["uid"] = json!("6f1f4b2e-0000-4000-8000-000000000000");
    }
    (StatusCode::CREATED, axum::Json(body)).into_response()
}

/// One engine: its path, what is asked of it, and one key of its answer.
struct Engine {
    class: &'static str,
    secret: &'static str,
    args: &'static str,
    key: &'static str,
}

impl Engine {
    fn class(&self) -> String {
        let Self { class, secret, args, key } = self;
        format!(
            "apiVersion: evanesce.dev/v1alpha1
kind: SecretVolume
metadata: {{name: {class}, namespace: payments}}
spec:
  keepPrevious: 1s
  leases: {{overlap: 1s}}
  files:
    - {{path: credential, from: {{backend: vault, secret: {secret}, args: {{{args}}}, key: {key}}}}}
"
        )
    }

    /// The leases that the server has of it.
    async fn leases(&self, admin: &Admin) -> usize {
        admin.list(&format!("sys/leases/lookup/{}", self.secret)).await.unwrap().len()
    }

    /// A pod's volume: delivered, replaced three times, and given back. How often its leases were prolonged.
    async fn live(&self, world: &World<OpenBao>) -> usize {
        let admin = world.backend.admin();
        let volume = world.volume(&world.pod("payments", "app"), self.class);
        world.kubelet.publish(&volume).await.unwrap_or_else(|status| panic!("{}: {status}", self.class));
        let first = sight::text(volume.target_path(), "credential");
        assert!(!first.is_empty() && self.leases(admin).await == 1, "{}", self.class);
        let id = volume.volume_id().to_owned();
        for time in 1..=REPLACEMENTS {
            let what = format!("{} is replaced {time} times", self.class);
            wait::until(&what, || given_back(&world.plugin, &id, "replaced") >= time).await;
        }
        assert_ne!(sight::text(volume.target_path(), "credential"), first);
        world.kubelet.unpublish(&volume).await.unwrap();
        let what = format!("{} is given back", self.class);
        wait::until(&what, || given_back(&world.plugin, &id, "unmounted") >= 1).await;
        let gone = async || (self.leases(admin).await == 0).then_some(());
        wait::until_ready(&format!("nothing of {} is left", self.class), gone).await;
        let metrics = world.plugin.metrics().await.unwrap();
        let sample = r#"evanesce_lease_renewals_total{backend="vault",outcome="prolonged"} "#;
        metrics.lines().find_map(|line| line.strip_prefix(sample)?.parse().ok()).unwrap()
    }
}

/// How many logins of a volume were ended for this reason; none may fail.
fn given_back(plugin: &Plugin, volume: &str, cause: &str) -> usize {
    let revoked = plugin.audit().into_iter().filter(|event| event["metadata"]["event_code"] == "revoke");
    let ours: Vec<_> = revoked.filter(|event| event.to_string().contains(volume)).collect();
    assert!(ours.iter().all(|event| event["status"] == "Success"), "{ours:?}");
    ours.iter().filter(|event| event["unmapped"]["lease_group"]["cause"] == cause).count()
}

async fn world(engine: &Engine) -> World<OpenBao> {
    let allow = format!("{{namespaces: [payments], serviceAccounts: [app], secrets: [{}]}}", engine.secret);
    let world = Setup::default().class(&engine.class()).allow(&allow).log("info").openbao().await.unwrap();
    let rules = format!("path \"{}\" {{ capabilities = [\"create\", \"read\", \"update\"] }}", engine.secret);
    world.backend.admin().policy("payments", &rules).await.unwrap();
    world
}

async fn mount(admin: &Admin, kind: &str) {
    let config = json!({"default_lease_ttl": "6s", "max_lease_ttl": "1h"});
    admin.write(&format!("sys/mounts/{kind}"), &json!({"type": kind, "config": config})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_rabbitmq_is_prolonged_replaced_and_gone_with_its_pod() {
    let engine = Engine { class: "queue", secret: "rabbitmq/creds/app", args: "", key: "username" };
    let world = world(&engine).await;
    let admin = world.backend.admin();
    let (elsewhere, address) = Elsewhere::start(TokenReview::start().await.unwrap()).await;
    mount(admin, "rabbitmq").await;
    let connection =
        json!({"connection_uri": address, "username": "admin", "password": "admin", "verify_connection": false});
    admin.write("rabbitmq/config/connection", &connection).await.unwrap();
    admin.write("rabbitmq/config/lease", &json!({"ttl": 6, "max_ttl": 12})).await.unwrap();
    let role = json!({"vhosts": r#"{"/": {"write": ".*", "read": ".*"}}"#});
    admin.write("rabbitmq/roles/app", &role).await.unwrap();
    let prolonged = engine.live(&world).await;
    assert!(prolonged >= REPLACEMENTS, "prolonged {prolonged} times");
    assert_eq!(elsewhere.made("/api/users/"), 0, "a user is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_of_kubernetes_is_replaced_and_its_role_is_gone_with_its_pod() {
    let args = "kubernetes_namespace: payments";
    let engine = Engine { class: "account", secret: "kubernetes/creds/app", args, key: "service_account_token" };
    let world = world(&engine).await;
    let admin = world.backend.admin();
    let (elsewhere, address) = Elsewhere::start(TokenReview::start().await.unwrap()).await;
    mount(admin, "kubernetes").await;
    let config = json!({"kubernetes_host": address, "service_account_jwt": "a.b.c", "disable_local_ca_jwt": true});
    admin.write("kubernetes/config", &config).await.unwrap();
    let rules = r#"{"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]}"#;
    let role = json!({
        "allowed_kubernetes_namespaces": ["payments"], "generated_role_rules": rules, "token_default_ttl": "6s",
    });
    admin.write("kubernetes/roles/app", &role).await.unwrap();
    engine.live(&world).await;
    assert_eq!(elsewhere.made("/roles/"), 0, "a role is left");
}

/// An authority, and a role that issues certificates for so many seconds.
async fn issues(admin: &Admin, lends: bool, seconds: u32) {
    mount(admin, "pki").await;
    let root = json!({"common_name": "root.example", "ttl": "1h", "key_type": "ec", "key_bits": 256});
    admin.write("pki/root/generate/internal", &root).await.unwrap();
    let role = json!({
        "allow_any_name": true, "generate_lease": lends, "ttl": seconds, "key_type": "ec", "key_bits": 256,
    });
    admin.write("pki/roles/app", &role).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_without_a_lease_is_kept_over_a_restart_and_replaced_while_a_third_of_its_life_is_left() {
    let args = "common_name: app.payments.example";
    let engine = Engine { class: "tls", secret: "pki/issue/app", args, key: "serial_number" };
    let mut world = world(&engine).await;
    issues(world.backend.admin(), false, 24).await;
    let pod = world.pod("payments", "app");
    let volume = world.volume(&pod, "tls");
    world.kubelet.publish(&volume).await.unwrap();
    let begun = Instant::now();
    let serial = || sight::text(volume.target_path(), "credential");
    let issued = || world.backend.requests().unwrap().iter().filter(|it| it.path == "pki/issue/app").count();
    let first = serial();
    world.plugin.kill_and_restart().await.unwrap();
    world.kubelet.publish(&world.volume(&pod, "tls")).await.unwrap();
    assert_eq!((serial(), issued()), (first.clone(), 1), "one that is valid stays");
    wait::until_ready_within(Duration::from_secs(40), "another one is shown", async || {
        (serial() != first).then_some(())
    })
    .await;
    // Two thirds of 24 s, less a tenth, and not much later; OpenBao dates certificates half a minute back.
    let after = begun.elapsed();
    assert!(after > Duration::from_secs(10) && after < Duration::from_secs(24), "{after:?}");
    assert_eq!(issued(), 2);
    let journal = world.plugin.csi_socket().with_file_name("leases");
    let is_empty = || std::fs::read_dir(&journal).unwrap().next().is_none();
    wait::until("logins that lent nothing are ended", is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_with_a_lease_is_replaced_and_revoked() {
    let args = "common_name: app.payments.example";
    let engine = Engine { class: "tls", secret: "pki/issue/app", args, key: "certificate" };
    let world = world(&engine).await;
    let admin = world.backend.admin();
    issues(admin, true, 6).await;
    engine.live(&world).await;
    // Those that had ended by then are not on the list.
    assert!(!admin.list("pki/certs/revoked").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_time_password_of_ssh_is_replaced_and_gone_with_its_pod() {
    let engine = Engine { class: "ssh", secret: "ssh/creds/app", args: "ip: 10.0.0.1", key: "key" };
    let world = world(&engine).await;
    let admin = world.backend.admin();
    mount(admin, "ssh").await;
    let role = json!({"key_type": "otp", "default_user": "app", "cidr_list": "10.0.0.0/8"});
    admin.write("ssh/roles/app", &role).await.unwrap();
    assert_eq!(engine.live(&world).await, 0, "it says that it is not renewable");
}
