// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The half without privileges: talks to kubelet and to secret stores, sees secrets, may do nothing else.
//!
//! This file builds the parts and joins them; what they do is in the files beside it, in the order of the straight line:
//! [`server`] and [`service`] hear kubelet and the operator, [`publish_request`] parses, [`volumes`] and [`volume`] are the
//! state, [`plugin`] has the verbs, [`tmpfs_target`] and [`budget`] make room, [`borrowed`] and
//! [`journal`] hold what was lent, [`refresher`] and [`adoption`] keep it so, [`oddities`] says where that is harder than it has to be; through
//! [`door`] classes come in, and what happened goes out.

pub mod adoption;
pub mod borrowed;
pub mod budget;
mod door;
pub mod found;
pub mod freshness;
pub mod journal;
pub mod keeping;
pub mod max_stale;
pub mod metrics;
pub mod mounts;
pub mod oddities;
pub mod plugin;
pub mod probe;
pub mod publish_request;
pub mod record;
pub mod refresher;
pub mod server;
pub mod service;
pub mod status;
pub mod tmpfs_target;
pub mod volume;
pub mod volumes;
pub mod warden_client;

#[cfg(test)]
mod testing;

use std::error::Error as StdError;
use std::io;
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use evanesce_engine::audit::log::{AuditLog, QUEUE};
use evanesce_engine::audit::ocsf::Context;
use evanesce_engine::audit::sink::{FileSink, Sink};
use evanesce_engine::backend::registry::Registry;
use evanesce_engine::clock::{Clock, SystemClock};
use evanesce_engine::crash_point;
use evanesce_engine::credentials::CredentialFiles;
use evanesce_engine::deliver::Deliverer;
use evanesce_engine::fetch::{Backends, Fetcher};
use evanesce_engine::keep::Keep;
use evanesce_engine::lease::Lender;
use evanesce_engine::names::NodeName;
use evanesce_engine::projection::DigestKey;
use evanesce_engine::proxy::HttpsProxy;
use evanesce_engine::reach::Reach;
use evanesce_engine::sealing::SealingKey;
use evanesce_proto::csi::identity_server::IdentityServer;
use evanesce_proto::csi::node_server::NodeServer;
use evanesce_proto::node::node_admin_server::NodeAdminServer;
use evanesce_proto::registration::registration_server::RegistrationServer;
use evanesce_runtime::alloc;
use evanesce_runtime::arena::ArenaKind;
use evanesce_runtime::http;
use evanesce_runtime::ready::Readiness;
use evanesce_runtime::seccomp::Unlisted;
use evanesce_runtime::telemetry;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tracing::{error, info, warn};

use self::budget::Budget;
use self::door::Door;
use self::journal::Sealed;
use self::keeping::{ArenaKeep, WardenFiles};
use self::metrics::{Memory, Metrics, Scraped};
use self::mounts::Mounts;
use self::plugin::Plugin;
use self::service::admin::AdminService;
use self::service::identity::IdentityService;
use self::service::node::NodeService;
use self::service::registration::RegistrationService;
use self::volumes::Volumes;
use self::warden_client::{Start, WardenClient};
use crate::confine;
use crate::protocol::{AuditChoice, EngineConfig};
use crate::role::{self, Role};

/// Most threads that tasks run on: on a node with many processors they are there for the pods.
const WORKERS: usize = 4;
/// Most threads that wait for the kernel in a task's stead. A burst would start one for each volume, and each keeps what
/// its stack has touched.
const BLOCKING: usize = 16;
/// How often memory that a burst has left free is given back.
const GIVE_BACK: Duration = Duration::from_secs(3);
/// What a drain waits for, below the warden's own limit.
const DRAIN: Duration = Duration::from_secs(15);
/// What the end waits for the audit's disk.
const FLUSH: Duration = Duration::from_secs(2);

/// The engine half's process; its argument is the launcher's pid, its standard input the channel to the warden.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            role::complain(Role::Engine, &error);
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn StdError>> {
    // Asked here, because what tells of a container's share of the processors is not in the private root.
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    let start = begin(Unlisted::OF_THIS_BUILD)?;
    telemetry::init(start.config.log_format.into(), &start.config.log)?;
    alloc::few_heaps();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers.min(WORKERS))
        .max_blocking_threads(BLOCKING)
        .enable_all()
        .build()?;
    runtime.block_on(serve(start))
}

/// Confines the process that the launcher has started, and greets the warden. Whoever tries the confinement begins here.
///
/// # Errors
/// When the process cannot be confined, or the warden is another build's.
pub fn begin(unlisted: Unlisted) -> Result<Start, Box<dyn StdError>> {
    let (launcher, leave, _) = role::arguments()?;
    // Nothing is read from it yet. It takes `/dev/null`, of which there is none in the private root.
    let channel = role::channel_from_stdin()?;
    confine::engine_half(launcher, &leave, unlisted)?;
    Ok(Start::from_channel(channel)?)
}

/// Runs until the warden asks for a drain, is gone, or something this half cannot do without fails.
async fn serve(start: Start) -> Result<(), Box<dyn StdError>> {
    let Start { restarts, config, digest_key, csi, registration, admin, audit, channel } = start;
    let warden = WardenClient::new(channel)?;
    let arena = keeping::for_tokens()?;
    let node = NodeName::parse(&config.node_name)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let log = Arc::new(start_audit(&config, &node, audit, Arc::clone(&clock))?);
    let readiness = Readiness::new();
    let classes_read = readiness.wait_for("classes");
    let adopted = readiness.wait_for("adoption");

    let (metrics, mut all) = Metrics::declare();
    let metrics = Arc::new(metrics);
    Metrics::node(&mut all, restarts, &config.reduced, memory(arena.kind()));
    let volumes = Arc::new(Volumes::default());
    let budget = Budget::new(config.limits.node_tmpfs, config.limits.namespace_tmpfs);
    let Door { classes, counts, auditor, kubernetes } = Door::open(&config, &log, &clock, &metrics)?;
    let credentials: Arc<dyn CredentialFiles> = Arc::new(WardenFiles::new(warden.clone(), arena.clone()));
    let reach = Reach {
        ports: config.backend_ports.clone(),
        sealed: config.sealed_dir.clone(),
        proxy: config.https_proxy.as_ref().map(|it| HttpsProxy::parse(&it.url, &it.except)).transpose()?,
    };
    let (tell, changed) = mpsc::unbounded_channel();
    let (answers, bounds) = keeping::for_answers();
    // What is kept between sessions lies beside them, or nowhere.
    let protected = (bounds.bytes > 0).then(|| Arc::clone(&answers));
    let registry = Registry::new(Arc::clone(&classes), credentials, reach).tell(tell).keeping(protected);
    let (reserved, lost, healthy) = (Arc::clone(&budget), Arc::clone(&log), Arc::clone(&log));
    Metrics::look_at(
        &mut all,
        Scraped {
            volumes: Arc::clone(&volumes),
            reserved: Box::new(move || reserved.reserved()),
            audit_lost: Box::new(move || lost.lost()),
            audit_healthy: Box::new(move || healthy.is_healthy()),
            classes: counts,
            passed_over: registry.passed_over(),
            clock: Arc::clone(&clock),
        },
    );
    let fetcher =
        Fetcher::new((answers, bounds), keeping::for_answers(), Arc::clone(&clock), Arc::clone(&metrics) as _);
    let backends: Arc<dyn Backends> = Arc::new(registry);
    let sealed = Arc::new(Sealed::new(Arc::new(warden.clone()), SealingKey::derive(digest_key.as_bytes())));
    let keep: Arc<dyn Keep> = Arc::new(ArenaKeep(arena));
    let lender = Lender::new(
        Arc::clone(&sealed) as _,
        Arc::clone(&keep),
        Arc::clone(&backends),
        Arc::clone(&fetcher),
        Arc::clone(&auditor),
        Arc::clone(&clock),
        DigestKey::new(digest_key.as_bytes()),
    );
    metrics::leases::look_at(&mut all, Arc::clone(lender.ledger()), Arc::clone(&clock));
    let deliverer = Deliverer {
        fetcher,
        lender: Arc::clone(&lender),
        backends,
        classes: Arc::clone(&classes),
        auditor,
        clock,
        digests: DigestKey::new(digest_key.as_bytes()),
        limit: config.first_delivery_timeout,
    };
    let mounts: Arc<dyn Mounts> = Arc::new(warden.clone());
    let plugin = Arc::new(Plugin {
        deliverer,
        mounts,
        budget,
        volumes,
        deadlines: Default::default(),
        metrics: Arc::clone(&metrics),
        left_alone: Default::default(),
        found: Default::default(),
        any_unknown: AtomicBool::new(true),
        tasks: TaskTracker::new(),
    });
    // Before the first call: a republish must find what is there.
    adoption::find_borrowed(&plugin, &sealed).await?;
    adoption::adopt(&plugin).await?;
    adopted.ready();
    tokio::spawn(async move {
        let mut changes = classes.changes();
        if changes.wait_for(|seen| *seen > 0).await.is_ok() {
            classes_read.ready();
        }
    });

    let stop = CancellationToken::new();
    let loops = TaskTracker::new();
    loops.spawn(refresher::run(Arc::clone(&plugin), changed, stop.clone()));
    loops.spawn(give_back(stop.clone()));
    if let Some(returns) = lender.returns() {
        loops.spawn(returns.run(stop.clone()));
    }
    let (registered, known_to_kubelet) = watch::channel(false);
    if let Some(kubernetes) = kubernetes {
        kubernetes.begin(&plugin, known_to_kubelet, &loops, &stop);
    }
    serve_http(&config, &warden, &readiness, Arc::new(all), &loops, &stop).await?;
    let (refused, mut kubelet_refused) = mpsc::channel(1);
    let identity = IdentityService { driver_name: config.driver_name.clone(), readiness: readiness.clone() };
    let admin_service = AdminService { plugin: Arc::clone(&plugin), node: node.clone() };
    let node = NodeService { plugin: Arc::clone(&plugin), node, keep };
    let services = Routes::new(IdentityServer::new(identity)).add_service(NodeServer::new(node));
    let calls = server::serve(server::listener(csi)?, services, Arc::clone(&metrics), stop.clone());
    let registration_service = RegistrationService {
        driver_name: config.driver_name.clone(),
        endpoint: config.kubelet_csi_socket.clone(),
        registered,
        refused,
    };
    let registrations = server::serve(
        server::listener(registration)?,
        Routes::new(RegistrationServer::new(registration_service)),
        Arc::clone(&metrics),
        stop.clone(),
    );
    let questions = Routes::new(NodeAdminServer::new(admin_service));
    loops.spawn(server::serve(server::listener(admin)?, questions, metrics, stop.clone()));
    let (mut calls, registrations) = (tokio::spawn(calls), loops.spawn(registrations));
    info!(node = config.node_name, driver = config.driver_name, "ready for kubelet");
    let serving = warden.clone();
    tokio::spawn(async move {
        readiness.ready().await;
        // If it cannot be said, the warden is gone, and so is this process in a moment.
        let _ = serving.ready().await;
    });

    let end = tokio::select! {
        () = warden.draining() => Ok(()),
        () = warden.gone() => Err("the warden is gone".into()),
        Some(why) = kubelet_refused.recv() => Err(format!("kubelet refused the driver: {why}").into()),
        ended = &mut calls => Err(format!("the CSI server ended: {ended:?}").into()),
    };
    if end.is_ok() {
        info!("draining");
        stop.cancel();
        crash_point!("drain:begun");
        let begun = async {
            let _ = calls.await;
            let _ = registrations.await;
            loops.close();
            loops.wait().await;
            plugin.tasks.close();
            plugin.tasks.wait().await;
        };
        if tokio::time::timeout(DRAIN, begun).await.is_err() {
            warn!("drained firmly: something did not end in time");
        }
    }
    if !tokio::task::spawn_blocking(move || log.close(FLUSH)).await.unwrap_or(false) {
        error!("the audit log could not be written to its end");
    }
    end
}

/// Gives the pages of freed memory back to the node, until `stop`.
async fn give_back(stop: CancellationToken) {
    let mut faults = 0;
    while stop.run_until_cancelled(tokio::time::sleep(GIVE_BACK)).await.is_some() {
        faults = tokio::task::spawn_blocking(move || alloc::give_back(faults)).await.unwrap_or(faults);
    }
}

fn memory(kind: ArenaKind) -> Memory {
    match kind {
        ArenaKind::SecretMemory => Memory::Secret,
        ArenaKind::LockedMemory => Memory::Locked,
        ArenaKind::PlainMemory => Memory::Plain,
    }
}

fn start_audit(
    config: &EngineConfig,
    node: &NodeName,
    file: Option<std::os::fd::OwnedFd>,
    clock: Arc<dyn Clock>,
) -> io::Result<AuditLog> {
    let context = Context {
        node: node.clone(),
        program: Role::Warden.name(),
        version: env!("CARGO_PKG_VERSION"),
        log_name: "evanesce-audit",
        pid: std::process::id(),
    };
    let sinks: Vec<Box<dyn Sink>> = match (config.audit, file) {
        (AuditChoice::Stdout, _) => vec![Box::new(FileSink::stdout()?)],
        (AuditChoice::File, Some(file)) => vec![Box::new(FileSink::new(file.into()))],
        (AuditChoice::File | AuditChoice::None, _) => Vec::new(),
    };
    AuditLog::start(context, sinks, QUEUE, clock)
}

/// Health, readiness and metrics. Liveness is our own Probe over a connection that the warden made, because this half may
/// not connect to a socket of root's; so it asks both halves and the server between them.
async fn serve_http(
    config: &EngineConfig,
    warden: &WardenClient,
    readiness: &Readiness,
    metrics: Arc<evanesce_runtime::metrics::Metrics>,
    loops: &TaskTracker,
    stop: &CancellationToken,
) -> io::Result<()> {
    let Some(address) = config.http_address else { return Ok(()) };
    let listener = tokio::net::TcpListener::bind(address).await?;
    let warden = warden.clone();
    let router = http::router(move || probe::healthy(warden.clone()), readiness.clone(), metrics);
    loops.spawn(http::serve(listener, router, stop.clone()));
    Ok(())
}
