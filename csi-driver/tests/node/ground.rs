// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A node: the engine half's parts joined as the program joins them, a server and a kubelet.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use evanesce_csi::engine_half::adoption;
use evanesce_csi::engine_half::budget::Budget;
use evanesce_csi::engine_half::journal::Sealed;
use evanesce_csi::engine_half::metrics::{Metrics, Scraped, leases};
use evanesce_csi::engine_half::plugin::Plugin;
use evanesce_csi::engine_half::refresher;
use evanesce_csi::engine_half::service::admin::AdminService;
use evanesce_csi::engine_half::service::node::NodeService;
use evanesce_csi::engine_half::volumes::Volumes;
use evanesce_engine::audit::recording::RecordingAuditor;
use evanesce_engine::backend::fake::FakeBackend;
use evanesce_engine::clock::Clock;
use evanesce_engine::deliver::Deliverer;
use evanesce_engine::fetch::{Backends, Bounds, Fetcher};
use evanesce_engine::keep::HeapKeep;
use evanesce_engine::lease::Lender;
use evanesce_engine::names::NodeName;
use evanesce_engine::projection::DigestKey;
use evanesce_engine::sealing::SealingKey;
use evanesce_proto::csi::node_client::NodeClient;
use evanesce_proto::csi::node_server::NodeServer;
use evanesce_proto::csi::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest};
use evanesce_proto::kubelet::{self, Pod, Publish, Token, TokensIn};
use evanesce_proto::node::node_admin_client::NodeAdminClient;
use evanesce_proto::node::node_admin_server::NodeAdminServer;
use evanesce_proto::node::{ListVolumesRequest, Volume};
use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Status};

use crate::classes::{MemoryClasses, OneBackend, spec};
use crate::fake_mounts::FakeMounts;

/// One mebibyte: what a volume of small files takes.
pub(crate) const VOLUME: u64 = 1 << 20;

/// Wall time that goes with the runtime's, wrong by so many seconds.
pub(crate) struct TestClock {
    pub(crate) start: Instant,
    pub(crate) ahead: AtomicI64,
}

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        // 2026-01-01
        let start = 1_767_225_600_i64.saturating_add(self.ahead.load(Ordering::Relaxed));
        SystemTime::UNIX_EPOCH + Duration::from_secs(start.unsigned_abs()) + self.start.elapsed()
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

pub(crate) struct Node {
    pub(crate) backend: FakeBackend,
    pub(crate) mounts: Arc<FakeMounts>,
    pub(crate) classes: Arc<MemoryClasses>,
    pub(crate) auditor: Arc<RecordingAuditor>,
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) metrics: evanesce_runtime::metrics::Metrics,
    pub(crate) channel: Channel,
    pub(crate) clock: Arc<TestClock>,
    boot: u8,
    _stop: DropGuard,
}

impl Node {
    /// A node with the class `db` of two files, and room for many volumes.
    pub(crate) async fn new() -> Self {
        Self::with_limits(1 << 30, 1 << 30).await
    }

    pub(crate) async fn with_limits(node: u64, namespace: u64) -> Self {
        Self::fresh(node, namespace, 0).await
    }

    /// A node whose clock is wrong by so many seconds.
    pub(crate) async fn with_clock_ahead(ahead: i64) -> Self {
        Self::fresh(1 << 30, 1 << 30, ahead).await
    }

    async fn fresh(node: u64, namespace: u64, ahead: i64) -> Self {
        // Of a kind that is counted.
        let backend = FakeBackend::new("store").with_kind("vault");
        backend.put("kv/db", &[("username", "app"), ("password", "first")]);
        let clock = TestClock { start: Instant::now(), ahead: ahead.into() };
        Self::of(backend, Budget::new(node, namespace), clock).await
    }

    /// One of several nodes that ask the same backend.
    pub(crate) async fn asking(backend: FakeBackend) -> Self {
        let clock = TestClock { start: Instant::now(), ahead: 0.into() };
        Self::of(backend, Budget::new(1 << 30, 1 << 30), clock).await
    }

    async fn of(backend: FakeBackend, budget: Arc<Budget>, clock: TestClock) -> Self {
        let classes = Arc::new(MemoryClasses::new());
        classes.set("db", spec(&["username kv/db username", "password kv/db password"]));
        Self::start(backend, Arc::new(FakeMounts::new()), classes, budget, Arc::new(clock), 1).await
    }

    /// The engine half dies and another one starts.
    pub(crate) async fn restart(self) -> Self {
        let boot = self.boot;
        self.end_and_start(boot).await
    }

    /// The node loses what it keeps in memory but its mounts: enough to lose the key that its journal is sealed with.
    pub(crate) async fn boot(self) -> Self {
        let boot = self.boot + 1;
        self.end_and_start(boot).await
    }

    async fn end_and_start(self, boot: u8) -> Self {
        let Self { backend, mounts, classes, clock, .. } = self;
        Self::start(backend, mounts, classes, Budget::new(1 << 30, 1 << 30), clock, boot).await
    }

    async fn start(
        backend: FakeBackend,
        mounts: Arc<FakeMounts>,
        classes: Arc<MemoryClasses>,
        budget: Arc<Budget>,
        clock: Arc<TestClock>,
        boot: u8,
    ) -> Self {
        let auditor = Arc::new(RecordingAuditor::default());
        let (counted, mut metrics) = Metrics::declare();
        let bounds = Bounds { entries: 64, bytes: 1 << 16 };
        let counted = Arc::new(counted);
        let volumes = Arc::new(Volumes::default());
        let scraped = Scraped {
            volumes: Arc::clone(&volumes),
            reserved: Box::new(|| 0),
            audit_lost: Box::new(|| 0),
            audit_healthy: Box::new(|| true),
            classes: Box::new(Default::default),
            passed_over: Default::default(),
            clock: Arc::clone(&clock) as _,
        };
        Metrics::look_at(&mut metrics, scraped);
        let fetcher = Fetcher::new(
            (Arc::new(HeapKeep), bounds),
            (Arc::new(HeapKeep), bounds),
            Arc::clone(&clock) as _,
            Arc::clone(&counted) as _,
        );
        let backends: Arc<dyn Backends> = Arc::new(OneBackend::new(&backend, Arc::clone(&classes)));
        let journal = Arc::new(Sealed::new(Arc::clone(&mounts) as _, SealingKey::derive(&[boot; 32])));
        let lender = Lender::new(
            Arc::clone(&journal) as _,
            Arc::new(HeapKeep),
            Arc::clone(&backends),
            Arc::clone(&fetcher),
            Arc::clone(&auditor) as _,
            Arc::clone(&clock) as _,
            DigestKey::new(&[7; 32]),
        );
        leases::look_at(&mut metrics, Arc::clone(lender.ledger()), Arc::clone(&clock) as _);
        let deliverer = Deliverer {
            fetcher,
            lender: Arc::clone(&lender),
            classes: Arc::clone(&classes) as _,
            backends,
            auditor: Arc::clone(&auditor) as _,
            clock: Arc::clone(&clock) as _,
            digests: DigestKey::new(&[7; 32]),
            limit: Duration::from_secs(20),
        };
        let plugin = Arc::new(Plugin {
            deliverer,
            mounts: Arc::clone(&mounts) as _,
            budget,
            volumes,
            deadlines: Default::default(),
            metrics: counted,
            left_alone: Default::default(),
            found: Default::default(),
            any_unknown: true.into(),
            tasks: Default::default(),
        });
        adoption::find_borrowed(&plugin, &journal).await.unwrap();
        adoption::adopt(&plugin).await.unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(lender.returns().unwrap().run(stop.clone()));
        tokio::spawn(refresher::run(Arc::clone(&plugin), unbounded_channel().1, stop.clone()));
        let node = NodeName::parse("node-1").unwrap();
        let admin = AdminService { plugin: Arc::clone(&plugin), node: node.clone() };
        let service = NodeService { plugin: Arc::clone(&plugin), node, keep: Arc::new(HeapKeep) };
        let channel = connect(service, admin).await;
        Self { backend, mounts, classes, auditor, plugin, metrics, channel, clock, boot, _stop: stop.drop_guard() }
    }

    pub(crate) fn client(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone())
    }

    /// What the operator is told.
    pub(crate) async fn listed(&self) -> Vec<Volume> {
        let listing = NodeAdminClient::new(self.channel.clone()).list_volumes(ListVolumesRequest {}).await;
        listing.unwrap().into_inner().volumes
    }

    /// A pod's volume of class `db`, with a token that lasts.
    pub(crate) fn pod(&self, namespace: &str, uid: &str) -> Publish {
        let pod =
            Pod { name: "web-0".into(), namespace: namespace.into(), uid: uid.into(), service_account: "app".into() };
        with_token(Publish::new(&self.mounts.pods(), pod, "secrets").attribute("secretVolume", "db"), FAR)
    }

    pub(crate) async fn send(&self, request: NodePublishVolumeRequest) -> Result<(), Status> {
        in_time(self.client().node_publish_volume(request)).await
    }

    pub(crate) async fn publish(&self, volume: &Publish) -> Result<(), Status> {
        self.send(volume.request()).await
    }

    pub(crate) async fn unpublish(&self, volume: &Publish) -> Result<(), Status> {
        in_time(self.client().node_unpublish_volume(leave(volume))).await
    }

    /// Two files of one generation, and nothing of any other sort: what a pod has to see or not see.
    pub(crate) fn assert_whole(&self, volume: &Publish, password: &str) {
        assert_eq!(read(volume, "username").as_deref(), Some("app"));
        assert_eq!(read(volume, "password").as_deref(), Some(password));
    }

    /// No mount, folder, record, entry or reserved memory.
    pub(crate) fn assert_nothing_left(&self, volume: &Publish) {
        assert!(fs::symlink_metadata(volume.target_path()).is_err(), "a mount is left");
        assert_eq!(self.mounts.volumes(), 0, "a volume is left");
        assert!(self.mounts.records().is_empty(), "a record is left");
        assert!(self.plugin.volumes.live().is_empty(), "an entry is left");
        assert_eq!(self.plugin.budget.reserved(), 0, "memory is left");
    }

    /// Whether so many refreshes ended in this way.
    pub(crate) fn refreshed(&self, outcome: &str, times: u64) -> bool {
        self.counts(&format!("evanesce_refreshes_total{{outcome=\"{outcome}\"}} {times}"))
    }

    /// What a metric without labels says.
    pub(crate) fn gauge(&self, name: &str) -> f64 {
        let metrics = self.metrics.encode();
        let line = metrics.lines().find(|line| line.starts_with(&format!("evanesce_{name}{{}} ")));
        line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap()
    }

    /// Whether this sample is among the metrics.
    pub(crate) fn counts(&self, sample: &str) -> bool {
        self.metrics.encode().lines().any(|line| line == sample)
    }
}

/// A node with a pod that has its volume.
pub(crate) async fn published() -> (Node, Publish) {
    let node = Node::new().await;
    let pod = node.pod("payments", "pod-1");
    node.publish(&pod).await.unwrap();
    (node, pod)
}

/// The same, with files that come with a lease of this length. Its class asks every five minutes, without jitter.
pub(crate) async fn leased(lease: Duration) -> (Node, Publish) {
    let node = Node::new().await;
    node.backend.lease("kv/db", lease);
    let pod = node.pod("payments", "pod-1");
    node.publish(&pod).await.unwrap();
    (node, pod)
}

/// A call that ends at kubelet's own deadline: a test that waits for nothing fails, and does not hang.
async fn in_time<T>(call: impl Future<Output = Result<T, Status>>) -> Result<(), Status> {
    let late = |_| Err(Status::deadline_exceeded("kubelet's deadline passed"));
    tokio::time::timeout(kubelet::CALL_TIMEOUT, call).await.unwrap_or_else(late).map(drop)
}

/// An expiry that no test reaches.
pub(crate) const FAR: &str = "2130-01-01T00:00:00Z";

pub(crate) fn with_token(volume: Publish, expires: &str) -> Publish {
    volume.tokens(&[Token { audience: "fake", token: "t0ken", expires }], TokensIn::Secrets)
}

pub(crate) fn leave(volume: &Publish) -> NodeUnpublishVolumeRequest {
    NodeUnpublishVolumeRequest {
        volume_id: volume.volume_id().to_owned(),
        target_path: volume.target_path().to_str().unwrap().to_owned(),
    }
}

/// A file of the volume, as its pod reads it.
pub(crate) fn read(volume: &Publish, file: &str) -> Option<String> {
    fs::read_to_string(volume.target_path().join(file)).ok()
}

/// The generations that are there, and the one that is shown.
pub(crate) fn generations(volume: &Publish) -> (Vec<String>, String) {
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let entries = fs::read_dir(volume.target_path()).unwrap().map(|entry| name(&entry.unwrap().path()));
    let mut there: Vec<_> = entries.filter(|name| name.starts_with("..g")).collect();
    there.sort();
    (there, name(&fs::read_link(volume.target_path().join("..data")).unwrap()))
}

/// The code of an answer.
pub(crate) fn code<T>(result: Result<T, Status>) -> Code {
    result.map_or_else(|status| status.code(), |_| Code::Ok)
}

/// Waits for a condition while time stands still.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        tokio::task::yield_now().await;
    }
}

/// Lets everything run that can run while time stands still: for what must not happen.
pub(crate) async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

async fn connect(service: NodeService, admin: AdminService) -> Channel {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let incoming = futures_util::stream::iter([std::io::Result::Ok(theirs)]).chain(futures_util::stream::pending());
    // Callers that leave are many in some tests: as many as an attack would bring, which is not what they are about.
    let mut server = Server::builder().http2_max_pending_accept_reset_streams(Some(1 << 20));
    let server = server.add_service(NodeServer::new(service)).add_service(NodeAdminServer::new(admin));
    tokio::spawn(server.serve_with_incoming(incoming));
    let mut ours = Some(ours);
    let connect = tower::service_fn(move |_| {
        let stream = ours.take().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected));
        std::future::ready(stream.map(TokioIo::new))
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connect).await.unwrap()
}
