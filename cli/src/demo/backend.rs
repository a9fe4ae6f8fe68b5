// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Where the demo's secrets live, and the classes that show them to a pod.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use evanesce_engine::backend::sealed::{self, Recipients};
use evanesce_engine::secret::SecretBytes;

use super::openbao::OpenBao;
use crate::args::DemoBackend;

/// The pod's namespace.
pub(crate) const NAMESPACE: &str = "payments";
/// The `SecretVolume` the pod asks for.
pub(crate) const CLASS: &str = "app";
/// What the pod is to see.
pub(crate) const FILES: [&str; 4] = ["api/key", "api/url", "db.json", "password"];
/// The one file whose class gives it a mode of its own.
pub(crate) const OPEN_FILE: &str = "db.json";
/// Those in which the password is, before and after of another length.
pub(crate) const CHANGING: [&str; 2] = ["db.json", "password"];

/// The file in the credentials folder: an age identity, or a server's token.
const CREDENTIAL: &str = "credential";
/// How often the volume is asked for: soon, because somebody is watching.
const EVERY: &str = "1s";

/// A secret's path, and keys with values. These are in every copy of this program, so there is no need to hide them.
pub(crate) type Secret = (&'static str, [(&'static str, &'static str); 2]);

const API: Secret = ("payments/api", [("key", "9f86d081884c7d65"), ("url", "https://api.example")]);
const DB: Secret = ("payments/db", [("username", "app"), ("password", "correct horse")]);
const DB_CHANGED: Secret = ("payments/db", [("username", "app"), ("password", "battery staple")]);

/// Where the secrets live.
pub(crate) enum Source {
    /// age-encrypted files in this folder, sealed for this recipient.
    Sealed {
        folder: PathBuf,
        recipient: String,
    },
    OpenBao(OpenBao),
}

impl Source {
    /// Makes the secrets and the classes below `folder`.
    pub(crate) async fn start(kind: DemoBackend, folder: &Path) -> anyhow::Result<Self> {
        let (classes, credentials) = (folder.join("classes"), folder.join("credentials"));
        fs::create_dir_all(&classes)?;
        let (source, provider, prefix) = match kind {
            DemoBackend::Sealed => {
                let (identity, recipient) = sealed::new_identity();
                write_private(&credentials, &[(CREDENTIAL, identity.expose())])?;
                let folder = folder.join("sealed");
                let provider = format!("sealed: {{directory: {}, identityFile: {CREDENTIAL}}}", folder.display());
                (Self::Sealed { folder, recipient }, provider, "")
            }
            DemoBackend::Openbao => {
                let server = OpenBao::start(folder).await?;
                write_private(&credentials, &[(CREDENTIAL, server.token().as_bytes())])?;
                let address = server.address();
                let provider = format!("vault: {{address: \"{address}\", auth: {{tokenFile: {CREDENTIAL}}}}}");
                (Self::OpenBao(server), provider, "secret/")
            }
        };
        source.put(&API)?;
        source.put(&DB)?;
        fs::write(classes.join("demo.yaml"), text_of_classes(&provider, prefix))?;
        Ok(source)
    }

    /// What the plugin has to be told in order to reach it.
    pub(crate) fn flag(&self) -> String {
        match self {
            Self::Sealed { folder, .. } => format!("--sealed-dir={}", folder.display()),
            Self::OpenBao(server) => format!("--backend-ports={}", server.port()),
        }
    }

    /// What a person is told.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Sealed { recipient, .. } => format!("sealed two secrets for {recipient}"),
            Self::OpenBao(server) => {
                format!("started {} and wrote two secrets to {}", server.program().display(), server.address())
            }
        }
    }

    /// Changes the password.
    pub(crate) fn change(&self) -> anyhow::Result<()> {
        self.put(&DB_CHANGED)
    }

    fn put(&self, secret: &Secret) -> anyhow::Result<()> {
        match self {
            Self::Sealed { folder, recipient } => seal(folder, recipient, secret),
            Self::OpenBao(server) => server.put(secret),
        }
    }
}

/// Makes the credentials folder, with these files.
pub(crate) fn write_private(folder: &Path, files: &[(&str, &[u8])]) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    for (name, content) in files {
        fs::write(folder.join(name), content)?;
    }
    Ok(())
}

/// Both classes, as a platform team and an application team would write them.
fn text_of_classes(provider: &str, prefix: &str) -> String {
    format!(
        "apiVersion: evanesce.dev/v1alpha1
kind: SecretBackend
metadata: {{name: demo}}
spec:
  {provider}
  allow:
    - {{namespaces: [{NAMESPACE}], serviceAccounts: [app], secrets: [\"{prefix}payments/*\"]}}
---
apiVersion: evanesce.dev/v1alpha1
kind: SecretVolume
metadata: {{name: {CLASS}, namespace: {NAMESPACE}}}
spec:
  refresh: {{every: {EVERY}, jitter: 0%}}
  files:
    - {{path: password, from: {{backend: demo, secret: {prefix}payments/db, key: password}}}}
    - {{path: {OPEN_FILE}, from: {{backend: demo, secret: {prefix}payments/db}}, mode: \"0444\"}}
    - {{path: api, from: {{backend: demo, secret: {prefix}payments/api}}, allKeys: true}}
"
    )
}

/// Seals one secret, by rename: whoever reads the folder sees the old file or the new one.
fn seal(folder: &Path, recipient: &str, (path, values): &Secret) -> anyhow::Result<()> {
    let mut yaml = String::new();
    for (key, value) in values {
        yaml.push_str(&format!("{key}: {}\n", serde_json::to_string(value)?));
    }
    let recipients = Recipients::parse([recipient], None)?;
    let sealed = sealed::seal(&SecretBytes::new(yaml.into_bytes()), &recipients)?;
    let file = folder.join(format!("{path}{}", sealed::SUFFIX));
    fs::create_dir_all(file.parent().context("a secret has a folder")?)?;
    let new = file.with_extension("new");
    fs::write(&new, sealed)?;
    Ok(fs::rename(&new, file)?)
}
