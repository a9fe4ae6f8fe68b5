// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A real OpenBao, furnished for one way to log in and one version of the KV mount, in the root namespace or in one of its
//! own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use evanesce_engine::backend::contract::{self, Fixture};
use evanesce_engine::backend::vault::VaultBackend;
use evanesce_engine::backend::{Backend, BackendError, Caller, Session};
use evanesce_engine::credentials::CredentialFiles;
use evanesce_engine::error::Error;
use evanesce_engine::names::BackendName;
use evanesce_engine::secret::SecretBytes;
use evanesce_engine::spec::backend::{ClientCertificate, Limits, PemSource, VaultAuth, VaultSpec};
use evanesce_engine::workload::Workload;
use evanesce_integration::authority::{Authority, ServerIdentity};
use evanesce_integration::openbao::{Admin, OpenBao};
use evanesce_integration::token_review::{Claims, TokenReview, WorkloadName};
use evanesce_integration::wait;
use serde_json::{Map, Value, json};

pub(crate) const AUDIENCE: &str = "vault";
/// The name in the client certificate that the role of the cert method wants.
pub(crate) const NODE: &str = "node.example";

/// What a backend is made with, and what is on the server.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) name: &'static str,
    pub(crate) auth: VaultAuth,
    pub(crate) namespace: Option<&'static str>,
    /// Whether the mount `kv` is of version 1.
    pub(crate) kv1: bool,
    /// Whether the files `client.pem` and `client.key` are shown.
    pub(crate) client_certificate: bool,
}

impl Settings {
    fn new(auth: VaultAuth) -> Self {
        Self { name: "vault", auth, namespace: None, kv1: false, client_certificate: false }
    }

    pub(crate) fn kubernetes() -> Self {
        let (mount, role, audience) = ("kubernetes".into(), "app".into(), AUDIENCE.into());
        Self::new(VaultAuth::Kubernetes { mount, role, audience })
    }

    pub(crate) fn jwt() -> Self {
        let (mount, role, audience) = ("jwt".into(), "app".into(), AUDIENCE.into());
        Self::new(VaultAuth::Jwt { mount, role, audience, share_pods: false })
    }

    pub(crate) fn app_role() -> Self {
        let (role_id_file, secret_id_file) = ("role-id".into(), "secret-id".into());
        Self::new(VaultAuth::AppRole { mount: "approle".into(), role_id_file, secret_id_file })
    }

    pub(crate) fn cert() -> Self {
        let auth = VaultAuth::Cert { mount: "cert".into(), role: Some("node".into()) };
        Self { client_certificate: true, ..Self::new(auth) }
    }

    /// With something of its login changed.
    pub(crate) fn login(mut self, change: impl FnOnce(&mut String, &mut String)) -> Self {
        let mut nothing = String::new();
        match &mut self.auth {
            VaultAuth::Kubernetes { mount, role, .. } | VaultAuth::Jwt { mount, role, .. } => change(mount, role),
            VaultAuth::Cert { mount, role } => change(mount, role.get_or_insert_default()),
            VaultAuth::AppRole { mount, .. } => change(mount, &mut nothing),
            VaultAuth::TokenFile { .. } => {}
        }
        self
    }

    pub(crate) fn at(&self, path: &str) -> String {
        // A namespace is also the beginning of a path.
        self.namespace.map_or_else(|| path.to_owned(), |namespace| format!("{namespace}/{path}"))
    }
}

/// Credentials files that a test writes.
#[derive(Default)]
pub(crate) struct Files(Mutex<BTreeMap<String, String>>);

impl Files {
    pub(crate) fn write(&self, name: &str, contents: &str) {
        self.0.lock().unwrap().insert(name.to_owned(), contents.to_owned());
    }

    pub(crate) fn write_client(&self, client: &ServerIdentity) {
        self.write("client.pem", &client.certificate);
        self.write("client.key", &client.key);
    }
}

#[async_trait]
impl CredentialFiles for Files {
    async fn read(&self, name: &str) -> Result<SecretBytes, Error> {
        let files = self.0.lock().unwrap();
        let contents =
            files.get(name).ok_or_else(|| Error::missing(format!("there is no credentials file {name:?}")))?;
        Ok(SecretBytes::from(contents.as_bytes()))
    }
}

pub(crate) struct Bao {
    pub(crate) server: OpenBao,
    pub(crate) cluster: TokenReview,
    pub(crate) clients: Authority,
    pub(crate) files: Arc<Files>,
    pub(crate) settings: Settings,
    pub(crate) backend: VaultBackend,
}

impl Bao {
    pub(crate) async fn start(settings: Settings) -> Self {
        Self::furnish(OpenBao::start().await.unwrap(), Authority::new("clients").unwrap(), settings).await
    }

    pub(crate) async fn furnish(server: OpenBao, clients: Authority, settings: Settings) -> Self {
        let cluster = TokenReview::start().await.unwrap();
        let files = Arc::<Files>::default();
        let admin = server.admin();
        if let Some(namespace) = settings.namespace {
            admin.write(&format!("sys/namespaces/{namespace}"), &json!({})).await.unwrap();
        }
        enable_kv(admin, &settings).await;
        admin.write(&settings.at("sys/policies/acl/payments"), &json!({"policy": policy(settings.kv1)})).await.unwrap();
        files.write_client(&clients.issue(&[NODE], evanesce_integration::authority::Validity::Now).unwrap());
        enable_login(admin, &settings, &cluster, &clients, &files).await;
        let backend = backend(&server, &files, &settings);
        Self { server, cluster, clients, files, settings, backend }
    }

    /// A backend of other settings on the same server, with the same files.
    pub(crate) fn other(&self, settings: &Settings) -> VaultBackend {
        backend(&self.server, &self.files, settings)
    }

    pub(crate) fn mint(&self, change: impl FnOnce(Claims) -> Claims) -> String {
        let workload = contract::workload();
        let name = WorkloadName::new(workload.namespace.as_str(), workload.service_account.as_str(), "app-0");
        self.cluster.tokens().mint(&change(Claims::new(&name, AUDIENCE))).unwrap().token
    }

    /// A login with the right token, if it takes one.
    pub(crate) async fn open(&self, backend: &VaultBackend) -> Result<Box<dyn Session>, BackendError> {
        open(backend, &self.mint(|claims| claims)).await
    }

    pub(crate) async fn put(&self, path: &str, values: Value) {
        let (path, body) = if self.settings.kv1 {
            (format!("kv/{path}"), values)
        } else {
            (format!("kv/data/{path}"), json!({ "data": values }))
        };
        self.server.admin().write(&self.settings.at(&path), &body).await.unwrap();
    }
}

pub(crate) async fn open(backend: &VaultBackend, token: &str) -> Result<Box<dyn Session>, BackendError> {
    let workload = contract::workload();
    let token = contract::parse_token(token);
    let caller = Caller { workload: &workload, token: Some(&token) };
    let identity = backend.identity(&caller, None).unwrap();
    backend.open(&caller, &identity).await
}

fn backend(server: &OpenBao, files: &Arc<Files>, settings: &Settings) -> VaultBackend {
    let (kv1_mounts, kv_mounts) = if settings.kv1 { (vec!["kv".into()], vec![]) } else { (vec![], vec!["kv".into()]) };
    let spec = VaultSpec {
        addresses: vec![server.address().to_owned()],
        ca: Some(PemSource::Inline(server.authority_pem().to_owned())),
        client_certificate: settings
            .client_certificate
            .then(|| ClientCertificate { file: "client.pem".into(), key_file: "client.key".into() }),
        namespace: settings.namespace.map(str::to_owned),
        auth: settings.auth.clone(),
        kv_mounts,
        kv1_mounts,
    };
    let name = BackendName::parse(settings.name).unwrap();
    VaultBackend::new(&spec, name, Limits::default(), Arc::clone(files) as _, Arc::default()).unwrap()
}

/// What the role of the suite's workload may do, and nothing else: nobody may ask what a mount is.
fn policy(kv1: bool) -> String {
    let kv: &[&str] = if kv1 {
        &["kv/payments/*", "kv/odd/*"]
    } else {
        &["kv/data/payments/*", "kv/metadata/payments/*", "kv/data/odd/*"]
    };
    let read = kv.iter().map(|path| format!("path \"{path}\" {{ capabilities = [\"read\"] }}\n"));
    let made = ["pki/issue/web", "ssh/creds/otp"];
    let update = made.iter().map(|path| format!("path \"{path}\" {{ capabilities = [\"update\"] }}\n"));
    read.chain(update).collect()
}

async fn enable_kv(admin: &Admin, settings: &Settings) {
    let version = if settings.kv1 { "1" } else { "2" };
    let body = json!({"type": "kv", "options": {"version": version}});
    admin.write(&settings.at("sys/mounts/kv"), &body).await.unwrap();
    if !settings.kv1 {
        let config = settings.at("kv/config");
        wait::until_ready("the mount has upgraded itself", async || admin.read(&config).await.ok()).await;
    }
}

async fn enable_login(admin: &Admin, settings: &Settings, cluster: &TokenReview, clients: &Authority, files: &Files) {
    let write = async |path: &str, body: Value| admin.write(&settings.at(path), &body).await.unwrap();
    let policies = json!(["payments"]);
    match &settings.auth {
        VaultAuth::Kubernetes { .. } => {
            write("sys/auth/kubernetes", json!({"type": "kubernetes"})).await;
            let config = json!({
                "kubernetes_host": cluster.address(),
                "kubernetes_ca_cert": cluster.authority_pem(),
                "token_reviewer_jwt": cluster.reviewer_token().unwrap(),
                "disable_local_ca_jwt": true,
            });
            write("auth/kubernetes/config", config).await;
            let role = json!({
                "bound_service_account_names": ["app"],
                "bound_service_account_namespaces": ["payments"],
                "audience": AUDIENCE,
                "token_policies": policies,
            });
            write("auth/kubernetes/role/app", role).await;
        }
        VaultAuth::Jwt { .. } => {
            write("sys/auth/jwt", json!({"type": "jwt"})).await;
            let config = json!({"jwt_validation_pubkeys": [cluster.tokens().public_key_pem()]});
            write("auth/jwt/config", config).await;
            let role = json!({
                "role_type": "jwt",
                "user_claim": "sub",
                "bound_audiences": [AUDIENCE],
                "bound_subject": "system:serviceaccount:payments:app",
                "token_policies": policies,
            });
            write("auth/jwt/role/app", role).await;
        }
        VaultAuth::AppRole { .. } => {
            write("sys/auth/approle", json!({"type": "approle"})).await;
            write("auth/approle/role/app", json!({"token_policies": policies})).await;
            let role_id = admin.read(&settings.at("auth/approle/role/app/role-id")).await.unwrap();
            files.write("role-id", &format!("{}\n", role_id["data"]["role_id"].as_str().unwrap()));
            files.write("secret-id", &new_secret_id(admin, settings).await);
        }
        VaultAuth::Cert { .. } => {
            write("sys/auth/cert", json!({"type": "cert"})).await;
            let role = json!({"certificate": clients.pem(), "allowed_dns_sans": [NODE], "token_policies": policies});
            write("auth/cert/certs/node", role).await;
        }
        VaultAuth::TokenFile { .. } => {}
    }
}

pub(crate) async fn new_secret_id(admin: &Admin, settings: &Settings) -> String {
    let made = admin.write(&settings.at("auth/approle/role/app/secret-id"), &json!({})).await.unwrap();
    made["data"]["secret_id"].as_str().unwrap().to_owned()
}

#[async_trait]
impl Fixture for Bao {
    fn backend(&self) -> &dyn Backend {
        &self.backend
    }

    fn variations(&self) -> Vec<Box<dyn Backend>> {
        let usual = || self.settings.clone();
        let mut all = vec![Settings { name: "other", ..usual() }, usual().login(|mount, _| *mount = "other".into())];
        if let VaultAuth::Kubernetes { .. } | VaultAuth::Jwt { .. } | VaultAuth::Cert { .. } = self.settings.auth {
            all.push(usual().login(|_, role| *role = "other".into()));
        }
        let mut other = usual();
        if let VaultAuth::Kubernetes { audience, .. } | VaultAuth::Jwt { audience, .. } = &mut other.auth {
            *audience = "other".into();
            all.push(other);
        }
        all.iter().map(|settings| Box::new(self.other(settings)) as Box<dyn Backend>).collect()
    }

    async fn token(&self, workload: &Workload) -> Option<String> {
        self.backend.audience()?;
        let name = WorkloadName::new(workload.namespace.as_str(), workload.service_account.as_str(), "app-0");
        Some(self.cluster.tokens().mint(&Claims::new(&name, AUDIENCE)).unwrap().token)
    }

    async fn write(&self, name: &str, values: &[(&str, &str)]) -> String {
        let path = format!("payments/{name}");
        let values: Map<_, _> = values.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect();
        self.put(&path, Value::Object(values)).await;
        format!("kv/{path}")
    }

    /// Deletes the newest version; of version 2 the metadata then stays.
    async fn delete(&self, name: &str) {
        let admin = self.server.admin();
        if self.settings.kv1 {
            admin.remove(&self.settings.at(&format!("kv/payments/{name}"))).await.unwrap();
            return;
        }
        let metadata = admin.read(&self.settings.at(&format!("kv/metadata/payments/{name}"))).await.unwrap();
        let versions = json!({"versions": [metadata["data"]["current_version"]]});
        admin.write(&self.settings.at(&format!("kv/delete/payments/{name}")), &versions).await.unwrap();
    }

    async fn denied(&self) -> Option<String> {
        self.put("other/db", json!({"a": "b"})).await;
        Some("kv/other/db".into())
    }

    /// One-time passwords of the ssh engine are leased, and need no second server.
    async fn leased(&self) -> Option<(String, BTreeMap<String, String>)> {
        let (admin, at) = (self.server.admin(), |path| self.settings.at(path));
        admin.write(&at("sys/mounts/ssh"), &json!({"type": "ssh"})).await.unwrap();
        let role = json!({"key_type": "otp", "default_user": "app", "cidr_list": "0.0.0.0/0"});
        admin.write(&at("ssh/roles/otp"), &role).await.unwrap();
        Some(("ssh/creds/otp".into(), [("ip".to_owned(), "192.0.2.1".to_owned())].into()))
    }

    async fn expiring(&self) -> Option<(String, BTreeMap<String, String>)> {
        let (admin, at) = (self.server.admin(), |path| self.settings.at(path));
        admin.write(&at("sys/mounts/pki"), &json!({"type": "pki"})).await.unwrap();
        let root = json!({"common_name": "root", "key_type": "ec", "ttl": "1h"});
        admin.write(&at("pki/root/generate/internal"), &root).await.unwrap();
        let role = json!({"allowed_domains": "example", "allow_subdomains": true, "key_type": "ec", "ttl": "10m"});
        admin.write(&at("pki/roles/web"), &role).await.unwrap();
        Some(("pki/issue/web".into(), [("common_name".to_owned(), "web.example".to_owned())].into()))
    }

    fn numbered(&self) -> bool {
        !self.settings.kv1
    }

    async fn throttle(&self) -> Option<Duration> {
        let admin = self.server.admin();
        admin.write("sys/quotas/config", &json!({"enable_rate_limit_response_headers": true})).await.unwrap();
        let quota = json!({"path": self.settings.at("kv/"), "rate": 2, "interval": "60s"});
        admin.write("sys/quotas/rate-limit/kv", &quota).await.unwrap();
        Some(Duration::from_secs(60))
    }
}
