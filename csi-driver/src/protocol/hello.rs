// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The greeting: what an engine half is told when it starts, and what it answers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use evanesce_runtime::{label, telemetry};
use serde::{Deserialize, Serialize};
use zeroize::ZeroizeOnDrop;

use super::PROTOCOL;
use crate::kubernetes::ApiServer;

/// The warden's first message; with it come the CSI, the registration and the admin listener, and the audit file if
/// [`EngineConfig::audit`] is [`AuditChoice::File`], in this order.
#[derive(Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`] of the warden. Stays the first field for ever, so that any version can read it.
    pub protocol: u32,
    /// The warden's product version, for the log line of a mismatch.
    pub version: String,
    /// How many engine halves this warden had before.
    pub restarts: u64,
    /// Everything else the engine half needs to know.
    pub config: EngineConfig,
    /// The node's key for digests that are kept in records.
    pub digest_key: DigestKey,
}

/// The engine half's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloBack {
    /// [`PROTOCOL`] of the engine half. Stays the first field for ever.
    pub protocol: u32,
    /// The engine half's product version.
    pub version: String,
}

impl HelloBack {
    /// The answer of this build.
    #[must_use]
    pub fn ours() -> Self {
        Self { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// A random key of 32 bytes, made once per boot of the node; it keys the digests in records, so that a digest that leaks
/// cannot be compared with guesses.
#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
pub struct DigestKey([u8; 32]);

impl DigestKey {
    /// Takes the key; the caller wipes its own copy.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(*bytes)
    }

    /// The key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// What the command line decided, for the engine half.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineConfig {
    /// The CSI driver name, as in the `CSIDriver` object.
    pub driver_name: String,
    /// The node's name in Kubernetes.
    pub node_name: String,
    /// The CSI socket as kubelet sees it; goes into the registration answer.
    pub kubelet_csi_socket: PathBuf,
    /// The directory every target path lies beneath.
    pub pods_dir: PathBuf,
    /// Where classes come from.
    pub classes: ClassesChoice,
    /// The directory that sealed secrets lie in.
    pub sealed_dir: PathBuf,
    /// The TCP ports that backends listen on.
    pub backend_ports: Vec<u16>,
    /// The way to backends that are not near.
    pub https_proxy: Option<ProxyChoice>,
    /// Where metrics and health are served; `None` turns them off.
    pub http_address: Option<SocketAddr>,
    /// Where audit events go.
    pub audit: AuditChoice,
    /// Ceilings on what volumes may occupy.
    pub limits: Limits,
    /// A first delivery fails after this long.
    pub first_delivery_timeout: Duration,
    /// The log filter, in `tracing`'s directive syntax.
    pub log: String,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Protections this machine does not give; empty on a node that gives all.
    pub reduced: Vec<Reduced>,
}

/// Where classes come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClassesChoice {
    /// Files of this directory.
    Directory(PathBuf),
    /// The API server, which is then told of pod events too.
    Kubernetes {
        /// Which.
        api_server: ApiServer,
        /// The key of the taint to remove from this node once kubelet knows the driver.
        startup_taint: Option<String>,
    },
}

/// A proxy for connections to backends, checked by the warden.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyChoice {
    /// `http://host:port`.
    pub url: String,
    /// The hosts that are reached without it, separated by commas.
    pub except: String,
}

/// Where audit events go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuditChoice {
    /// Standard output, one JSON object per line.
    Stdout,
    /// The file whose descriptor came with the hello, opened for appending.
    File,
    /// Nowhere.
    None,
}

/// Ceilings, in bytes of tmpfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// All volumes of the node together. The warden enforces it as well.
    pub node_tmpfs: u64,
    /// All volumes of one namespace together.
    pub namespace_tmpfs: u64,
}

/// How log lines are written: [`telemetry::LogFormat`], as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFormat {
    /// For people at a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

impl From<telemetry::LogFormat> for LogFormat {
    fn from(format: telemetry::LogFormat) -> Self {
        match format {
            telemetry::LogFormat::Auto => Self::Auto,
            telemetry::LogFormat::Human => Self::Human,
            telemetry::LogFormat::Json => Self::Json,
        }
    }
}

impl From<LogFormat> for telemetry::LogFormat {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Auto => Self::Auto,
            LogFormat::Human => Self::Human,
            LogFormat::Json => Self::Json,
        }
    }
}

label! {
    /// A protection that this machine, or this way of starting, does not give. Shown in the log and in a metric.
    #[derive(Serialize, Deserialize)]
    pub enum Reduced("protection") {
        /// tmpfs here has no `noswap` (Linux before 6.4, or a user namespace): pages may reach swap, if there is any.
        Swap = "swap",
        /// There is one uid only: the engine half runs under the warden's, without capabilities.
        SingleUid = "single uid",
        /// Files cannot be given to another owner.
        FileOwners = "file owners",
        /// A detached mount cannot be cloned (Linux before 6.15): it is attached privately for a moment first.
        StagedAttach = "staged attach",
        /// The engine half's TCP connections cannot be limited to the backends' ports (Linux before 6.7, or without
        /// Landlock).
        BackendPorts = "backend ports",
        /// A mount call is missing (Linux before 5.12): volumes are made with `mount(2)` in a private directory and moved.
        MountCalls = "mount calls",
    }
}
