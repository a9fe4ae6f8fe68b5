// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What the engine half wants of the API server: classes, a place for pod events, its own node's taint. Nothing else, and
//! nothing that a volume which is already there depends on: while the API server is gone, what is known counts on.
//!
//! It asks with the plugin's own service account, whose token kubelet renews in a file. What that account may do is in the
//! chart: read classes, write events.

pub mod class_watch;
pub mod classes;
pub mod limiter;
pub mod pod_events;
pub mod taint;

use std::path::PathBuf;
use std::time::Duration;

use kube::Client;
use serde::{Deserialize, Serialize};

/// How long a connection may take to be there.
const CONNECT: Duration = Duration::from_secs(5);
/// How long it may be silent: a little longer than a watch in which nothing happens, which the server ends after 290 s.
const READ: Duration = Duration::from_secs(300);

/// Where the API server is, and what the plugin shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiServer {
    /// Its name or address.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// The directory of the service account's `token` and `ca.crt`, as kubelet mounts it.
    pub account: PathBuf,
}

/// The API server cannot even be asked.
#[derive(Debug, thiserror::Error)]
#[error("the API server at {host}:{port}, with the service account in {}: {error}", account.display())]
pub struct CannotAsk {
    host: String,
    port: u16,
    account: PathBuf,
    error: String,
}

impl ApiServer {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// When the account's files cannot be read.
    pub fn client(&self) -> Result<Client, CannotAsk> {
        let fail = |error: String| CannotAsk {
            host: self.host.clone(),
            port: self.port,
            account: self.account.clone(),
            error,
        };
        let url = format!("https://{}:{}", bracketed(&self.host), self.port);
        let mut config = kube::Config::new(url.parse().map_err(|_| fail("that is no address".to_owned()))?);
        // None but the account's: without this the client looks for the system's first, and fails where there are none.
        config.root_cert = Some(Vec::new());
        // Both are read again as kubelet renews them.
        config.root_cert_file = Some(self.account.join("ca.crt"));
        config.auth_info.token_file = Some(self.account.join("token").to_string_lossy().into_owned());
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(READ);
        config.reset_reader_on_write = true;
        Client::try_from(config).map_err(|error| fail(error.to_string()))
    }
}

/// An IPv6 address as a URL has it.
fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}
