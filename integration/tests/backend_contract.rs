// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The vault backend on a real OpenBao: the contract suite, and what only a real server shows.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use evanesce_engine::backend::contract::{self, Fixture};
use evanesce_engine::backend::vault::VaultBackend;
use evanesce_engine::backend::{Backend, BackendError, BackendErrorKind as Kind, Caller, Session};
use evanesce_engine::credentials::CredentialFiles;
use evanesce_engine::error::Error;
use evanesce_engine::names::BackendName;
use evanesce_engine::secret::SecretBytes;
use evanesce_engine::spec::backend::{Limits, PemSource, VaultAuth, VaultSpec};
use evanesce_engine::workload::Workload;
use evanesce_integration::openbao::{Admin, KubernetesRole, OpenBao};
use evanesce_integration::token_review::{Claims, TokenReview, WorkloadName};
use evanesce_integration::wait;
use serde_json::{Map, Value, json};

const AUDIENCE: &str = "vault";
/// What the role of the suite's workload may do, and nothing else.
const POLICY: &str = r#"
path "kv/data/payments/*" { capabilities = ["read"] }
path "kv/metadata/payments/*" { capabilities = ["read"] }
path "kv/data/odd/*" { capabilities = ["read"] }
path "pki/issue/web" { capabilities = ["update"] }
path "ssh/creds/otp" { capabilities = ["update"] }
"#;

/// What differs from backend to backend.
struct Settings {
    name: &'static str,
    mount: &'static str,
    role: &'static str,
    audience: &'static str,
    namespace: Option<&'static str>,
}

const USUAL: Settings =
    Settings { name: "vault", mount: "kubernetes", role: "app", audience: AUDIENCE, namespace: None };

/// No credentials file is needed here.
struct NoFiles;

#[async_trait]
impl CredentialFiles for NoFiles {
    async fn read(&self, name: &str) -> Result<SecretBytes, Error> {
        Err(Error::missing(name.to_owned()))
    }
}

struct Bao {
    server: OpenBao,
    cluster: TokenReview,
    backend: VaultBackend,
}

impl Bao {
    async fn start() -> Self {
        let server = OpenBao::start().await.unwrap();
        let cluster = TokenReview::start().await.unwrap();
        let admin = server.admin();
        admin.enable_kv2("kv").await.unwrap();
        admin.policy("payments", POLICY).await.unwrap();
        admin.enable_kubernetes("kubernetes", &cluster).await.unwrap();
        let role = KubernetesRole {
            name: "app",
            namespaces: &["payments"],
            service_accounts: &["app"],
            audience: AUDIENCE,
            policies: &["payments"],
        };
        admin.kubernetes_role("kubernetes", role).await.unwrap();
        let backend = backend(&server, &USUAL);
        Self { server, cluster, backend }
    }

    fn mint(&self, change: impl FnOnce(Claims) -> Claims) -> String {
        let workload = contract::workload();
        let name = WorkloadName::new(workload.namespace.as_str(), workload.service_account.as_str(), "app-0");
        self.cluster.tokens().mint(&change(Claims::new(&name, AUDIENCE))).unwrap().token
    }

    async fn open(&self, backend: &VaultBackend, token: &str) -> Result<Box<dyn Session>, BackendError> {
        let workload = contract::workload();
        let token = contract::parse_token(token);
        let caller = Caller { workload: &workload, token: Some(&token) };
        let identity = backend.identity(&caller, None).unwrap();
        backend.open(&caller, &identity).await
    }
}

fn backend(server: &OpenBao, settings: &Settings) -> VaultBackend {
    let spec = VaultSpec {
        addresses: vec![server.address().to_owned()],
        ca: Some(PemSource::Inline(server.authority_pem().to_owned())),
        namespace: settings.namespace.map(str::to_owned),
        auth: VaultAuth::Kubernetes {
            mount: settings.mount.into(),
            role: settings.role.into(),
            audience: settings.audience.into(),
        },
        kv_mounts: vec!["kv".into()],
    };
    let name = BackendName::parse(settings.name).unwrap();
    VaultBackend::new(&spec, name, Limits::default(), Arc::new(NoFiles), Arc::default()).unwrap()
}

fn error<T>(answer: Result<T, BackendError>) -> BackendError {
    answer.err().unwrap()
}

#[async_trait]
impl Fixture for Bao {
    fn backend(&self) -> &dyn Backend {
        &self.backend
    }

    fn variations(&self) -> Vec<Box<dyn Backend>> {
        [
            Settings { name: "other", ..USUAL },
            Settings { mount: "other", ..USUAL },
            Settings { role: "other", ..USUAL },
            Settings { audience: "other", ..USUAL },
        ]
        .map(|settings| Box::new(backend(&self.server, &settings)) as Box<dyn Backend>)
        .into()
    }

    async fn token(&self, workload: &Workload) -> Option<String> {
        let name = WorkloadName::new(workload.namespace.as_str(), workload.service_account.as_str(), "app-0");
        Some(self.cluster.tokens().mint(&Claims::new(&name, AUDIENCE)).unwrap().token)
    }

    async fn write(&self, name: &str, values: &[(&str, &str)]) -> String {
        let path = format!("payments/{name}");
        let values: Map<_, _> = values.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect();
        self.server.admin().put("kv", &path, Value::Object(values)).await.unwrap();
        format!("kv/{path}")
    }

    /// Deletes the newest version, whose metadata then stays.
    async fn delete(&self, name: &str) {
        let admin = self.server.admin();
        let metadata = admin.read(&format!("kv/metadata/payments/{name}")).await.unwrap();
        let versions = json!({"versions": [metadata["data"]["current_version"]]});
        admin.write(&format!("kv/delete/payments/{name}"), &versions).await.unwrap();
    }

    async fn denied(&self) -> Option<String> {
        self.server.admin().put("kv", "other/db", json!({"a": "b"})).await.unwrap();
        Some("kv/other/db".into())
    }

    /// One-time passwords of the ssh engine are leased, and need no second server.
    async fn leased(&self) -> Option<(String, BTreeMap<String, String>)> {
        let admin = self.server.admin();
        admin.write("sys/mounts/ssh", &json!({"type": "ssh"})).await.unwrap();
        let role = json!({"key_type": "otp", "default_user": "app", "cidr_list": "0.0.0.0/0"});
        admin.write("ssh/roles/otp", &role).await.unwrap();
        Some(("ssh/creds/otp".into(), [("ip".to_owned(), "192.0.2.1".to_owned())].into()))
    }

    async fn expiring(&self) -> Option<(String, BTreeMap<String, String>)> {
        let admin = self.server.admin();
        admin.write("sys/mounts/pki", &json!({"type": "pki"})).await.unwrap();
        let root = json!({"common_name": "root", "key_type": "ec", "ttl": "1h"});
        admin.write("pki/root/generate/internal", &root).await.unwrap();
        let role = json!({"allowed_domains": "example", "allow_subdomains": true, "key_type": "ec", "ttl": "10m"});
        admin.write("pki/roles/web", &role).await.unwrap();
        Some(("pki/issue/web".into(), [("common_name".to_owned(), "web.example".to_owned())].into()))
    }

    fn numbered(&self) -> bool {
        true
    }

    async fn throttle(&self) -> Option<Duration> {
        let admin = self.server.admin();
        admin.write("sys/quotas/config", &json!({"enable_rate_limit_response_headers": true})).await.unwrap();
        let quota = json!({"path": "kv/", "rate": 2, "interval": "60s"});
        admin.write("sys/quotas/rate-limit/kv", &quota).await.unwrap();
        Some(Duration::from_secs(60))
    }
}

evanesce_engine::backend_contract!(Bao::start());

#[tokio::test]
async fn a_login_that_the_server_refuses_is_unauthenticated_for_whatever_reason() {
    let bao = Bao::start().await;
    let right = bao.mint(|claims| claims);
    bao.open(&bao.backend, &right).await.unwrap();
    let expired = bao.mint(Claims::expired);
    let other_audience = bao.mint(|claims| Claims { audience: "elsewhere".into(), ..claims });
    let other_account = bao.mint(|claims| Claims { workload: WorkloadName::new("payments", "other", "x"), ..claims });
    let forged = TokenReview::start().await.unwrap();
    let forged = forged.tokens().mint(&Claims::new(&WorkloadName::new("payments", "app", "x"), AUDIENCE)).unwrap();
    for (why, token) in [
        ("expired", expired),
        ("another audience", other_audience),
        ("another service account", other_account),
        ("another cluster", forged.token),
        ("not a token", "x.y.z".to_owned()),
    ] {
        let error = error(bao.open(&bao.backend, &token).await);
        assert_eq!(error.kind, Kind::Unauthenticated, "{why}: {error}");
    }
    for (why, settings) in [
        ("no such role", Settings { role: "nobody", ..USUAL }),
        ("no such mount", Settings { mount: "nowhere", ..USUAL }),
    ] {
        let error = error(bao.open(&backend(&bao.server, &settings), &right).await);
        assert_eq!(error.kind, Kind::Unauthenticated, "{why}: {error}");
    }
}

#[tokio::test]
async fn the_server_sees_the_path_that_policy_saw() {
    let bao = Bao::start().await;
    let session = bao.open(&bao.backend, &bao.mint(|claims| claims)).await.unwrap();
    for path in ["odd/a..b", "odd/...", "odd/a@b:c,d=e+f!~", "odd/data/x", "odd/-._~"] {
        bao.server.admin().put("kv", path, json!({"path": path})).await.unwrap();
        let grant = contract::grant(&bao.backend, &format!("kv/{path}"), None, BTreeMap::new());
        let secret = session.fetch(&grant).await.unwrap();
        assert_eq!(secret.values["path"].bytes.expose(), path.as_bytes());
        let seen = bao.server.requests().unwrap().pop().unwrap();
        assert_eq!((seen.operation.as_str(), seen.path.as_str()), ("read", grant.path().as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_outlives_its_session() {
    let bao = Bao::start().await;
    let path = bao.write("db", &[("a", "b")]).await;
    let session = bao.open(&bao.backend, &bao.mint(|claims| claims)).await.unwrap();
    session.fetch(&contract::grant(&bao.backend, &path, None, BTreeMap::new())).await.unwrap();
    assert!(connections_to(bao.server.address()) > 0, "one is kept while the session lasts");
    drop(session);
    wait::until("every connection to the server is closed", || connections_to(bao.server.address()) == 0).await;
}

/// How many established TCP connections have this address at their far end.
fn connections_to(address: &str) -> usize {
    let port: u16 = address.rsplit_once(':').unwrap().1.parse().unwrap();
    let far = format!("0100007F:{port:04X}");
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    table
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .filter(|row| row[2] == far && row[3] == "01")
        .count()
}

#[tokio::test]
async fn a_sealed_server_is_unavailable_and_says_why() {
    let bao = Bao::start().await;
    let session = bao.open(&bao.backend, &bao.mint(|claims| claims)).await.unwrap();
    bao.server.admin().write("sys/seal", &json!({})).await.unwrap();
    let grant = contract::grant(&bao.backend, "kv/payments/db", None, BTreeMap::new());
    for error in [error(session.fetch(&grant).await), error(bao.backend.probe().await)] {
        assert_eq!(error.kind, Kind::Unavailable);
        assert!(error.message.contains("unseal"), "{error}");
    }
}

#[tokio::test]
async fn a_namespace_of_the_server_is_a_place_of_its_own() {
    let bao = Bao::start().await;
    let admin = bao.server.admin();
    admin.put("kv", "payments/db", json!({"a": "root"})).await.unwrap();
    admin.write("sys/namespaces/team", &json!({})).await.unwrap();
    furnish(admin, "team", &bao.cluster).await;
    let backend = backend(&bao.server, &Settings { namespace: Some("team"), ..USUAL });
    let session = bao.open(&backend, &bao.mint(|claims| claims)).await.unwrap();
    let grant = contract::grant(&backend, "kv/payments/db", None, BTreeMap::new());
    assert_eq!(session.fetch(&grant).await.unwrap().values["a"].bytes.expose(), b"team");
}

/// The administrator's work inside a namespace; a namespace is also the beginning of a path.
async fn furnish(admin: &Admin, namespace: &str, cluster: &TokenReview) {
    let at = |path: &str| format!("{namespace}/{path}");
    let config = json!({
        "kubernetes_host": cluster.address(),
        "kubernetes_ca_cert": cluster.authority_pem(),
        "token_reviewer_jwt": cluster.reviewer_token().unwrap(),
        "disable_local_ca_jwt": true,
    });
    let role = json!({
        "bound_service_account_names": ["app"],
        "bound_service_account_namespaces": ["payments"],
        "audience": AUDIENCE,
        "token_policies": ["payments"],
    });
    let kv = json!({"type": "kv", "options": {"version": "2"}});
    for (path, body) in [
        ("sys/mounts/kv", kv),
        ("sys/auth/kubernetes", json!({"type": "kubernetes"})),
        ("auth/kubernetes/config", config),
        ("auth/kubernetes/role/app", role),
        ("sys/policies/acl/payments", json!({"policy": POLICY})),
    ] {
        admin.write(&at(path), &body).await.unwrap();
    }
    wait::until_ready("the namespace's mount has upgraded itself", async || admin.read(&at("kv/config")).await.ok())
        .await;
    admin.write(&at("kv/data/payments/db"), &json!({"data": {"a": namespace}})).await.unwrap();
}
