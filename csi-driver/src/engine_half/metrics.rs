// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What the engine half counts. Every name is declared here, once; `docs/reference/metrics.md` is generated from it.

pub mod leases;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use evanesce_engine::audit::Source;
use evanesce_engine::backend::vault::PassedOver;
use evanesce_engine::class_dir::Counts;
use evanesce_engine::clock::Clock;
use evanesce_engine::deliver::Delivered;
use evanesce_engine::error::{Error, Kind};
use evanesce_engine::fetch::{Meter, Wait};
use evanesce_engine::lease::ledger::Became;
use evanesce_runtime::label;
use evanesce_runtime::metrics::{self as declared, Counter, Gauge, Histogram, Label, Unit};

use crate::engine_half::volumes::Volumes;
use crate::protocol::Reduced;

/// Upper bounds in seconds: from a republish, which only takes tokens, to kubelet's own deadline.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 120.0];

label! {
    /// Which call kubelet made.
    pub enum Call("call") {
        /// `NodePublishVolume`.
        Publish = "publish",
        /// `NodeUnpublishVolume`.
        Unpublish = "unpublish",
    }
}

label! {
    /// Which kind of backend.
    pub enum Backend("backend") {
        /// AWS Secrets Manager.
        Aws = "aws",
        /// age-encrypted files.
        Sealed = "sealed",
        /// OpenBao or HashiCorp Vault.
        Vault = "vault",
    }
}

label! {
    /// Where a request to a backend is.
    pub enum Stage("stage") {
        /// It waits for the end of a probe of its backend, which is left alone.
        Paused = "paused",
        /// It waits for its time (`limits.requestsPerSecond`).
        Paced = "paced",
        /// It was sent and is not answered yet.
        UnderWay = "under_way",
        /// It waits for a free place (`limits.parallelPerNode`).
        Waiting = "waiting",
    }
}

label! {
    /// What a probe found.
    pub enum Probed("outcome") {
        /// It did not answer.
        Away = "away",
        /// It answers.
        Back = "back",
    }
}

label! {
    /// Where a delivery's answer came from.
    pub enum AnswerSource("source") {
        /// It asked the backend.
        Asked = "asked",
        /// The backend is away, and it was the last one.
        Remembered = "remembered",
        /// It was kept from another delivery.
        Reused = "reused",
        /// It waited for another delivery's question.
        Shared = "shared",
    }
}

label! {
    /// How something ended.
    pub enum Outcome("outcome") {
        /// As it should.
        Ok = "ok",
        /// Nothing had changed.
        Unchanged = "unchanged",
        /// See [`Kind::Busy`].
        Busy = "busy",
        /// See [`Kind::Cancelled`].
        Cancelled = "cancelled",
        /// See [`Kind::Conflict`].
        Conflict = "conflict",
        /// See [`Kind::Exhausted`].
        Exhausted = "exhausted",
        /// See [`Kind::Internal`].
        Internal = "internal",
        /// See [`Kind::Invalid`].
        Invalid = "invalid",
        /// See [`Kind::Malformed`].
        Malformed = "malformed",
        /// See [`Kind::Missing`].
        Missing = "missing",
        /// See [`Kind::NotReady`].
        NotReady = "not_ready",
        /// See [`Kind::Refused`].
        Refused = "refused",
        /// See [`Kind::Throttled`].
        Throttled = "throttled",
        /// See [`Kind::TimedOut`].
        TimedOut = "timed_out",
        /// See [`Kind::Unauthenticated`].
        Unauthenticated = "unauthenticated",
        /// See [`Kind::Unavailable`].
        Unavailable = "unavailable",
    }
}

impl From<Kind> for Outcome {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Busy => Self::Busy,
            Kind::Cancelled => Self::Cancelled,
            Kind::Conflict => Self::Conflict,
            Kind::Exhausted => Self::Exhausted,
            Kind::Internal => Self::Internal,
            Kind::Invalid => Self::Invalid,
            Kind::Malformed => Self::Malformed,
            Kind::Missing => Self::Missing,
            Kind::NotReady => Self::NotReady,
            Kind::Refused => Self::Refused,
            Kind::Throttled => Self::Throttled,
            Kind::TimedOut => Self::TimedOut,
            Kind::Unauthenticated => Self::Unauthenticated,
            Kind::Unavailable => Self::Unavailable,
        }
    }
}

label! {
    /// What became of an event about a pod.
    pub enum Written("outcome") {
        /// It was written.
        Created = "created",
        /// It was counted on one that says the same.
        Counted = "counted",
        /// There were too many.
        Dropped = "dropped",
        /// The API server did not take it.
        Failed = "failed",
    }
}

label! {
    /// Which kind of class.
    pub enum Class("kind") {
        /// `SecretBackend`.
        Backend = "backend",
        /// `SecretVolume`.
        Volume = "volume",
    }
}

label! {
    /// Which of a backend's addresses.
    pub enum Address("address") {
        /// The first of the list.
        First = "1",
        /// The second.
        Second = "2",
        /// The third.
        Third = "3",
        /// The fourth.
        Fourth = "4",
        /// The fifth.
        Fifth = "5",
        /// The sixth.
        Sixth = "6",
        /// The seventh.
        Seventh = "7",
        /// The eighth, which is the last there may be.
        Eighth = "8",
    }
}

label! {
    /// What kept values live in.
    pub enum Memory("memory") {
        /// Pages that root cannot read.
        Secret = "secret",
        /// Pages that are not swapped or dumped.
        Locked = "locked",
        /// Ordinary pages.
        Plain = "plain",
    }
}

/// The engine half's metrics.
pub struct Metrics {
    calls: Counter<(Call, Outcome)>,
    call_seconds: Histogram<(Call,)>,
    refreshes: Counter<(Outcome,)>,
    peers_refused: Counter<()>,
    backend_requests: Gauge<(Backend, Stage)>,
    answers: Counter<(Backend, AnswerSource)>,
    left_alone: Gauge<(Backend,)>,
    held_back: Counter<(Backend,)>,
    probes: Counter<(Backend, Probed)>,
    last_refresh: Gauge<()>,
    class_watch_failures: Counter<()>,
    pod_events: Counter<(Written,)>,
    leases: leases::Counters,
}

/// What scrapes look at.
pub struct Scraped {
    /// The volumes.
    pub volumes: Arc<Volumes>,
    /// Bytes of tmpfs that are reserved.
    pub reserved: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Audit events that were lost.
    pub audit_lost: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Whether the audit log is written.
    pub audit_healthy: Box<dyn Fn() -> bool + Send + Sync>,
    /// The classes.
    pub classes: Box<dyn Fn() -> Counts + Send + Sync>,
    /// Addresses of backends that were passed over.
    pub passed_over: Arc<PassedOver>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl Metrics {
    /// Declares the metrics, in their registry.
    pub fn declare() -> (Self, declared::Metrics) {
        let mut all = declared::Metrics::new("evanesce");
        let metrics = Self {
            calls: all.counter("csi_calls", "Calls of kubelet's, by how they ended"),
            call_seconds: all.histogram("csi_call", "How long kubelet's calls took", Unit::Seconds, SECONDS),
            refreshes: all.counter("refreshes", "Refreshes of live volumes, by how they ended"),
            peers_refused: all.counter("peers_refused", "Connections of processes that are not root's, sent away"),
            backend_requests: all.gauge("backend_requests", "Requests to backends that are not answered yet", None),
            answers: all.counter("answers", "Backends' answers that deliveries got, by who had asked"),
            left_alone: all.gauge(
                "backends_left_alone",
                "Backends that did not answer several times in a row and are only probed now and then",
                None,
            ),
            held_back: all.counter(
                "backend_requests_held_back",
                "Requests that were not sent, because their backend is left alone",
            ),
            probes: all.counter("backend_probes", "Requests that asked whether a backend that is left alone is back"),
            last_refresh: all.gauge(
                "last_refresh_timestamp",
                "When a refresh last succeeded, in Unix time; 0 before the first",
                Some(Unit::Seconds),
            ),
            class_watch_failures: all.counter(
                "class_watch_failures",
                "Times a class could not be watched at the API server; what is known of it counts on",
            ),
            pod_events: all.counter("pod_events", "Events about pods, by what became of them"),
            leases: leases::Counters::declare(&mut all),
        };
        // There from the start, so that an alert can tell "never" from "not asked".
        metrics.last_refresh.set((), 0.0);
        for backend in Backend::ALL {
            Stage::ALL.iter().for_each(|stage| metrics.backend_requests.set((*backend, *stage), 0.0));
            metrics.left_alone.set((*backend,), 0.0);
        }
        (metrics, all)
    }

    /// Declares what is only looked at when somebody scrapes.
    pub fn look_at(all: &mut declared::Metrics, scraped: Scraped) {
        let volumes = all.gauge::<()>("volumes", "Volumes that pods can read", None);
        let stale = all.gauge::<()>(
            "volumes_stale",
            "Volumes whose last refresh failed; their pods keep the last good files",
            None,
        );
        let too_stale = all.gauge::<()>(
            "volumes_too_stale",
            "Volumes whose files are older than `maxStale` of their class: marked or removed, as `onStale` says",
            None,
        );
        let stalest = all.gauge::<()>(
            "volumes_stalest",
            "How long ago the volume that is stale for the longest was fresh; 0 without one",
            Some(Unit::Seconds),
        );
        let reserved = all.gauge::<()>("tmpfs_reserved", "Memory that volumes may take", Some(Unit::Bytes));
        let lost = all.gauge::<()>("audit_events_lost", "Audit events that could not be written since the start", None);
        let healthy = all.gauge::<()>("audit_healthy", "Whether every audit sink took its last line: 1, or 0", None);
        let classes = all.gauge::<(Class,)>("classes", "Classes that can be used", None);
        let problems = all.gauge::<()>(
            "class_problems",
            "What is wrong with classes: files or documents that cannot be read, names that are used twice",
            None,
        );
        let passed_over = all.gauge::<(Address,)>(
            "backend_addresses_passed_over",
            "How often a backend's address did not answer and the next one was asked, by its place in the class's list",
            None,
        );
        all.before_encode(move || {
            let live = scraped.volumes.live();
            let now = scraped.clock.monotonic();
            let since: Vec<_> = live.iter().filter_map(|volume| volume.freshness.stale()).map(|it| it.since).collect();
            let longest = since.iter().flatten().map(|since| now.saturating_duration_since(*since)).max();
            volumes.set((), count(live.len() as u64));
            stale.set((), count(since.len() as u64));
            too_stale.set((), count(live.iter().filter(|it| it.freshness.too_old().is_some()).count() as u64));
            stalest.set((), longest.unwrap_or_default().as_secs_f64());
            reserved.set((), count((scraped.reserved)()));
            lost.set((), count((scraped.audit_lost)()));
            healthy.set((), f64::from(u8::from((scraped.audit_healthy)())));
            let counts = (scraped.classes)();
            classes.set((Class::Backend,), count(counts.backends as u64));
            classes.set((Class::Volume,), count(counts.volumes as u64));
            problems.set((), count(counts.problems as u64));
            for (address, times) in Address::ALL.iter().zip(scraped.passed_over.counts()) {
                passed_over.set((*address,), count(times));
            }
        });
    }

    /// Declares what this node lacks and what it has, and how often its engine half died.
    pub fn node(all: &mut declared::Metrics, restarts: u64, reduced: &[Reduced], memory: Memory) {
        let ended =
            all.counter::<()>("restarts", "How often this half was started again since the start of the other one");
        ended.add((), restarts);
        let lacks = all.gauge::<(Reduced,)>(
            "protection_missing",
            "Protections that this node does not give: 1 where it lacks one",
            None,
        );
        for protection in Reduced::ALL {
            lacks.set((*protection,), f64::from(u8::from(reduced.contains(protection))));
        }
        let has = all.gauge::<(Memory,)>("kept_memory_info", "What tokens and other kept values live in", None);
        has.set((memory,), 1.0);
    }

    /// A call of kubelet's ended.
    pub fn called<T>(&self, call: &str, result: &Result<T, Error>, took: Duration) {
        let call = if call == "publish" { Call::Publish } else { Call::Unpublish };
        let outcome = result.as_ref().err().map_or(Outcome::Ok, |error| error.kind().into());
        self.calls.inc((call, outcome));
        self.call_seconds.observe((call,), took.as_secs_f64());
    }

    /// A refresh ended.
    pub fn refreshed(&self, result: &Result<Delivered, Error>, now: SystemTime) {
        let outcome = match result {
            Ok(Delivered { placed: Some(_), .. }) => Outcome::Ok,
            Ok(Delivered { placed: None, .. }) => Outcome::Unchanged,
            Err(error) => error.kind().into(),
        };
        self.refreshes.inc((outcome,));
        if result.is_ok() {
            self.last_refresh.set((), now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        }
    }

    /// A class could not be watched.
    pub fn class_watch_failed(&self) {
        self.class_watch_failures.inc(());
    }

    /// An event about a pod was written, or was not.
    pub fn pod_event(&self, written: Written) {
        self.pod_events.inc((written,));
    }

    /// A connection was sent away.
    pub fn peer_refused(&self) {
        self.peers_refused.inc(());
    }
}

impl Meter for Metrics {
    fn waiting(&self, kind: &'static str, wait: Wait, more: i32) {
        let stage = match wait {
            Wait::Probe => Stage::Paused,
            Wait::Rate => Stage::Paced,
            Wait::Turn => Stage::Waiting,
        };
        self.requests(kind, stage, more);
    }

    fn under_way(&self, kind: &'static str, more: i32) {
        self.requests(kind, Stage::UnderWay, more);
    }

    fn answered(&self, kind: &'static str, source: Source) {
        let Some(backend) = backend(kind) else { return };
        let source = match source {
            Source::Asked => AnswerSource::Asked,
            Source::Remembered => AnswerSource::Remembered,
            Source::Reused => AnswerSource::Reused,
            Source::Shared => AnswerSource::Shared,
        };
        self.answers.inc((backend, source));
    }

    fn left_alone(&self, kind: &'static str, more: i32) {
        if let Some(backend) = backend(kind) {
            self.left_alone.add((backend,), more.into());
        }
    }

    fn held_back(&self, kind: &'static str) {
        if let Some(backend) = backend(kind) {
            self.held_back.inc((backend,));
        }
    }

    fn probed(&self, kind: &'static str, is_back: bool) {
        let probed = if is_back { Probed::Back } else { Probed::Away };
        if let Some(backend) = backend(kind) {
            self.probes.inc((backend, probed));
        }
    }

    fn leased(&self, kind: &str, became: Became) {
        self.leases.leased(kind, became);
    }
}

impl Metrics {
    fn requests(&self, kind: &'static str, stage: Stage, more: i32) {
        if let Some(backend) = backend(kind) {
            self.backend_requests.add((backend, stage), more.into());
        }
    }
}

/// Labels come from a closed list: a kind that is not in it is one of a test.
fn backend(kind: &str) -> Option<Backend> {
    Backend::ALL.iter().copied().find(|backend| backend.as_str() == kind)
}

/// Counts are exact up to 2^53.
fn count(number: u64) -> f64 {
    number as f64
}
