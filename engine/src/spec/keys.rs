// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Every key of a class: what is accepted, what it means, and what a later release brings.
//!
//! The readers accept exactly these keys, and the reference page and the custom resources' schema are written from them,
//! so none can drift from another. A key that is accepted and then not read fails in every debug build (see `section`).

use std::time::Duration;

use crate::spec::backend::VaultSpec;
use crate::spec::form::Form;
use crate::spec::rules::{self, Rule};
use crate::spec::volume::{Format, LeaseScope, OnStale};

/// One map in a class.
#[derive(Debug)]
pub struct Table {
    /// Where it stands, as errors write it.
    pub path: &'static str,
    /// What it is.
    pub about: &'static str,
    /// The keys it may hold.
    pub keys: &'static [Key],
    /// Keys that a later release brings: refused by name.
    pub later: &'static [&'static str],
    /// What has to hold between its keys.
    pub rules: &'static [&'static Rule],
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// The key.
    pub name: &'static str,
    /// What its value is.
    pub form: Form,
    /// What holds where it is absent; `required` where it may not be.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

const fn key(name: &'static str, form: Form, default: &'static str, meaning: &'static str) -> Key {
    Key { name, form, default, meaning }
}

const fn list(of: &'static Form, most: usize, empty: &'static str) -> Form {
    Form::List { of, most, empty: Some(empty) }
}

const fn seconds(least: u64, most: u64) -> Form {
    Form::Duration { least: Duration::from_secs(least), most: Duration::from_secs(most) }
}

const FITS_NOBODY: &str = "an empty list fits nobody: write \"*\" for all";
/// The last id of all means "leave as it is" to chown(2).
const ID: Form = Form::Number { least: 0, most: u32::MAX as u64 - 1 };

/// The top of each document.
pub static DOCUMENT: Table = Table {
    path: "",
    about: "Every document.",
    keys: &[
        key("apiVersion", Form::Name("text"), "required", "`evanesce.dev/v1alpha1`."),
        key("kind", Form::Name("text"), "required", "`SecretBackend` or `SecretVolume`."),
        key("metadata", Form::Map(&METADATA), "required", "The class's name."),
        key("spec", Form::NotRead, "required", "What the class says."),
    ],
    later: &[],
    rules: &[],
};

/// `metadata`.
pub static METADATA: Table = Table {
    path: "metadata",
    about: "As Kubernetes has it.",
    keys: &[
        key(
            "name",
            Form::Name("DNS subdomain"),
            "required",
            "The class's name: what a volume's `from.backend` or a pod's `secretVolume` says.",
        ),
        key(
            "namespace",
            Form::Name("DNS label"),
            "required for SecretVolume",
            "The namespace whose pods may use a `SecretVolume`; a `SecretBackend` has none.",
        ),
        key("labels", Form::NotRead, "none", "Not read."),
        key("annotations", Form::NotRead, "none", "Not read."),
    ],
    later: &[],
    rules: &[],
};

/// `spec` of a `SecretBackend`.
pub static BACKEND: Table = Table {
    path: "spec",
    about: "`SecretBackend`: where secrets are, and who may ask. Exactly one of `aws`, `sealed` and `vault`.",
    keys: &[
        key("aws", Form::Map(&AWS), "none", "AWS Secrets Manager."),
        key("vault", Form::Map(&VAULT), "none", "OpenBao or HashiCorp Vault."),
        key("sealed", Form::Map(&SEALED), "none", "age-encrypted YAML files."),
        key(
            "allow",
            list(&Form::Map(&ALLOW), 512, "without an entry nobody may read anything"),
            "required",
            "Who may ask for what, up to 512 entries; the first that fits counts. What no entry allows is refused.",
        ),
        key("limits", Form::Map(&LIMITS), "see below", "Bounds on what is asked of the backend."),
    ],
    later: &["azure", "cache", "gcp", "provider"],
    rules: &[&rules::ONE_PROVIDER, &rules::ROLE_WITHOUT_LOGIN, &rules::EVERYTHING_FOR_ALL],
};

/// `spec.aws`.
pub static AWS: Table = Table {
    path: "spec.aws",
    about: "AWS Secrets Manager, in one region. A secret is named by its name or its whole ARN; `from.args` may hold a \
            `versionId` or a `versionStage` (where neither is there: `AWSCURRENT`). A secret that is not a JSON object has \
            one key, `value`.",
    keys: &[
        key("region", Form::Region, "required", "The region, as AWS writes it: `eu-central-1`."),
        key("auth", Form::Map(&AWS_AUTH), "required", "How to log in."),
        key(
            "endpoint",
            Form::Address,
            "the region's public one",
            "Secrets Manager's address, for a VPC endpoint: `https://host[:port]`, without a path.",
        ),
        key("stsEndpoint", Form::Address, "the region's public one", "The same for STS, where pods log in."),
        key(
            "caBundle",
            Form::Certificates,
            "the system's",
            "Certificates to trust, in the class itself. Not together with `caFile`.",
        ),
        key("caFile", Form::FileName, "the system's", "The same from a credentials file."),
    ],
    later: &["fips"],
    rules: &[&rules::ONE_CA],
};

/// `spec.aws.auth`.
pub static AWS_AUTH: Table = Table {
    path: "spec.aws.auth",
    about: "How to log in. Nothing is taken from the environment, from files or from the node's metadata service.",
    keys: &[key(
        "webIdentity",
        Form::Map(&AWS_WEB_IDENTITY),
        "required",
        "With the pod's own service-account token (`AssumeRoleWithWebIdentity`).",
    )],
    later: &["podIdentity"],
    rules: &[],
};

/// `spec.aws.auth.webIdentity`.
pub static AWS_WEB_IDENTITY: Table = Table {
    path: "spec.aws.auth.webIdentity",
    about: "A role of IAM that trusts the cluster's OIDC provider. The annotation of a service account is not read.",
    keys: &[
        key(
            "role",
            Form::Role,
            "required",
            "The ARN of the role; `{namespace}` and `{serviceAccount}` stand for the pod's.",
        ),
        key(
            "audience",
            Form::Text { longest: 512 },
            "`sts.amazonaws.com`",
            "The audience of the pod's token; also in `tokenRequests` of the CSIDriver object (Helm value `audiences`).",
        ),
    ],
    later: &[],
    rules: &[],
};

/// `spec.vault`.
pub static VAULT: Table = Table {
    path: "spec.vault",
    about: "OpenBao or HashiCorp Vault.",
    keys: &[
        key(
            "address",
            Form::Address,
            "required without `addresses`",
            "`https://host[:port]`, without a path. `http://` is accepted and sends tokens in the clear.",
        ),
        key(
            "addresses",
            list(&Form::Address, VaultSpec::MOST_ADDRESSES, "an empty list is no server"),
            "none",
            "Instead of `address`: up to 8 servers of one cluster. The one that answered last is asked first; where it cannot be \
             reached, is sealed or is a standby that does not answer itself, the next one is.",
        ),
        key("auth", Form::Map(&VAULT_AUTH), "required", "How to log in."),
        key(
            "caBundle",
            Form::Certificates,
            "the system's",
            "Certificates to trust, in the class itself. Not together with `caFile`.",
        ),
        key("caFile", Form::FileName, "the system's", "The same from a credentials file."),
        key(
            "clientCertFile",
            Form::FileName,
            "none",
            "The credentials file with the client certificate that every connection shows (mTLS), in PEM, with those that lead \
             to its authority after it. Read again at each login.",
        ),
        key(
            "clientKeyFile",
            Form::FileName,
            "none",
            "The credentials file with its private key, in PEM without a passphrase.",
        ),
        key(
            "kvMounts",
            Form::List { of: &Form::SecretPath, most: 64, empty: None },
            "`[kv, secret]`, but for those of `kv1Mounts`",
            "Mounts of KV version 2: secrets below them are written without `data/`.",
        ),
        key(
            "kv1Mounts",
            Form::List { of: &Form::SecretPath, most: 64, empty: None },
            "none",
            "Mounts of KV version 1, which keeps no versions. They are declared because an application may not ask the server \
             what a mount is.",
        ),
        key(
            "namespace",
            Form::ServerNamespace,
            "none",
            "The server's own namespace, not Kubernetes': logins, reads and mounts are all in it.",
        ),
    ],
    later: &[],
    rules: &[
        &rules::ONE_CA,
        &rules::ONE_WAY_TO_ADDRESS,
        &rules::NO_ADDRESS,
        &rules::SAME_ADDRESS,
        &rules::ALL_TLS,
        &rules::ONE_KV_VERSION,
        &rules::CERTIFICATE_AND_KEY,
        &rules::LOGIN_WITHOUT_CERTIFICATE,
        &rules::CERTIFICATE_WITHOUT_TLS,
    ],
};

/// `spec.vault.auth`.
pub static VAULT_AUTH: Table = Table {
    path: "spec.vault.auth",
    about: "How to log in: exactly one.",
    keys: &[
        key(
            "kubernetes",
            Form::Map(&VAULT_KUBERNETES),
            "none",
            "With the pod's own token, about which the server asks Kubernetes.",
        ),
        key(
            "jwt",
            Form::Map(&VAULT_JWT),
            "none",
            "With the pod's own token, of which the server checks the signature.",
        ),
        key(
            "appRole",
            Form::Map(&VAULT_APP_ROLE),
            "none",
            "With a role id and a secret id of the platform's, for every pod that is allowed.",
        ),
        key(
            "cert",
            Form::Map(&VAULT_CERT),
            "none",
            "With the client certificate of `clientCertFile`, for every pod that is allowed.",
        ),
        key(
            "tokenFile",
            Form::FileName,
            "none",
            "With a token from a credentials file, the same for every pod that is allowed.",
        ),
    ],
    later: &[],
    rules: &[&rules::ONE_LOGIN],
};

/// `spec.vault.auth.kubernetes`.
pub static VAULT_KUBERNETES: Table = Table {
    path: "spec.vault.auth.kubernetes",
    about: "The server's kubernetes method.",
    keys: &[key("mount", Form::SecretPath, "`kubernetes`", "Where the method is mounted."), POD_ROLE, POD_AUDIENCE],
    later: &[],
    rules: &[],
};

/// `spec.vault.auth.jwt`.
pub static VAULT_JWT: Table = Table {
    path: "spec.vault.auth.jwt",
    about: "The server's jwt method: it needs the cluster's keys, and no way to the cluster.",
    keys: &[
        key("mount", Form::SecretPath, "`jwt`", "Where the method is mounted."),
        POD_ROLE,
        POD_AUDIENCE,
        key(
            "sharePods",
            Form::Boolean,
            "`false`",
            "Whether the pods of one service account share logins and answers, as they do with `kubernetes`. Only where no role \
             of the method looks at claims of the pod.",
        ),
    ],
    later: &[],
    rules: &[],
};

const POD_ROLE: Key = key(
    "role",
    Form::Role,
    "required",
    "The role to ask for; `{namespace}` and `{serviceAccount}` stand for the pod's.",
);
const POD_AUDIENCE: Key = key(
    "audience",
    Form::Text { longest: 512 },
    "`vault`",
    "The audience of the pod's token; also in `tokenRequests` of the CSIDriver object (Helm value `audiences`).",
);

/// `spec.vault.auth.appRole`.
pub static VAULT_APP_ROLE: Table = Table {
    path: "spec.vault.auth.appRole",
    about: "The server's approle method. To the server every pod is the platform: `allow` alone tells them apart.",
    keys: &[
        key("mount", Form::SecretPath, "`approle`", "Where the method is mounted."),
        key("roleIdFile", Form::FileName, "required", "The credentials file that holds the role id."),
        key(
            "secretIdFile",
            Form::FileName,
            "required",
            "The credentials file that holds the secret id. Read again at each login, so it is rotated by writing a new one.",
        ),
    ],
    later: &[],
    rules: &[],
};

/// `spec.vault.auth.cert`.
pub static VAULT_CERT: Table = Table {
    path: "spec.vault.auth.cert",
    about: "The server's cert method, with the certificate of `clientCertFile`. To the server every pod is the platform: `allow` alone tells them apart.",
    keys: &[
        key("mount", Form::SecretPath, "`cert`", "Where the method is mounted."),
        key("role", Form::SecretPath, "the first that fits the certificate", "The certificate's role to log in as."),
    ],
    later: &[],
    rules: &[],
};

/// `spec.sealed`.
pub static SEALED: Table = Table {
    path: "spec.sealed",
    about: "age-encrypted YAML files, made by `evanesce seal`.",
    keys: &[
        key(
            "directory",
            Form::Folder,
            "required",
            "The folder; the secret `payments/db` is its file `payments/db.yaml.age`.",
        ),
        key("identityFile", Form::FileName, "required", "The credentials file that holds the age identity."),
    ],
    later: &[],
    rules: &[],
};

/// `spec.allow[]`.
pub static ALLOW: Table = Table {
    path: "spec.allow[]",
    about: "One entry of the allow list: it fits where a namespace, a service account and a secret of it fit.",
    keys: &[
        key(
            "namespaces",
            list(&Form::NamePattern, 32, FITS_NOBODY),
            "required",
            "Up to 32 namespaces; `*` stands for any run of characters.",
        ),
        key(
            "serviceAccounts",
            list(&Form::NamePattern, 32, FITS_NOBODY),
            "required",
            "Up to 32 service accounts, in the same way.",
        ),
        key(
            "secrets",
            list(&Form::SecretPattern, 16, FITS_NOBODY),
            "required",
            "Up to 16 secrets: `*` stays within a segment, `/*` at the end means any depth below, `*` alone everything but `sys/`, `auth/` and `identity/`.",
        ),
        key(
            "role",
            Form::Role,
            "the backend's",
            "The role to log in with instead, for `auth.kubernetes`, `auth.jwt` and `auth.webIdentity`.",
        ),
    ],
    later: &[],
    rules: &[],
};

/// `spec.limits`.
pub static LIMITS: Table = Table {
    path: "spec.limits",
    about: "Bounds on what is asked of the backend.",
    keys: &[
        // Kubelet waits two minutes for a volume; a minute for one request leaves room for a second try.
        key(
            "timeout",
            Form::Duration { least: Duration::from_millis(100), most: Duration::from_secs(60) },
            "`10s`",
            "For one request, connection included; 100ms to 60s.",
        ),
        key(
            "parallel",
            Form::Number { least: 1, most: 64 },
            "`16`",
            "How many requests of one delivery run side by side; 1 to 64.",
        ),
        key(
            "parallelPerNode",
            Form::Number { least: 1, most: 1024 },
            "`64`",
            "How many requests of all deliveries of a node run side by side; the rest waits. 1 to 1024.",
        ),
        key(
            "requestsPerSecond",
            Form::Number { least: 1, most: 10_000 },
            "`100`",
            "How many requests of all deliveries of a node there are in a second, after a burst of a minute's worth; the rest \
             waits. 1 to 10000.",
        ),
        // As long as a pod that was granted nothing may still read what another one was told.
        key(
            "reuse",
            seconds(0, 60),
            "`5s`",
            "How long an answer serves other new volumes of the same service account, counted from the question; 0s to 60s. \
             A new pod's first files may be so old, and a right that is taken away at the server may be served so long from \
             nodes that just used it. Only secrets without an end of their own (KV, sealed); refreshes always ask.",
        ),
        // As long as an outage that nobody is woken up for; who was refused meanwhile is not known here.
        key(
            "offlineGrace",
            seconds(1, 24 * 3600),
            "not at all",
            "How long after its answer a secret may start a new pod of the same service account on the same node while the backend \
             cannot be reached; up to 24h. Make it at least twice `refresh.every` of the volumes, which are then read where their \
             versions would do. Only secrets without an end of their own, only where pods log in as themselves.",
        ),
    ],
    later: &[],
    rules: &[],
};

/// `spec` of a `SecretVolume`.
pub static VOLUME: Table = Table {
    path: "spec",
    about: "`SecretVolume`: what a pod sees.",
    keys: &[
        // As many as the API server can compare with one another within its budget.
        key(
            "files",
            list(&Form::Map(&FILE), 128, "a volume has at least one file"),
            "required",
            "The files, 1 to 128.",
        ),
        key("refresh", Form::Map(&REFRESH), "see below", "When to ask again."),
        // A reader that takes longer has other troubles, and the room is the volume's own.
        key(
            "keepPrevious",
            seconds(0, 600),
            "`10s`",
            "How long the previous files stay after a swap, for readers in the middle of them; up to 10m.",
        ),
        key("leases", Form::Map(&LEASES), "see below", "What becomes of credentials that were made for the volume."),
        key(
            "maxStale",
            seconds(2, 366 * 24 * 3600),
            "for ever",
            "How long a pod keeps files that its backends could not confirm, counted from when they last did; for what ends by \
             itself, from when it was to be replaced. Longer than `refresh.every`. Then comes `onStale`.",
        ),
        key(
            "onStale",
            Form::OneOf(OnStale::WORDS),
            "`mark`",
            "What becomes of files that are older than `maxStale`, until a refresh succeeds. `mark`: an empty file \
             `..data/..stale` appears beside them, for probes to look for. `remove`: it stays alone, the files are gone.",
        ),
        // From two sets of one file with their folders to what is no longer a volume of secrets.
        key(
            "size",
            Form::Size { least: 16 << 10, most: 1 << 30 },
            "1Mi, growing",
            "Size of the tmpfs, 16Ki to 1Gi; two sets of the files have to fit.",
        ),
    ],
    later: &["notify", "readers"],
    rules: &[&rules::ONE_PLACE, &rules::STALE_TOO_SOON, &rules::STALE_WITHOUT_END],
};

/// `spec.leases`.
pub static LEASES: Table = Table {
    path: "spec.leases",
    about: "What becomes of credentials that were made for the volume: dynamic database users and other leases.",
    keys: &[
        key(
            "overlap",
            seconds(0, 3600),
            "`30s`",
            "How long a credential stays valid after another one took its place, up to 1h; at least `keepPrevious`.",
        ),
        key(
            "scope",
            Form::OneOf(LeaseScope::WORDS),
            "`volume`",
            "Who shares a credential. `volume`: nobody. `serviceAccount`: the volumes of a service account on a node show one for \
             each path that they ask, and the last of them gives it back. Where the backend tells the pods of an account apart \
             (`auth.jwt` without `sharePods`), or none from the others (`auth.appRole`, `auth.cert`), each volume has its own.",
        ),
    ],
    later: &[],
    rules: &[],
};

/// `spec.refresh`.
pub static REFRESH: Table = Table {
    path: "spec.refresh",
    about: "When to ask again.",
    keys: &[
        // Below the least a volume would be due again before a delivery over a network has ended: a floor against slips (`5ms`),
        // not a budget. The most keeps deadlines within what every clock can count.
        key("every", seconds(1, 366 * 24 * 3600), "`5m`", "How often; at least 1s."),
        key(
            "jitter",
            Form::Percentage { most: 50 },
            "`10%`",
            "Spread to each side, so that pods that start together do not ask together; 0% to 50%.",
        ),
    ],
    later: &[],
    rules: &[],
};

/// `spec.files[]`.
pub static FILE: Table = Table {
    path: "spec.files[]",
    about: "One file, or with `allKeys` a folder of files. [How a whole secret is written](../formats.md).",
    keys: &[
        key(
            "path",
            Form::FilePath,
            "required",
            "Where, below the volume's root. Names that begin with `..` are reserved there.",
        ),
        key("from", Form::Map(&FROM), "required", "Where the value comes from."),
        key("allKeys", Form::Boolean, "`false`", "One file for each key of the secret, below `path`."),
        key(
            "format",
            Form::OneOf(Format::WORDS),
            "`json`",
            "How one file holds the whole secret. `json`: one object. `dotenv`: lines \
             `KEY='value'` for shells, systemd and docker compose. `pem-bundle`: a certificate, those that lead to its \
             authority, its private key. `pkcs12`: the same as a key store.",
        ),
        key(
            "passwordFrom",
            Form::Map(&PASSWORD_FROM),
            "`changeit`",
            "Where the password of a `pkcs12` comes from: a key of the same secret or of another one.",
        ),
        key("mode", Form::Mode, "\"0440\" with fsGroup, else \"0400\"", "Permission bits."),
        key("uid", ID, "0", "The owner."),
        key("gid", ID, "the pod's fsGroup, else 0", "The group."),
    ],
    later: &["default", "optional", "readers", "template"],
    rules: &[&rules::KEY_OR_KEYS, &rules::FORMAT_OF_A_WHOLE, &rules::PASSWORD_OF_WHAT],
};

/// `spec.files[].from`.
pub static FROM: Table = Table {
    path: "spec.files[].from",
    about: "What is asked of a backend. Files that ask the same are answered by one read.",
    keys: &[
        FROM_BACKEND,
        FROM_SECRET,
        key("key", KEY_OF_A_SECRET, "the whole secret, as `format` says", "One key of the secret."),
        FROM_VERSION,
        FROM_ARGS,
    ],
    later: &["default", "optional"],
    rules: &[],
};

/// `spec.files[].passwordFrom`.
pub static PASSWORD_FROM: Table = Table {
    path: "spec.files[].passwordFrom",
    about: "The password of a key store: printable ASCII, at least one character. It is asked for as the file itself is: \
            `allow` has to let its secret be read, and another password is another file.",
    keys: &[
        FROM_BACKEND,
        FROM_SECRET,
        key("key", KEY_OF_A_SECRET, "required", "The key of the secret that holds it."),
        FROM_VERSION,
        FROM_ARGS,
    ],
    later: &[],
    rules: &[],
};

const KEY_OF_A_SECRET: Form = Form::Text { longest: 1024 };
const FROM_BACKEND: Key = key("backend", Form::BackendName, "required", "The `SecretBackend`.");
const FROM_SECRET: Key =
    key("secret", Form::SecretPath, "required", "The secret, as the backend's users write it: `kv/payments/db`.");
const FROM_VERSION: Key = key(
    "version",
    Form::Number { least: 1, most: i64::MAX as u64 },
    "the newest",
    "A fixed version, for backends that have numbered ones.",
);
const FROM_ARGS: Key =
    key("args", Form::Arguments, "none", "Arguments of the read, such as a certificate's `common_name`.");

/// Every table, in the order of the reference page.
pub static TABLES: [&Table; 21] = [
    &DOCUMENT,
    &METADATA,
    &BACKEND,
    &AWS,
    &AWS_AUTH,
    &AWS_WEB_IDENTITY,
    &VAULT,
    &VAULT_AUTH,
    &VAULT_KUBERNETES,
    &VAULT_JWT,
    &VAULT_APP_ROLE,
    &VAULT_CERT,
    &SEALED,
    &ALLOW,
    &LIMITS,
    &VOLUME,
    &REFRESH,
    &LEASES,
    &FILE,
    &FROM,
    &PASSWORD_FROM,
];
