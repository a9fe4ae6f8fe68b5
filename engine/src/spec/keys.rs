// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Every key of a class: what is accepted, what it means, and what a later release brings.
//!
//! The readers accept exactly these keys and the reference page is written from them, so neither can drift from the
//! other. A key that is accepted and then not read fails in every debug build (see `section`).

use std::fmt::Write as _;

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
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// The key.
    pub name: &'static str,
    /// What its value is.
    pub kind: &'static str,
    /// What holds where it is absent; `required` where it may not be.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

const fn key(name: &'static str, kind: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { name, kind, default, meaning }
}

/// The top of each document.
pub static DOCUMENT: Table = Table {
    path: "",
    about: "Every document.",
    keys: &[
        key("apiVersion", "text", "required", "`evanesce.dev/v1alpha1`."),
        key("kind", "text", "required", "`SecretBackend` or `SecretVolume`."),
        key("metadata", "map", "required", "The class's name."),
        key("spec", "map", "required", "What the class says."),
    ],
    later: &[],
};

/// `metadata`.
pub static METADATA: Table = Table {
    path: "metadata",
    about: "As Kubernetes has it.",
    keys: &[
        key(
            "name",
            "DNS subdomain",
            "required",
            "The class's name: what a volume's `from.backend` or a pod's `secretVolume` says.",
        ),
        key(
            "namespace",
            "DNS label",
            "required for SecretVolume",
            "The namespace whose pods may use a `SecretVolume`; a `SecretBackend` has none.",
        ),
        key("labels", "map", "none", "Not read."),
        key("annotations", "map", "none", "Not read."),
    ],
    later: &[],
};

/// `spec` of a `SecretBackend`.
pub static BACKEND: Table = Table {
    path: "spec",
    about: "`SecretBackend`: where secrets are, and who may ask. Exactly one of `vault` and `sealed`.",
    keys: &[
        key("vault", "map", "none", "OpenBao or HashiCorp Vault."),
        key("sealed", "map", "none", "age-encrypted YAML files."),
        key(
            "allow",
            "list of maps",
            "required",
            "Who may ask for what; the first entry that fits counts. What no entry allows is refused.",
        ),
        key("limits", "map", "see below", "Bounds on what is asked of the backend."),
    ],
    later: &["aws", "azure", "cache", "gcp", "provider"],
};

/// `spec.vault`.
pub static VAULT: Table = Table {
    path: "spec.vault",
    about: "OpenBao or HashiCorp Vault.",
    keys: &[
        key(
            "address",
            "URL",
            "required without `addresses`",
            "`https://host[:port]`, without a path. `http://` is accepted and sends tokens in the clear.",
        ),
        key(
            "addresses",
            "list of URLs",
            "none",
            "Instead of `address`: up to 8 servers of one cluster. The one that answered last is asked first; where it cannot be \
             reached, is sealed or is a standby that does not answer itself, the next one is.",
        ),
        key("auth", "map", "required", "How to log in."),
        key(
            "caBundle",
            "PEM text",
            "the system's",
            "Certificates to trust, in the class itself. Not together with `caFile`.",
        ),
        key("caFile", "file name", "the system's", "The same from a credentials file."),
        key(
            "kvMounts",
            "list of paths",
            "`[kv, secret]`",
            "Mounts of KV version 2: secrets below them are written without `data/`.",
        ),
        key("namespace", "path", "none", "The server's own namespace, not Kubernetes'."),
    ],
    later: &[],
};

/// `spec.vault.auth`.
pub static VAULT_AUTH: Table = Table {
    path: "spec.vault.auth",
    about: "How to log in: exactly one.",
    keys: &[
        key("kubernetes", "map", "none", "With the pod's own service-account token."),
        key(
            "tokenFile",
            "file name",
            "none",
            "With a token from a credentials file, the same for every pod that is allowed.",
        ),
    ],
    later: &["appRole", "cert", "jwt"],
};

/// `spec.vault.auth.kubernetes`.
pub static VAULT_KUBERNETES: Table = Table {
    path: "spec.vault.auth.kubernetes",
    about: "The server's kubernetes method.",
    keys: &[
        key("mount", "path", "`kubernetes`", "Where the method is mounted."),
        key(
            "role",
            "template",
            "required",
            "The role to ask for; `{namespace}` and `{serviceAccount}` stand for the pod's.",
        ),
        key(
            "audience",
            "text",
            "`vault`",
            "The audience of the pod's token; also in `tokenRequests` of the CSIDriver object.",
        ),
    ],
    later: &[],
};

/// `spec.sealed`.
pub static SEALED: Table = Table {
    path: "spec.sealed",
    about: "age-encrypted YAML files, made by `evanesce seal`.",
    keys: &[
        key(
            "directory",
            "absolute path",
            "required",
            "The folder; the secret `payments/db` is its file `payments/db.yaml.age`.",
        ),
        key("identityFile", "file name", "required", "The credentials file that holds the age identity."),
    ],
    later: &[],
};

/// `spec.allow[]`.
pub static ALLOW: Table = Table {
    path: "spec.allow[]",
    about: "One entry of the allow list: it fits where a namespace, a service account and a secret of it fit.",
    keys: &[
        key("namespaces", "list of patterns", "required", "Namespaces; `*` stands for any run of characters."),
        key("serviceAccounts", "list of patterns", "required", "Service accounts, in the same way."),
        key(
            "secrets",
            "list of patterns",
            "required",
            "Secrets: `*` stays within a segment, `/*` at the end means any depth below, `*` alone everything but `sys/`, `auth/` and `identity/`.",
        ),
        key("role", "template", "the backend's", "The role to log in with instead, for `auth.kubernetes`."),
    ],
    later: &[],
};

/// `spec.limits`.
pub static LIMITS: Table = Table {
    path: "spec.limits",
    about: "Bounds on what is asked of the backend.",
    keys: &[
        key("timeout", "duration", "`10s`", "For one request, connection included; 100ms to 60s."),
        key("parallel", "number", "`16`", "How many requests of one delivery run side by side; 1 to 64."),
        key(
            "parallelPerNode",
            "number",
            "`64`",
            "How many requests of all deliveries of a node run side by side; the rest waits. 1 to 1024.",
        ),
        key(
            "reuse",
            "duration",
            "`5s`",
            "How long an answer serves other new volumes of the same service account, counted from the question; 0s to 60s. \
             A new pod's first files may be so old, and a right that is taken away at the server may be served so long from \
             nodes that just used it. Only secrets without an end of their own (KV version 2, sealed); refreshes always ask.",
        ),
    ],
    later: &["requestsPerSecond"],
};

/// `spec` of a `SecretVolume`.
pub static VOLUME: Table = Table {
    path: "spec",
    about: "`SecretVolume`: what a pod sees.",
    keys: &[
        key("files", "list of maps", "required", "The files, at least one."),
        key("refresh", "map", "see below", "When to ask again."),
        key(
            "keepPrevious",
            "duration",
            "`10s`",
            "How long the previous files stay after a swap, for readers in the middle of them; up to 10m.",
        ),
        key("size", "size", "1Mi, growing", "Size of the tmpfs, 16Ki to 1Gi; two sets of the files have to fit."),
    ],
    later: &["maxStale", "notify", "readers"],
};

/// `spec.refresh`.
pub static REFRESH: Table = Table {
    path: "spec.refresh",
    about: "When to ask again.",
    keys: &[
        key("every", "duration", "`5m`", "How often; at least 1s."),
        key(
            "jitter",
            "percentage",
            "`10%`",
            "Spread to each side, so that pods that start together do not ask together; 0% to 50%.",
        ),
    ],
    later: &[],
};

/// `spec.files[]`.
pub static FILE: Table = Table {
    path: "spec.files[]",
    about: "One file, or with `allKeys` a folder of files.",
    keys: &[
        key(
            "path",
            "relative path",
            "required",
            "Where, below the volume's root. Names that begin with `..` are reserved there.",
        ),
        key("from", "map", "required", "Where the value comes from."),
        key("allKeys", "boolean", "`false`", "One file for each key of the secret, below `path`."),
        key("mode", "octal in quotes", "\"0440\" with fsGroup, else \"0400\"", "Permission bits."),
        key("uid", "number", "0", "The owner."),
        key("gid", "number", "the pod's fsGroup, else 0", "The group."),
    ],
    later: &["default", "format", "optional", "readers", "template"],
};

/// `spec.files[].from`.
pub static FROM: Table = Table {
    path: "spec.files[].from",
    about: "What is asked of a backend. Files that ask the same are answered by one read.",
    keys: &[
        key("backend", "name", "required", "The `SecretBackend`."),
        key("secret", "path", "required", "The secret, as the backend's users write it: `kv/payments/db`."),
        key("key", "text", "the whole secret, as JSON", "One key of the secret."),
        key("version", "number", "the newest", "A fixed version, for backends that have numbered ones."),
        key("args", "map of text", "none", "Arguments of the read, such as a certificate's `common_name`."),
    ],
    later: &["default", "optional"],
};

/// Every table, in the order of the reference page.
pub static TABLES: [&Table; 13] = [
    &DOCUMENT,
    &METADATA,
    &BACKEND,
    &VAULT,
    &VAULT_AUTH,
    &VAULT_KUBERNETES,
    &SEALED,
    &ALLOW,
    &LIMITS,
    &VOLUME,
    &REFRESH,
    &FILE,
    &FROM,
];

/// The reference page, in Markdown.
pub fn reference() -> String {
    let mut page = String::from(
        "# Classes: every key\n\n\
         Written from `engine/src/spec/keys.rs` by its test; change it there. Unknown keys are errors, and so are the keys \
         listed as *later*: nothing is accepted and ignored.\n\n\
         Durations are written `10s`, `5m`, `1h30m` or `250ms`; sizes `64Ki`, `1Mi` or a number of bytes. Text that YAML \
         would read as a number or a boolean has to be in quotes.\n",
    );
    for table in TABLES {
        let title = if table.path.is_empty() { "document" } else { table.path };
        let kind = match table.about.split_once(": ") {
            Some((kind @ ("`SecretBackend`" | "`SecretVolume`"), _)) => format!(" of {kind}"),
            _ => String::new(),
        };
        let _ = write!(
            page,
            "\n## `{title}`{kind}\n\n{}\n\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n",
            table.about
        );
        for key in table.keys {
            let _ = writeln!(page, "| `{}` | {} | {} | {} |", key.name, key.kind, key.default, key.meaning);
        }
        if !table.later.is_empty() {
            let _ = writeln!(page, "\nLater: `{}`.", table.later.join("`, `"));
        }
    }
    page
}
