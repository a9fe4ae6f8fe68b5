// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `SecretBackend`: where secrets are, and who may ask.

use std::time::Duration;

use crate::names::BackendName;

/// A parsed `SecretBackend`, before its backend is built: patterns are still text, because only the backend knows the
/// form in which its paths are sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackendSpec {
    /// Its name.
    pub name: BackendName,
    /// Which kind, with its settings.
    pub provider: Provider,
    /// Who may ask for what.
    pub allow: Vec<AllowSpec>,
    /// Bounds on what is asked of it.
    pub limits: Limits,
}

/// Which kind of backend, with its settings.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Provider {
    /// AWS Secrets Manager.
    Aws(AwsSpec),
    /// age-encrypted YAML files.
    Sealed(SealedSpec),
    /// OpenBao or HashiCorp Vault.
    Vault(Box<VaultSpec>),
}

/// Settings of an `aws` backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AwsSpec {
    /// The region, as AWS names it.
    pub region: String,
    /// The ARN of the IAM role that pods log in with; `{namespace}` and `{serviceAccount}` stand for the pod's.
    pub role: String,
    /// The audience of the pod's token.
    pub audience: String,
    /// Secrets Manager's address instead of the region's public one: `https://host[:port]` (or `http://`), without a path.
    pub endpoint: Option<String>,
    /// The same for STS.
    pub sts_endpoint: Option<String>,
    /// PEM certificates to trust instead of the system's.
    pub ca: Option<PemSource>,
}

impl AwsSpec {
    /// The audience that IAM OIDC providers for clusters have.
    pub const DEFAULT_AUDIENCE: &str = "sts.amazonaws.com";
}

/// Settings of a `vault` backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VaultSpec {
    /// `https://host[:port]` (or `http://`, said in a warning), without a path; several where the cluster has them.
    pub addresses: Vec<String>,
    /// PEM certificates to trust instead of the system's.
    pub ca: Option<PemSource>,
    /// What every connection shows of itself.
    pub client_certificate: Option<ClientCertificate>,
    /// The server's own namespace (OpenBao, Vault Enterprise), sent as a header.
    pub namespace: Option<String>,
    /// How to log in.
    pub auth: VaultAuth,
    /// Mounts of KV version 2: their paths are written without `data/`. Default `kv` and `secret`, but for those that are
    /// of version 1.
    pub kv_mounts: Vec<String>,
    /// Mounts of KV version 1.
    pub kv1_mounts: Vec<String>,
}

impl VaultSpec {
    /// How many addresses a backend may have.
    pub const MOST_ADDRESSES: usize = 8;
    /// The mounts that are taken for KV version 2 where the class names none.
    pub const DEFAULT_KV_MOUNTS: [&str; 2] = ["kv", "secret"];
}

/// Where PEM text comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PemSource {
    /// A credentials file, by name.
    File(String),
    /// In the class itself.
    Inline(String),
}

/// A client certificate, by the names of its credentials files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    /// The certificate, then those that lead to its authority, in PEM.
    pub file: String,
    /// Its private key, in PEM without a passphrase.
    pub key_file: String,
}

/// How to log in to a `vault` backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum VaultAuth {
    /// The Kubernetes method: the pod's own token.
    Kubernetes {
        /// Where the method is mounted.
        mount: String,
        /// The role; `{namespace}` and `{serviceAccount}` stand for the pod's.
        role: String,
        /// The audience of the pod's token.
        audience: String,
    },
    /// The JWT method: the pod's own token, checked by its signature.
    Jwt {
        /// Where the method is mounted.
        mount: String,
        /// The role; `{namespace}` and `{serviceAccount}` stand for the pod's.
        role: String,
        /// The audience of the pod's token.
        audience: String,
        /// Whether no role of it tells the pods of one service account apart.
        share_pods: bool,
    },
    /// The AppRole method: a role id and a secret id of the platform's own; every pod that is allowed shares them.
    AppRole {
        /// Where the method is mounted.
        mount: String,
        /// Name of the credentials file with the role id.
        role_id_file: String,
        /// Name of the credentials file with the secret id.
        secret_id_file: String,
    },
    /// The TLS certificate method: the platform's own client certificate; every pod that is allowed shares it.
    Cert {
        /// Where the method is mounted.
        mount: String,
        /// The role; where absent, the server takes the first that fits the certificate.
        role: Option<String>,
    },
    /// A token of the platform's own in a credentials file; every pod that is allowed shares it.
    TokenFile {
        /// Name of the credentials file.
        file: String,
    },
}

impl VaultAuth {
    /// Whether each pod logs in with its own token; otherwise all are one to the server.
    pub fn is_the_pods(&self) -> bool {
        match self {
            Self::Kubernetes { .. } | Self::Jwt { .. } => true,
            Self::AppRole { .. } | Self::Cert { .. } | Self::TokenFile { .. } => false,
        }
    }
}

impl Provider {
    /// Whether each pod logs in as itself; otherwise nothing but the allow list tells them apart.
    pub fn knows_pods(&self) -> bool {
        match self {
            Self::Aws(_) => true,
            Self::Sealed(_) => false,
            Self::Vault(vault) => vault.auth.is_the_pods(),
        }
    }
}

/// Settings of a `sealed` backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SealedSpec {
    /// Absolute path of the folder of `*.yaml.age` files that `evanesce seal` made.
    pub directory: String,
    /// Name of the credentials file with the age identity.
    pub identity_file: String,
}

/// One entry of `allow`, as written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AllowSpec {
    /// Patterns for namespaces.
    pub namespaces: Vec<String>,
    /// Patterns for service accounts.
    pub service_accounts: Vec<String>,
    /// Patterns for secrets.
    pub secrets: Vec<String>,
    /// The role to log in with instead.
    pub role: Option<String>,
}

/// Bounds on what is asked of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// For one request, connection included.
    pub timeout: Duration,
    /// How many requests of one delivery run side by side.
    pub parallel: usize,
    /// How many requests of all deliveries of a node run side by side; the rest waits.
    pub parallel_per_node: usize,
    /// How many requests of all deliveries of a node there are in a second, after a burst of a minute's worth.
    pub requests_per_second: u32,
    /// How long an answer may serve other volumes of the same identity, from the moment it was asked for; not at all
    /// where zero.
    pub reuse: Duration,
    /// How long an answer may start a new volume of the same identity while the backend is away; not at all where absent.
    pub offline_grace: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        // Ten seconds leave a second try within kubelet's two minutes. Sixteen fill a volume of ten secrets in one round,
        // and 64 for the node 250 such volumes at 100 ms each in five seconds, without a node's start becoming a burst that
        // a small server feels. Five seconds of reuse cover the pods that a Deployment starts together.
        // A hundred a second is ten times what a node full of pods asks in a steady state, and the burst its start.
        Self {
            timeout: Duration::from_secs(10),
            parallel: 16,
            parallel_per_node: 64,
            requests_per_second: 100,
            reuse: Duration::from_secs(5),
            offline_grace: None,
        }
    }
}
