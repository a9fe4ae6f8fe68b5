// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What a pod's owner sees with `kubectl describe pod`: the audit's events that are about their pod, in the words of the
//! gRPC status, rate-limited and aggregated.
//!
//! It stands in front of the audit log and hands everything on. Saying waits for nobody: a queue that is full, an API
//! server that is gone or a namespace that is going cost an event, and a metric counts it.

use std::sync::Arc;
use std::time::Duration;

use evanesce_engine::audit::{Auditor, Event, Purpose, Shown, Subject};
use evanesce_engine::clock::Clock;
use evanesce_engine::error::Kind;
use evanesce_engine::spec::volume::OnStale;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as ApiEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tracing::debug;

use crate::engine_half::metrics::{Metrics, Written};
use crate::kubernetes::limiter::{Limiter, Verdict};

/// How many events may wait to be written.
const QUEUE: usize = 256;
/// How long one may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest text of an event, in bytes (`events.k8s.io/v1`, `note`: less than 1 kB).
const LONGEST: usize = 1000;

/// Stands in front of the audit log.
pub struct PodEvents {
    log: Arc<dyn Auditor>,
    queue: mpsc::Sender<(Subject, PodEvent)>,
    metrics: Arc<Metrics>,
}

/// What is said about a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodEvent {
    /// Why, in one word: stable, documented, what alerts look for.
    pub reason: Reason,
    /// What happened and what to do.
    pub note: String,
}

/// Why there is an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The pod starts with files that the node remembered.
    Offline,
    /// Policy, a backend or the class says no: somebody has to change something.
    Refused,
    /// What was too old is fresh again.
    Fresh,
    /// New files took the place of those before.
    Rotated,
    /// The pod runs with files that could not be refreshed.
    Stale,
    /// The pod's files are older than its class allows.
    TooStale,
    /// The pod waits for its files; it is tried again.
    Unavailable,
}

impl Reason {
    /// Every reason, with what it means, for the reference page.
    pub const ALL: [(Self, &'static str); 7] = [
        (
            Self::Refused,
            "The pod's volume is refused: policy, the backend or the class says no. The pod waits; once the cause is mended it starts by itself.",
        ),
        (
            Self::Fresh,
            "What was too old is confirmed or replaced: the mark `..data/..stale` is gone, the files are there.",
        ),
        (
            Self::Offline,
            "The pod started with the last answers that its service account had on this node: a backend cannot be reached.",
        ),
        (Self::Rotated, "New files are in place: which secrets, at which version."),
        (Self::Stale, "The pod's files could not be refreshed; it keeps the last good ones."),
        (
            Self::TooStale,
            "The pod's files are older than `maxStale` of its class: marked by `..data/..stale`, or removed, until the backends answer again.",
        ),
        (Self::Unavailable, "The pod's volume cannot be filled yet; kubelet tries again."),
    ];

    /// As it stands in the event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "SecretsFresh",
            Self::Offline => "SecretsOffline",
            Self::Refused => "SecretsRefused",
            Self::Rotated => "SecretsRotated",
            Self::Stale => "SecretsStale",
            Self::TooStale => "SecretsTooStale",
            Self::Unavailable => "SecretsUnavailable",
        }
    }

    /// As `kubectl` sorts them.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Fresh | Self::Rotated => "Normal",
            Self::Offline | Self::Refused | Self::Stale | Self::TooStale | Self::Unavailable => "Warning",
        }
    }

    /// What the plugin was doing.
    fn action(self) -> &'static str {
        match self {
            Self::Offline | Self::Refused | Self::Unavailable => "Publish",
            Self::Fresh | Self::Rotated | Self::Stale | Self::TooStale => "Refresh",
        }
    }
}

impl PodEvent {
    /// What the owner of the pod should hear of an event of the audit, if anything.
    pub fn of(event: &Event) -> Option<(&Subject, Self)> {
        let (subject, reason, note) = match event {
            // They mend themselves, and kubelet says as much.
            Event::Failed { kind: Kind::Busy | Kind::Cancelled, .. } => return None,
            Event::Failed { subject, purpose: Purpose::First, message, .. } => {
                (subject, Reason::Unavailable, message.clone())
            }
            Event::Refused { subject: Some(subject), purpose: Some(Purpose::First), message, .. } => {
                (subject, Reason::Refused, message.clone())
            }
            Event::Failed { subject, purpose: Purpose::Refresh, message, .. }
            | Event::Refused { subject: Some(subject), purpose: Some(Purpose::Refresh), message, .. } => (
                subject,
                Reason::Stale,
                format!("SecretVolume {}: the files stay as they are: {message}", subject.class),
            ),
            Event::Refreshed { subject, generation, before, after } => {
                (subject, Reason::Rotated, rotated(subject, *generation, before, after))
            }
            Event::TooStale { subject, limit, message, .. } => {
                let (after, done) = (
                    limit.after,
                    match limit.then {
                        OnStale::Mark => "..data/..stale marks them",
                        OnStale::Remove => "they are gone",
                    },
                );
                let note = format!(
                    "SecretVolume {}: no backend has confirmed the files for longer than spec.maxStale ({after:?}), so {done} until one does: {message}",
                    subject.class
                );
                (subject, Reason::TooStale, note)
            }
            Event::Offline { subject, age, message } => {
                let (class, age) = (&subject.class, age.as_secs());
                let note = format!("SecretVolume {class}: started with what the node was told {age} s ago: {message}");
                (subject, Reason::Offline, note)
            }
            Event::FreshAgain { subject, .. } => {
                (subject, Reason::Fresh, format!("SecretVolume {}: the files are fresh again", subject.class))
            }
            Event::Cancelled { .. }
            | Event::Fetched { .. }
            | Event::LoggedIn { .. }
            | Event::Mounted { .. }
            | Event::Refused { .. }
            | Event::LeasesLost { .. }
            | Event::Revoked { .. }
            | Event::Unmounted { .. } => return None,
        };
        Some((subject, Self { reason, note: cut(note) }))
    }
}

/// Which secrets are new.
fn rotated(subject: &Subject, generation: u64, before: &[Shown], after: &[Shown]) -> String {
    let changed = after.iter().filter(|secret| !before.contains(secret)).map(|secret| match &secret.version {
        Some(version) => format!("{} at version {}", secret.path, version.as_str()),
        None => secret.path.clone(),
    });
    let mut changed: Vec<_> = changed.collect();
    changed.dedup();
    let what = if changed.is_empty() { "as the class says now".to_owned() } else { changed.join(", ") };
    format!("SecretVolume {}: new files are in place (generation {generation}): {what}", subject.class)
}

/// At most [`LONGEST`] bytes.
fn cut(mut note: String) -> String {
    if note.len() > LONGEST {
        note.truncate((0..=LONGEST - '…'.len_utf8()).rev().find(|end| note.is_char_boundary(*end)).unwrap_or(0));
        note.push('…');
    }
    note
}

impl PodEvents {
    /// Hands events on to `log`, and those that are about a pod to the API server too.
    pub fn start(
        log: Arc<dyn Auditor>,
        client: Client,
        reporter: Reporter,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (queue, events) = mpsc::channel(QUEUE);
        let writer = Writer { client, reporter, clock, metrics: Arc::clone(&metrics), limiter: Limiter::default() };
        tokio::spawn(writer.run(events));
        Self { log, queue, metrics }
    }
}

impl Auditor for PodEvents {
    fn record(&self, event: Event) {
        if let Some((subject, said)) = PodEvent::of(&event)
            && self.queue.try_send((subject.clone(), said)).is_err()
        {
            self.metrics.pod_event(Written::Dropped);
        }
        self.log.record(event);
    }
}

/// Who says it.
pub struct Reporter {
    /// The driver's name.
    pub driver: String,
    /// The node's.
    pub node: String,
}

struct Writer {
    client: Client,
    reporter: Reporter,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    limiter: Limiter<String, PodEvent>,
}

impl Writer {
    async fn run(mut self, mut events: mpsc::Receiver<(Subject, PodEvent)>) {
        while let Some((subject, event)) = events.recv().await {
            if let Some(written) = self.say(&subject, &event).await {
                self.metrics.pod_event(written);
            }
        }
    }

    async fn say(&mut self, subject: &Subject, event: &PodEvent) -> Option<Written> {
        let pod = subject.workload.pod_uid.to_string();
        let now = Timestamp::try_from(self.clock.now()).unwrap_or(Timestamp::UNIX_EPOCH);
        let name = format!("{}.{:x}", subject.workload.pod, now.as_nanosecond());
        let api = Api::<ApiEvent>::namespaced(self.client.clone(), subject.workload.namespace.as_str());
        let (sent, written) = match self.limiter.judge(&pod, event, &name, self.clock.monotonic()) {
            Verdict::Repeat => return None,
            Verdict::TooMany => return Some(Written::Dropped),
            Verdict::Create => {
                let event = self.event(subject, event, name, MicroTime(now));
                (bounded(api.create(&PostParams::default(), &event)).await, Written::Created)
            }
            Verdict::Count { name, times } => {
                let series = json!({ "series": { "count": times, "lastObservedTime": MicroTime(now) } });
                (bounded(api.patch(&name, &PatchParams::default(), &Patch::Merge(series))).await, Written::Counted)
            }
        };
        match sent {
            Ok(()) => Some(written),
            Err(error) => {
                debug!(error, pod = %subject.workload.pod, reason = event.reason.as_str(), "an event could not be written");
                self.limiter.failed(&pod, event);
                Some(Written::Failed)
            }
        }
    }

    fn event(&self, subject: &Subject, event: &PodEvent, name: String, now: MicroTime) -> ApiEvent {
        let workload = &subject.workload;
        ApiEvent {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(workload.namespace.to_string()),
                ..Default::default()
            },
            action: Some(event.reason.action().to_owned()),
            event_time: Some(now),
            note: Some(event.note.clone()),
            reason: Some(event.reason.as_str().to_owned()),
            regarding: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(workload.pod.to_string()),
                namespace: Some(workload.namespace.to_string()),
                uid: Some(workload.pod_uid.to_string()),
                ..Default::default()
            }),
            reporting_controller: Some(self.reporter.driver.clone()),
            // At most 128 bytes; a node's name is ASCII.
            reporting_instance: Some(self.reporter.node.chars().take(128).collect()),
            type_: Some(event.reason.kind().to_owned()),
            ..Default::default()
        }
    }
}

async fn bounded<T>(sent: impl Future<Output = kube::Result<T>>) -> Result<(), String> {
    match tokio::time::timeout(TIMEOUT, sent).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}
