// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The command line. Every setting is a flag and an environment variable; every refusal names the flag and the cure.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use evanesce_engine::proxy::HttpsProxy;
use evanesce_runtime::telemetry::{LogFormat, TelemetryError};

use crate::warden::Selinux;

/// The CSI node plugin: secrets as files in pods, on tmpfs that nobody else can read.
#[derive(Debug, Clone, Parser)]
#[command(name = "evanesce-csi", version)]
pub struct Args {
    /// The CSI driver name, as in the `CSIDriver` object.
    #[arg(long, env = "EVANESCE_DRIVER_NAME", default_value = "csi.evanesce.dev", value_parser = driver_name)]
    pub driver_name: String,

    /// This node's name in Kubernetes (in the chart: the downward API's `spec.nodeName`).
    #[arg(long, env = "NODE_NAME", value_parser = node_name)]
    pub node_name: String,

    /// Where to serve CSI.
    #[arg(long, env = "EVANESCE_CSI_SOCKET", default_value = "/csi/csi.sock", value_parser = absolute)]
    pub csi_socket: PathBuf,

    /// The same socket's path as kubelet sees it, outside the container. [default: the value of --csi-socket]
    #[arg(long, env = "EVANESCE_KUBELET_CSI_SOCKET", value_parser = absolute)]
    pub kubelet_csi_socket: Option<PathBuf>,

    /// The directory that kubelet watches for plugins.
    #[arg(long, env = "EVANESCE_REGISTRATION_DIR", default_value = "/registration", value_parser = absolute)]
    pub registration_dir: PathBuf,

    /// The directory that every target path lies beneath; the same path as on the host.
    #[arg(long, env = "EVANESCE_PODS_DIR", default_value = "/var/lib/kubelet/pods", value_parser = absolute)]
    pub pods_dir: PathBuf,

    /// Classes are the custom resources `SecretBackend` and `SecretVolume`, and pods get events. Without it, classes are
    /// files of --classes-dir and no API server is talked to.
    #[arg(long, env = "EVANESCE_KUBERNETES", conflicts_with = "classes_dir")]
    pub kubernetes: bool,

    /// With --kubernetes, the API server's name or address; Kubernetes sets it in every pod.
    #[arg(long, env = "KUBERNETES_SERVICE_HOST", required_if_eq("kubernetes", "true"), value_parser = api_server_host)]
    pub api_server_host: Option<String>,

    /// With --kubernetes, the API server's TCP port, beside those of the backends.
    #[arg(long, env = "KUBERNETES_SERVICE_PORT", default_value = "443", value_parser = clap::value_parser!(u16).range(1..))]
    pub api_server_port: u16,

    /// With --kubernetes, the directory of the plugin's own `token` and `ca.crt`.
    #[arg(
        long,
        env = "EVANESCE_SERVICE_ACCOUNT_DIR",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount",
        value_parser = absolute
    )]
    pub service_account_dir: PathBuf,

    /// With --kubernetes, the key of a taint that is removed from this node once pods can have volumes.
    #[arg(long, env = "EVANESCE_STARTUP_TAINT", requires = "kubernetes", value_parser = taint_key)]
    pub startup_taint: Option<String>,

    /// A directory of YAML files with backends and volume classes.
    #[arg(long, env = "EVANESCE_CLASSES_DIR", default_value = "/etc/evanesce/classes", value_parser = absolute)]
    pub classes_dir: PathBuf,

    /// The directory that the folders of `sealed` backends lie in or beneath.
    #[arg(long, env = "EVANESCE_SEALED_DIR", default_value = "/etc/evanesce/sealed", value_parser = absolute)]
    pub sealed_dir: PathBuf,

    /// The TCP ports that backends listen on; a class with another port is refused, and no other is connected to but 53.
    #[arg(
        long,
        env = "EVANESCE_BACKEND_PORTS",
        default_value = "443,8200",
        value_delimiter = ',',
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub backend_ports: Vec<u16>,

    /// An HTTP proxy for backends with `https://` addresses, `http://host:port`; it sees their names and nothing more.
    #[arg(long, env = "HTTPS_PROXY", hide_env_values = true)]
    pub https_proxy: Option<String>,

    /// Hosts that are reached without the proxy: names, domains, addresses and networks, separated by commas.
    #[arg(long, env = "NO_PROXY", default_value = "")]
    pub no_proxy: String,

    /// A directory of files that only root may read: tokens, private keys, an age identity.
    #[arg(long, env = "EVANESCE_CREDENTIALS_DIR", value_parser = absolute)]
    pub credentials_dir: Option<PathBuf>,

    /// Where records are kept between restarts; a tmpfs is mounted inside unless it lies on one.
    #[arg(long, env = "EVANESCE_STATE_DIR", default_value = "/run/evanesce", value_parser = absolute)]
    pub state_dir: PathBuf,

    /// Where the journal of lease groups is kept, sealed: a directory of this driver's alone, on the node's disk.
    /// [default: `leases` beside --csi-socket]
    #[arg(long, env = "EVANESCE_JOURNAL_DIR", value_parser = absolute)]
    pub journal_dir: Option<PathBuf>,

    /// The uid and gid of the half that has no privileges; no other process of the node should have it.
    #[arg(long, env = "EVANESCE_ENGINE_UID", default_value = "60999", value_parser = engine_uid)]
    pub engine_uid: u32,

    /// Run both halves under one uid. Taken for granted in a user namespace that has only one.
    #[arg(long, env = "EVANESCE_SINGLE_UID")]
    pub single_uid: bool,

    /// The SELinux label of volumes on a node with SELinux, so that containers may read them; `none` leaves it to the policy.
    #[arg(long, env = "EVANESCE_SELINUX_CONTEXT", default_value = "system_u:object_r:container_file_t:s0")]
    pub selinux_context: Selinux,

    /// Where to serve metrics and health; `none` turns them off.
    #[arg(long, env = "EVANESCE_HTTP_ADDRESS", default_value = "127.0.0.1:9811", value_parser = http_address)]
    pub http_address: HttpAddress,

    /// Where audit events go: `stdout`, `file:PATH`, or `none`.
    #[arg(long, env = "EVANESCE_AUDIT", default_value = "stdout", value_parser = audit)]
    pub audit: Audit,

    /// All volumes of the node together may hold this much (bytes, or with Ki, Mi, Gi).
    #[arg(long, env = "EVANESCE_NODE_TMPFS_LIMIT", default_value = "512Mi", value_parser = bytes)]
    pub node_tmpfs_limit: u64,

    /// All volumes of one namespace together may hold this much (bytes, or with Ki, Mi, Gi).
    #[arg(long, env = "EVANESCE_NAMESPACE_TMPFS_LIMIT", default_value = "128Mi", value_parser = bytes)]
    pub namespace_tmpfs_limit: u64,

    /// A first delivery fails after this long (`20s`, `500ms`, `2m`); kubelet then tries again.
    #[arg(long, env = "EVANESCE_FIRST_DELIVERY_TIMEOUT", default_value = "20s", value_parser = duration)]
    pub first_delivery_timeout: Duration,

    /// What to log: `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,evanesce_engine=debug`.
    #[arg(long, env = "EVANESCE_LOG", default_value = "info")]
    pub log: String,

    /// How to log: `human`, `json`, or `auto`, which is human at a terminal.
    #[arg(long, env = "EVANESCE_LOG_FORMAT", default_value = "auto", value_parser = log_format)]
    pub log_format: LogFormat,
}

/// Where to serve metrics and health, if anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpAddress(pub Option<SocketAddr>);

/// Where audit events go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audit {
    /// Standard output.
    Stdout,
    /// This file, appended to; made with mode 0600 if there is none.
    File(PathBuf),
    /// Nowhere.
    None,
}

impl Args {
    /// The proxy, if there is one. Not clap's to check: it would print what it refuses, which may hold a password.
    ///
    /// # Errors
    /// What is wrong with it, without its text.
    pub fn proxy(&self) -> Result<Option<HttpsProxy>, String> {
        let given = self.https_proxy.as_deref().filter(|url| !url.is_empty());
        given
            .map(|url| HttpsProxy::parse(url, &self.no_proxy).map_err(|error| format!("--https-proxy: {error}")))
            .transpose()
    }

    /// The journal's directory. Beside the socket: two drivers have no socket in common, and kubelet's directory of a plugin
    /// is on the node's disk.
    #[must_use]
    pub fn journal_dir(&self) -> PathBuf {
        self.journal_dir.clone().unwrap_or_else(|| self.csi_socket.with_file_name("leases"))
    }

    /// The registration socket.
    ///
    /// The `@` matters. Kubelet dials `unix:///<path>` with grpc-go, which sends the socket's path as `:authority`; a
    /// slash in it becomes `%2F`, and the HTTP/2 server here refuses a percent sign in a host name. With an `@` all before
    /// it counts as user information, where it may be.
    #[must_use]
    pub fn registration_socket(&self) -> PathBuf {
        self.registration_dir.join(format!("{}@reg.sock", self.driver_name))
    }
}

/// The CSI specification's rule (GetPluginInfo): domain name notation, at most 63 characters.
fn driver_name(text: &str) -> Result<String, String> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    if bytes.len() <= 63 && ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|b| inner(*b)) {
        Ok(text.to_owned())
    } else {
        Err("write a domain name of at most 63 letters, digits, `-` and `.`, such as csi.evanesce.dev".to_owned())
    }
}

fn node_name(text: &str) -> Result<String, String> {
    match text {
        "" => Err("it is empty: set NODE_NAME from the downward API's spec.nodeName".to_owned()),
        long if long.len() > 253 => Err("a node's name has at most 253 characters".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

fn api_server_host(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':');
    if !text.is_empty() && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("write a host name or an address, without brackets, scheme and port".to_owned())
    }
}

/// A label's key: an optional DNS prefix, a slash, a name.
fn taint_key(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let part = |part: &str| !part.is_empty() && part.len() <= 253 && part.bytes().all(plain);
    if text.split('/').count() <= 2 && text.split('/').all(part) {
        Ok(text.to_owned())
    } else {
        Err("write a taint's key without value and effect, such as evanesce.dev/not-ready".to_owned())
    }
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let is_normal = |relative: &str| !relative.split('/').any(|part| matches!(part, "" | "." | ".."));
    let trimmed = text.strip_suffix('/').unwrap_or(text);
    match trimmed.strip_prefix('/') {
        Some(relative) if is_normal(relative) => Ok(PathBuf::from(trimmed)),
        Some(_) => Err("write it without `//`, `.` and `..`".to_owned()),
        None if text == "/" => Err("write a directory other than `/`".to_owned()),
        None => Err("write an absolute path".to_owned()),
    }
}

fn engine_uid(text: &str) -> Result<u32, String> {
    let cure = "choose one from 1 to 65531 that no other process of the node has, such as 60999";
    match text.parse() {
        Ok(0) => Err(format!("0 is root, and the point is not to be root: {cure}")),
        Ok(65532) => Err(format!(
            "65532 is the user of every distroless image, whose processes could then stop this one: {cure}"
        )),
        Ok(65533..=65535) => Err(format!("65533 to 65535 are nobody's or mean \"no uid\": {cure}")),
        Ok(uid @ 1..=65531) => Ok(uid),
        Ok(_) => Err(format!("65536 and more belong to other user namespaces (pods with hostUsers: false): {cure}")),
        Err(_) => Err(format!("it is no number: {cure}")),
    }
}

fn http_address(text: &str) -> Result<HttpAddress, String> {
    match text {
        "none" => Ok(HttpAddress(None)),
        other => other
            .parse()
            .map(|address| HttpAddress(Some(address)))
            .map_err(|_| "write an address and a port, such as 127.0.0.1:9811 or [::1]:9811, or `none`".to_owned()),
    }
}

fn audit(text: &str) -> Result<Audit, String> {
    match text {
        "stdout" => Ok(Audit::Stdout),
        "none" => Ok(Audit::None),
        other => match other.strip_prefix("file:") {
            Some(path) => absolute(path).map(Audit::File),
            None => Err("write `stdout`, `file:/absolute/path` or `none`".to_owned()),
        },
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 3] = [("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30)];
    let (number, unit) =
        UNITS.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit))).unwrap_or((text, 1));
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)) {
        Some(size @ 4096..) => Ok(size),
        Some(_) => Err("it is less than one page, 4096 bytes".to_owned()),
        None => Err("write a number of bytes, or one with Ki, Mi or Gi, such as 512Mi".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    UNITS
        .iter()
        .find_map(|(suffix, unit)| text.strip_suffix(suffix)?.parse::<u64>().ok()?.checked_mul(*unit))
        .filter(|milliseconds| *milliseconds > 0)
        .map(Duration::from_millis)
        .ok_or_else(|| "write a whole number with ms, s, m or h, such as 20s".to_owned())
}

fn log_format(text: &str) -> Result<LogFormat, TelemetryError> {
    text.parse()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn parse(flags: &[&str]) -> Result<Args, String> {
        let always = ["evanesce-csi", "--node-name", "n1"];
        Args::try_parse_from(always.iter().chain(flags)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_those_of_the_chart() {
        let args = parse(&[]).unwrap();
        assert_eq!(args.driver_name, "csi.evanesce.dev");
        assert_eq!(args.engine_uid, 60999);
        assert_eq!(args.backend_ports, [443, 8200]);
        assert_eq!(args.node_tmpfs_limit, 512 << 20);
        assert_eq!(args.first_delivery_timeout, Duration::from_secs(20));
        assert_eq!(args.http_address, HttpAddress(Some(([127, 0, 0, 1], 9811).into())));
        assert_eq!(args.registration_socket(), PathBuf::from("/registration/csi.evanesce.dev@reg.sock"));
        assert_eq!(args.journal_dir(), PathBuf::from("/csi/leases"));
    }

    #[test]
    fn every_refusal_names_the_flag_and_the_cure() {
        for (flag, value, says) in [
            ("--engine-uid", "0", "is root"),
            ("--engine-uid", "65532", "distroless"),
            ("--engine-uid", "65533", "choose one from 1"),
            ("--engine-uid", "65534", "choose one from 1"),
            ("--engine-uid", "65535", "choose one from 1"),
            ("--engine-uid", "65536", "user namespaces"),
            ("--engine-uid", "4294967295", "user namespaces"),
            ("--engine-uid", "root", "no number"),
            ("--driver-name", "-x", "domain name"),
            ("--driver-name", "a/b", "domain name"),
            ("--driver-name", "", "domain name"),
            ("--node-name", "", "spec.nodeName"),
            ("--pods-dir", "pods", "absolute"),
            ("--pods-dir", "/a/../b", "without"),
            ("--pods-dir", "/", "other than"),
            ("--csi-socket", "/a//b", "without"),
            ("--http-address", "9811", "127.0.0.1:9811"),
            ("--backend-ports", "443,https", "invalid"),
            ("--backend-ports", "0", "0 is not in"),
            ("--selinux-context", "container_file_t", "user:role:type:level"),
            ("--selinux-context", "a:b:c:s0,size=1", "user:role:type:level"),
            ("--selinux-context", "a:b:c:s0\"", "user:role:type:level"),
            ("--selinux-context", "", "user:role:type:level"),
            ("--audit", "syslog", "file:/absolute/path"),
            ("--audit", "file:x", "absolute"),
            ("--node-tmpfs-limit", "5MB", "512Mi"),
            ("--node-tmpfs-limit", "0", "one page"),
            ("--namespace-tmpfs-limit", "99999999999Gi", "512Mi"),
            ("--first-delivery-timeout", "20", "20s"),
            ("--first-delivery-timeout", "0s", "20s"),
            ("--log-format", "xml", "json"),
        ] {
            let assignment = format!("{flag}={value}");
            let always =
                if flag == "--node-name" { ["evanesce-csi", "--log=info"] } else { ["evanesce-csi", "--node-name=n"] };
            let error = Args::try_parse_from(always.into_iter().chain([assignment.as_str()])).unwrap_err().to_string();
            assert!(error.contains(flag) && error.contains(says), "{assignment}: {error}");
        }
    }

    #[test]
    fn a_proxy_that_is_refused_is_not_printed() {
        let proxy = |flags: &[&str]| parse(flags).unwrap().proxy();
        assert!(proxy(&["--https-proxy="]).unwrap().is_none());
        assert_eq!(proxy(&["--https-proxy=http://proxy.example:3128"]).unwrap().unwrap().port(), 3128);
        let error = proxy(&["--https-proxy=http://app:canary@proxy.example"]).err().unwrap();
        assert!(error.contains("--https-proxy") && !error.contains("canary"), "{error}");
    }

    #[test]
    fn what_is_right_is_understood() {
        let args = parse(&[
            "--engine-uid=1000",
            "--pods-dir=/pods/",
            "--journal-dir=/var/lib/evanesce/",
            "--http-address=none",
            "--audit=file:/var/log/a.json",
            "--namespace-tmpfs-limit=8192",
            "--first-delivery-timeout=2m",
        ])
        .unwrap();
        assert_eq!(args.engine_uid, 1000);
        assert_eq!(args.pods_dir, PathBuf::from("/pods"));
        assert_eq!(args.journal_dir(), PathBuf::from("/var/lib/evanesce"));
        assert_eq!(args.http_address, HttpAddress(None));
        assert_eq!(args.audit, Audit::File("/var/log/a.json".into()));
        assert_eq!(args.namespace_tmpfs_limit, 8192);
        assert_eq!(args.first_delivery_timeout, Duration::from_secs(120));
    }
}
