// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Everything a pod needs to get a secret, with one call: a cluster that makes tokens, a backend with a secret in it,
//! the plugin with its classes, a kubelet.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! # use evanesce_integration::world::World;
//! let world = World::start().await?;
//! let pod = world.pod("payments", "app");
//! let volume = world.volume(&pod, "db");
//! world.kubelet.publish(&volume).await?;
//! # Ok(())
//! # }
//! ```

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use evanesce_proto::kubelet::{Pod, Publish, Token, TokensIn};
use serde_json::json;

use crate::authority::Authority;
use crate::gate::Gate;
use crate::kubelet::Kubelet;
use crate::moto::{self, Aws};
use crate::openbao::{KubernetesRole, OpenBao};
use crate::plugin::{Options, Plugin};
use crate::recorder::Recorder;
use crate::scratch::Scratch;
use crate::token_review::{Claims, TokenReview, WorkloadName};

/// The audience of the tokens that kubelet hands over, as in `tokenRequests` of the `CSIDriver` object.
pub const AUDIENCE: &str = "vault";

/// The password that [`World::start`] puts at `kv/payments/db`.
pub const PASSWORD: &str = "correct horse battery staple";

/// The name of the volume in the pod's spec.
const VOLUME: &str = "secrets";

/// A node with all that it talks to.
pub struct World<B> {
    // Fields drop in this order: the plugin before what it talks to, the directory last.
    /// The plugin.
    pub plugin: Plugin,
    /// The node's kubelet.
    pub kubelet: Kubelet,
    /// What is behind the backend named `vault`.
    pub backend: B,
    /// The cluster's tokens.
    pub cluster: TokenReview,
    /// The directory of it all.
    pub scratch: Scratch,
}

/// A server behind gates.
pub struct Gated {
    /// In the order of the backend's addresses.
    pub gates: Vec<Gate>,
    /// What they lead to.
    pub recorder: Recorder,
}

/// What a world begins with, beyond [`vault_class`] and [`DB_CLASS`].
#[derive(Debug, Default)]
pub struct Setup {
    classes: String,
    allow: String,
    limits: String,
    options: Options,
}

impl Setup {
    /// More classes.
    #[must_use]
    pub fn class(mut self, yaml: &str) -> Self {
        self.classes.push_str("---\n");
        self.classes.push_str(yaml);
        self
    }

    /// One more entry of the backend's allow list, in YAML.
    #[must_use]
    pub fn allow(mut self, entry: &str) -> Self {
        self.allow.push_str("    - ");
        self.allow.push_str(entry);
        self.allow.push('\n');
        self
    }

    /// The backend's `limits`, in YAML.
    #[must_use]
    pub fn limits(mut self, limits: &str) -> Self {
        self.limits = format!("  limits: {limits}\n");
        self
    }

    /// One more argument of the plugin.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.options.arguments.push(argument.to_owned());
        self
    }

    /// A port that a backend of a class that is written later listens on.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.options.ports.push(port);
        self
    }

    /// A kernel that lacks these system calls, for every process of the plugin.
    #[must_use]
    pub fn without(mut self, calls: &[&'static str]) -> Self {
        self.options.without.extend(calls);
        self
    }

    /// Another log filter than everything.
    #[must_use]
    pub fn log(mut self, filter: &str) -> Self {
        filter.clone_into(&mut self.options.log);
        self
    }

    /// Words before the plugin's name, such as a [`Cgroup`](crate::cgroup::Cgroup)'s.
    #[must_use]
    pub fn under(mut self, words: Vec<String>) -> Self {
        self.options.under = words;
        self
    }

    /// The plugin with its crash points.
    #[must_use]
    pub fn crash_points(mut self) -> Self {
        self.options.crash_points = true;
        self
    }

    /// A world with a real OpenBao that holds `kv/payments/db`, and lets the service account `payments/app` read
    /// `kv/payments/*`.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn openbao(self) -> Result<World<OpenBao>> {
        let cluster = TokenReview::start().await?;
        let openbao = OpenBao::start().await?;
        furnish(&openbao, &cluster).await?;
        let backend = vault_class(openbao.address(), Some(openbao.authority_pem()));
        World::assemble(openbao, cluster, &backend, self).await
    }

    /// A world with a [`Recorder`] instead of a server. It holds the same secret, and lets everybody in.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn recorder(self) -> Result<World<Recorder>> {
        let recorder = Recorder::start().await?;
        recorder.put("kv", "payments/db", &json!({"username": "app", "password": PASSWORD}));
        let cluster = TokenReview::start().await?;
        let backend = vault_class(&recorder.address(), None);
        World::assemble(recorder, cluster, &backend, self).await
    }

    /// A world with AWS for its backend, which is named `aws`: it lets the service account `payments/app` read `payments/*`.
    /// Its tokens are for [`moto::AUDIENCE`].
    ///
    /// # Errors
    /// When something does not start.
    pub async fn aws(self) -> Result<World<Aws>> {
        let cluster = TokenReview::start().await?;
        let aws = Aws::start(Arc::clone(cluster.tokens())).await?;
        let class = aws_class(&aws.address());
        World::assemble(aws, cluster, &class, self).await
    }

    /// A world with a [`Recorder`] behind gates that can have faults, one for each of the backend's addresses. A request
    /// may take two seconds. The gates' authority is the credentials file `ca.pem`.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn gated(self, addresses: usize) -> Result<World<Gated>> {
        let recorder = Recorder::start().await?;
        recorder.put("kv", "payments/db", &json!({"username": "app", "password": PASSWORD}));
        let cluster = TokenReview::start().await?;
        let authority = Authority::new("gates")?;
        let mut gates = Vec::new();
        for _ in 0..addresses {
            gates.push(Gate::start(&authority, &recorder).await?);
        }
        let addresses: Vec<_> = gates.iter().map(|gate| format!("https://{}", gate.address())).collect();
        let class = vault_class("ADDRESS", None)
            .replace("address: ADDRESS", &format!("addresses: {addresses:?}\n    caFile: ca.pem"))
            .replace("  allow:", if self.limits.is_empty() { "  limits: {timeout: 2s}\n  allow:" } else { "  allow:" });
        let world = World::assemble(Gated { gates, recorder }, cluster, &class, self).await?;
        fs::write(world.plugin.credentials().join("ca.pem"), authority.pem())?;
        Ok(world)
    }
}

impl World<OpenBao> {
    /// [`Setup::openbao`] with nothing more.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn start() -> Result<Self> {
        Setup::default().openbao().await
    }
}

impl World<Recorder> {
    /// [`Setup::recorder`] with nothing more.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn recorded() -> Result<Self> {
        Setup::default().recorder().await
    }
}

impl<B> World<B> {
    async fn assemble(backend: B, cluster: TokenReview, class: &str, setup: Setup) -> Result<Self> {
        let scratch = Scratch::new()?;
        // Before the plugin starts: then it is not ready before it knows them.
        let directory = scratch.directory("classes")?;
        write_classes(
            &directory,
            "start.yaml",
            &format!("{class}{}{}---\n{DB_CLASS}{}", setup.allow, setup.limits, setup.classes),
        )?;
        let plugin = Plugin::start(&scratch, setup.options).await?;
        let kubelet = Kubelet::new(plugin.pods(), plugin.csi_socket(), &plugin.registration_socket());
        Ok(Self { plugin, kubelet, backend, cluster, scratch })
    }

    /// Writes a file of classes. The plugin finds it by itself, a moment later.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn classes(&self, file: &str, yaml: &str) -> Result<()> {
        write_classes(self.plugin.classes(), file, yaml)
    }

    /// A new pod.
    #[must_use]
    pub fn pod(&self, namespace: &str, service_account: &str) -> WorkloadName {
        WorkloadName::new(namespace, service_account, &format!("{service_account}-0"))
    }

    /// The pod's volume that shows a class, with a fresh token beside it.
    ///
    /// # Panics
    /// When no token can be made.
    #[must_use]
    pub fn volume(&self, pod: &WorkloadName, class: &str) -> Publish {
        self.volume_with(pod, class, &Claims::new(pod, AUDIENCE))
    }

    /// The same, with a token that says what the test wants.
    ///
    /// # Panics
    /// When no token can be made.
    #[must_use]
    pub fn volume_with(&self, pod: &WorkloadName, class: &str, claims: &Claims) -> Publish {
        volume(&self.kubelet, &self.cluster, pod, class, claims)
    }
}

/// [`World::volume_with`], for a test that has taken its world apart.
///
/// # Panics
/// When no token can be made.
#[must_use]
pub fn volume(kubelet: &Kubelet, cluster: &TokenReview, pod: &WorkloadName, class: &str, claims: &Claims) -> Publish {
    let token = cluster.tokens().mint(claims).expect("a token");
    let token = Token { audience: &token.audience, token: &token.token, expires: &token.expires };
    let pod = Pod {
        name: pod.pod.clone(),
        namespace: pod.namespace.clone(),
        uid: pod.pod_uid.clone(),
        service_account: pod.service_account.clone(),
    };
    Publish::new(kubelet.pods(), pod, VOLUME).attribute("secretVolume", class).tokens(&[token], TokensIn::Secrets)
}

/// A file of a class: the password at `kv/payments/db`.
pub const PASSWORD_FILE: &str = "{path: password, from: {backend: vault, secret: kv/payments/db, key: password}}";

/// A `SecretBackend` named `vault`, for the service account `payments/app` and the secrets `kv/payments/*`.
#[must_use]
pub fn vault_class(address: &str, authority: Option<&str>) -> String {
    let trust = authority.map(|pem| format!("    caBundle: {}\n", json!(pem))).unwrap_or_default();
    format!(
        "apiVersion: evanesce.dev/v1alpha1
kind: SecretBackend
metadata: {{name: vault}}
spec:
  vault:
    address: {address}
{trust}    auth: {{kubernetes: {{mount: kubernetes, role: app, audience: {AUDIENCE}}}}}
  allow:
    - {{namespaces: [payments], serviceAccounts: [app], secrets: [\"kv/payments/*\"]}}
"
    )
}

/// A `SecretBackend` named `aws`, for the service account `payments/app` and the secrets `payments/*`.
#[must_use]
pub fn aws_class(address: &str) -> String {
    format!(
        "apiVersion: evanesce.dev/v1alpha1
kind: SecretBackend
metadata: {{name: aws}}
spec:
  aws:
    region: {}
    endpoint: {address}
    stsEndpoint: {address}
    auth: {{webIdentity: {{role: \"{}\"}}}}
  allow:
    - {{namespaces: [payments], serviceAccounts: [app], secrets: [\"payments/*\"]}}
",
        moto::REGION,
        moto::ROLE
    )
}

/// A `SecretVolume` named `payments/db`: two files with a key each, and one with the whole secret.
pub const DB_CLASS: &str = "apiVersion: evanesce.dev/v1alpha1
kind: SecretVolume
metadata: {name: db, namespace: payments}
spec:
  refresh: {every: 1h}
  files:
    - {path: username, from: {backend: vault, secret: kv/payments/db, key: username}}
    - {path: password, from: {backend: vault, secret: kv/payments/db, key: password}}
    - {path: db.json, from: {backend: vault, secret: kv/payments/db}}
";

/// A `SecretVolume` named `payments/NAME` that is refreshed every second, without jitter, and has these files.
#[must_use]
pub fn lively_class(name: &str, files: &[&str]) -> String {
    let files: String = files.iter().map(|file| format!("    - {file}\n")).collect();
    format!(
        "apiVersion: evanesce.dev/v1alpha1
kind: SecretVolume
metadata: {{name: {name}, namespace: payments}}
spec:
  refresh: {{every: 1s, jitter: 0%}}
  keepPrevious: 2s
  files:
{files}"
    )
}

/// What the role may do: read the newest values, and ask which version is the newest.
const PAYMENTS: &str = r#"
path "kv/data/payments/*" { capabilities = ["read"] }
path "kv/metadata/payments/*" { capabilities = ["read"] }
"#;

async fn furnish(openbao: &OpenBao, cluster: &TokenReview) -> Result<()> {
    let admin = openbao.admin();
    admin.enable_kv2("kv").await?;
    admin.put("kv", "payments/db", json!({"username": "app", "password": PASSWORD})).await?;
    admin.policy("payments", PAYMENTS).await?;
    admin.enable_kubernetes("kubernetes", cluster).await?;
    let_in(openbao, "app").await
}

/// Lets these service accounts of the namespace `payments`, `*` for all, log in as the role `app`; a class's `allow` is
/// another matter.
///
/// # Errors
/// When the server refuses.
pub async fn let_in(openbao: &OpenBao, service_accounts: &str) -> Result<()> {
    let role = KubernetesRole {
        name: "app",
        namespaces: &["payments"],
        service_accounts: &[service_accounts],
        audience: AUDIENCE,
        policies: &["payments"],
    };
    openbao.admin().kubernetes_role("kubernetes", role).await
}

/// A watcher must never find half a file, in a test as in life.
fn write_classes(directory: &Path, file: &str, yaml: &str) -> Result<()> {
    let hidden = directory.join(format!(".{file}.new"));
    fs::write(&hidden, yaml).with_context(|| format!("cannot write {}", hidden.display()))?;
    Ok(fs::rename(&hidden, directory.join(file))?)
}
