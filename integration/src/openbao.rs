// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A real OpenBao server: fetched, configured, initialised, unsealed; gone at the end of the test.
//!
//! It runs as in production, not in its development mode: TLS with a private authority, sealed
//! until the harness unseals it, an audit log that the harness reads back. Only the storage is
//! in memory. A second listener without TLS is there for the harness itself and for tests of
//! `http://` addresses.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
};

use anyhow::Result;
use rustix::process::Signal;

use crate::{authority::Authority, child::Child, ports, scratch::Scratch};

mod admin;
mod binary;
mod requests;

pub use admin::{Admin, KubernetesRole};
pub use requests::Recorded;

/// The server's program, for a test whose subject starts it itself; fetched if this build directory does not have it.
///
/// # Errors
/// When it cannot be fetched.
pub fn program() -> Result<std::path::PathBuf> {
    binary::bao()
}

/// The server's audit log, among its files.
const REQUESTS: &str = "requests.jsonl";

/// A running server.
pub struct OpenBao {
    // Fields drop in this order: the process first, its files last.
    server: Child,
    admin: Admin,
    authority: Authority,
    address: String,
    socket: SocketAddr,
    plain_address: String,
    files: Scratch,
}

impl OpenBao {
    /// Starts a server and waits until it answers, unsealed.
    ///
    /// # Errors
    /// When the program cannot be fetched or does not start.
    pub async fn start() -> Result<Self> {
        Self::start_with("").await
    }

    /// The same, but its address with TLS takes nobody who does not show a certificate of this authority.
    ///
    /// # Errors
    /// When the program cannot be fetched or does not start.
    pub async fn start_for_clients_of(clients: &Authority) -> Result<Self> {
        let files = Scratch::new()?;
        let clients = files.file("clients.crt", clients.pem())?;
        Self::start_with(&format!("tls_require_and_verify_client_cert = true\ntls_client_ca_file = {clients:?}")).await
    }

    async fn start_with(listener: &str) -> Result<Self> {
        ports::start(|| Self::try_start(listener)).await
    }

    async fn try_start(listener: &str) -> Result<Self> {
        let program = binary::bao()?;
        let authority = Authority::new("evanesce test authority for openbao")?;
        let files = Scratch::new()?;
        let [tls, tls_cluster, plain, plain_cluster] = ports::free()?;
        let identity = authority.server_identity()?;
        let certificate = files.file("server.crt", identity.certificate)?;
        let key = files.file("server.key", identity.key)?;
        let address = format!("https://127.0.0.1:{tls}");
        let plain_address = format!("http://127.0.0.1:{plain}");
        // Through the API an audit device would need an "unsafe" option; in the file it is plain.
        let config = format!(
            r#"
            storage "inmem" {{}}
            listener "tcp" {{
              address         = "127.0.0.1:{tls}"
              cluster_address = "127.0.0.1:{tls_cluster}"
              tls_cert_file   = {certificate:?}
              tls_key_file    = {key:?}
              {listener}
            }}
            listener "tcp" {{
              address         = "127.0.0.1:{plain}"
              cluster_address = "127.0.0.1:{plain_cluster}"
              tls_disable     = true
            }}
            api_addr     = "{address}"
            cluster_addr = "https://127.0.0.1:{tls_cluster}"
            audit "file" "requests" {{
              options {{
                file_path = {requests:?}
                log_raw   = "true"
              }}
            }}
            "#,
            requests = files.path().join(REQUESTS),
        );
        let config = files.file("openbao.hcl", config)?;
        let mut command = Command::new(program);
        command.arg("server").arg("-config").arg(config).env_clear();
        let mut server = Child::spawn(command, &files.path().join("output"))?;
        let admin = Admin::unseal(&plain_address, &mut server).await?;
        let socket = (Ipv4Addr::LOCALHOST, tls).into();
        Ok(Self { server, admin, authority, address, socket, plain_address, files })
    }

    /// The address with TLS; trust [`OpenBao::authority_pem`].
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where the address with TLS is.
    #[must_use]
    pub fn socket(&self) -> SocketAddr {
        self.socket
    }

    /// The address without TLS, of the same server.
    #[must_use]
    pub fn plain_address(&self) -> &str {
        &self.plain_address
    }

    /// The certificate authority to trust, in PEM.
    #[must_use]
    pub fn authority_pem(&self) -> &str {
        self.authority.pem()
    }

    /// Everything that an administrator does.
    #[must_use]
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// Every request that the server has audited from anyone but the administrator, oldest
    /// first. The server writes its log before it answers: whoever has an answer is in here.
    ///
    /// # Errors
    /// When the audit log cannot be read.
    pub fn requests(&self) -> Result<Vec<Recorded>> {
        requests::read(&self.files.path().join(REQUESTS))
    }

    /// Every token that it has given to anyone but the administrator.
    ///
    /// # Errors
    /// When the audit log cannot be read.
    pub fn tokens(&self) -> Result<Vec<String>> {
        requests::tokens(&self.files.path().join(REQUESTS), self.admin.token())
    }

    /// What the server has printed so far: for people, where a test fails.
    #[must_use]
    pub fn log(&self) -> String {
        self.server.output()
    }

    /// Whether it has ever answered anybody with `text`, which nothing but an answer of its own can hold.
    ///
    /// # Errors
    /// When the audit log cannot be read.
    pub fn has_answered(&self, text: &str) -> Result<bool> {
        requests::mentions(&self.files.path().join(REQUESTS), text)
    }

    /// Freezes the server: connections are accepted by the kernel, and nothing is answered.
    pub fn freeze(&mut self) {
        self.server.signal(Signal::STOP);
    }

    /// Undoes [`OpenBao::freeze`].
    pub fn thaw(&mut self) {
        self.server.signal(Signal::CONT);
    }

    /// Kills the server: connections are refused, what was stored is lost.
    pub fn kill(&mut self) {
        self.server.kill();
    }
}
