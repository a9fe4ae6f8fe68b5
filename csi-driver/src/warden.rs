// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The warden: root, and small. It binds the sockets, starts the launcher, gives up what it does not need, and then does a
//! dozen things on request: mounts, owners, records, the journal, descriptors. It sees no secret and no network.

mod backoff;
mod credentials;
mod failure;
mod folder;
mod journal;
mod paths;
mod records;
mod requests;
mod selinux;
mod signals;
mod sockets;
mod supervise;
mod takeover;
mod user_namespace;
mod volumes;

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use evanesce_engine::crash_point;
use evanesce_engine::proxy::HttpsProxy;
use evanesce_runtime::metrics::Label as _;
use evanesce_runtime::seccomp::Mounting;
use evanesce_runtime::{landlock, telemetry};

pub use credentials::CredentialsDir;
pub use folder::FolderError;
pub use journal::Journal;
pub use paths::PodsDir;
pub use records::{Records, StateDir, StateError};
pub use requests::{Answer, Requests};
pub use selinux::{Selinux, SelinuxContext};
pub use sockets::Socket;
pub use supervise::{Fatal, Greeting, Supervisor};
pub use volumes::Volumes;

use crate::args::{Args, Audit};
use crate::confine::{self, EngineUser, Leave};
use crate::kubernetes::ApiServer;
use crate::launcher;
use crate::mount::LinuxKernel;
use crate::protocol::{AuditChoice, ClassesChoice, EngineConfig, Limits, ProxyChoice, Reduced};
use crate::role::{self, Role};

/// The warden's process: what the container runtime starts.
pub fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            role::complain(Role::Warden, &error);
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    telemetry::init(args.log_format, &args.log)?;
    // Before all else, so that no signal finds the defaults once there is something to clean up.
    let signals = signals::stop_signals()?;
    confine::prepare_warden()?;

    let user = engine_user(args)?;
    let owner = match user {
        EngineUser::Own(uid) => uid,
        EngineUser::Wardens => rustix::process::geteuid().as_raw(),
    };
    let pods = PodsDir::open(&args.pods_dir).map_err(flag("--pods-dir", &args.pods_dir))?;
    let credentials = CredentialsDir::open(args.credentials_dir.as_deref())
        .map_err(flag("--credentials-dir", args.credentials_dir.as_deref().unwrap_or(Path::new(""))))?;
    let state = StateDir::open(&args.state_dir, &args.driver_name)?;
    let (kernel, mut reduced) = LinuxKernel::probe(owner, state.staging()?)?;
    let state = state.ensure_tmpfs(&kernel)?;
    let kernel = kernel.with_staging(state.staging()?)?;
    let label = args.selinux_context.label(Path::new("/proc"), &kernel)?;
    let mounting = if reduced.contains(&Reduced::MountCalls) { Mounting::ByPath } else { Mounting::ByDescriptor };
    if user == EngineUser::Wardens {
        reduced.extend([Reduced::SingleUid, Reduced::FileOwners]);
    }
    if !landlock::limits_ports() {
        reduced.push(Reduced::BackendPorts);
    }
    for missing in &reduced {
        tracing::warn!(missing = missing.as_str(), "reduced: this machine does not give this protection");
    }
    let proxy = args.proxy()?;
    let digest_key = state.digest_key()?;
    let admin_path = state.admin_socket();
    let records = Records::load(state)?;
    let audit = open_audit(&args.audit)?;

    let mut bound = Vec::new();
    let serve = || -> Result<Supervisor<LinuxKernel>, Box<dyn Error>> {
        let mut bind = |name, path: &Path| {
            let socket = Socket::bind(path).map_err(flag(name, path))?;
            bound.push(socket.clone());
            Ok::<_, String>(socket)
        };
        let csi = bind("--csi-socket", &args.csi_socket)?;
        let registration = bind("--registration-dir", &args.registration_socket())?;
        let admin = bind("--state-dir", &admin_path)?;
        let journal = Journal::open(&args.journal_dir())?;
        crash_point!("start:sockets-bound");
        let launcher = launcher::start(
            &leave(args, user, proxy.as_ref()),
            &[classes_path(args).to_owned(), args.sealed_dir.clone()],
        )?;
        crash_point!("start:launcher-started");
        confine::warden(mounting)?;
        let listeners = [&csi, &registration, &admin].map(|socket| socket.as_fd().try_clone_to_owned());
        let fds = listeners.into_iter().chain(audit.map(Ok)).collect::<io::Result<_>>()?;
        let greeting = Greeting { config: engine_config(args, reduced, proxy.as_ref()), digest_key, fds };
        let volumes = Volumes::new(kernel, pods, owner, args.node_tmpfs_limit).labelled(label);
        let requests = Requests::new(volumes, records, journal, credentials, csi);
        Ok(Supervisor::new(requests, greeting, launcher, signals))
    };
    let ended = serve().and_then(|mut supervisor| Ok(supervisor.run()?));
    bound.iter().for_each(Socket::remove);
    ended
}

fn engine_user(args: &Args) -> Result<EngineUser, Box<dyn Error>> {
    let map = user_namespace::UidMap::ours()?;
    if args.single_uid || map.has_one_uid() {
        return Ok(EngineUser::Wardens);
    }
    if !rustix::process::geteuid().is_root() {
        return Err(
            "the warden mounts, so it has to be root: run it as root, in a container with `privileged: true`, \
                    or under `unshare --user --map-root-user --mount`"
                .into(),
        );
    }
    if !map.contains(args.engine_uid) {
        return Err(format!(
            "--engine-uid {} does not exist in this user namespace: choose one that /proc/self/uid_map has, or give \
             --single-uid",
            args.engine_uid
        )
        .into());
    }
    Ok(EngineUser::Own(args.engine_uid))
}

/// What is left to the engine half.
fn leave(args: &Args, user: EngineUser, proxy: Option<&HttpsProxy>) -> Leave {
    const DNS: u16 = 53;
    let api_server = args.kubernetes.then_some(args.api_server_port);
    let connect = args.backend_ports.iter().copied().chain(api_server).chain(proxy.map(HttpsProxy::port)).chain([DNS]);
    let connect = connect.collect::<BTreeSet<_>>().into_iter().collect();
    Leave { user, connect, listen: args.http_address.0.map(|address| address.port()) }
}

fn engine_config(args: &Args, reduced: Vec<Reduced>, proxy: Option<&HttpsProxy>) -> EngineConfig {
    EngineConfig {
        driver_name: args.driver_name.clone(),
        node_name: args.node_name.clone(),
        kubelet_csi_socket: args.kubelet_csi_socket.as_ref().unwrap_or(&args.csi_socket).clone(),
        pods_dir: args.pods_dir.clone(),
        classes: classes(args),
        sealed_dir: args.sealed_dir.clone(),
        backend_ports: args.backend_ports.clone(),
        https_proxy: proxy.map(|proxy| ProxyChoice { url: proxy.url().to_owned(), except: proxy.except().to_owned() }),
        http_address: args.http_address.0,
        audit: match args.audit {
            Audit::Stdout => AuditChoice::Stdout,
            Audit::File(_) => AuditChoice::File,
            Audit::None => AuditChoice::None,
        },
        limits: Limits { node_tmpfs: args.node_tmpfs_limit, namespace_tmpfs: args.namespace_tmpfs_limit },
        first_delivery_timeout: args.first_delivery_timeout,
        log: args.log.clone(),
        log_format: args.log_format.into(),
        reduced,
    }
}

fn classes(args: &Args) -> ClassesChoice {
    match &args.api_server_host {
        Some(host) if args.kubernetes => ClassesChoice::Kubernetes {
            api_server: ApiServer {
                host: host.clone(),
                port: args.api_server_port,
                account: args.service_account_dir.clone(),
            },
            startup_taint: args.startup_taint.clone(),
        },
        _ => ClassesChoice::Directory(args.classes_dir.clone()),
    }
}

/// What the engine half reads classes from, or what it asks for them with.
fn classes_path(args: &Args) -> &Path {
    if args.kubernetes { &args.service_account_dir } else { &args.classes_dir }
}

fn open_audit(audit: &Audit) -> Result<Option<OwnedFd>, Box<dyn Error>> {
    let Audit::File(path) = audit else { return Ok(None) };
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(flag("--audit", path))?;
    Ok(Some(file.into()))
}

/// Names the flag that an error is about.
fn flag<'a>(name: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> String + use<'a> {
    move |error| format!("{name} {}: {error}", path.display())
}
