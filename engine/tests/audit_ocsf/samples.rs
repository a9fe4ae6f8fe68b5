// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Every kind of entry, with each outcome, with and without its optional parts.

use std::time::{Duration, SystemTime};

use evanesce_engine::audit::ocsf::{Context, Entry, GapCause, LogEvent, Stamp, encode};
use evanesce_engine::audit::{Event, Outcome, Purpose, Shown, Source, Subject};
use evanesce_engine::backend::{Identity, Login, Principal};
use evanesce_engine::error::Kind;
use evanesce_engine::lease::Cause;
use evanesce_engine::names::{
    BackendName, Namespace, NodeName, PodName, PodUid, ServiceAccountName, ServiceAccountUid, VolumeClassName,
};
use evanesce_engine::secret::Version;
use evanesce_engine::spec::volume::{MaxStale, OnStale};
use evanesce_engine::workload::Workload;
use serde_json::Value;
use uuid::Uuid;

/// Every code that can be on the wire, in the order of the reference page.
pub(crate) const CODES: [&str; 16] = [
    "login",
    "fetch",
    "mount",
    "offline",
    "refresh",
    "too_stale",
    "fresh_again",
    "unmount",
    "revoke",
    "leases_lost",
    "refused",
    "failed",
    "cancelled",
    "audit_start",
    "audit_stop",
    "audit_gap",
];

/// The line of an entry, at a fixed time and with a fixed uid.
pub(crate) fn line(entry: &Entry) -> Vec<u8> {
    let context = Context {
        node: NodeName::parse("node-a").unwrap(),
        program: "evanesce-csi",
        version: "0.1.0",
        log_name: "evanesce-audit",
        pid: 4242,
    };
    // 2026-11-21 12:00:00 UTC.
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_262_400);
    let uid = Uuid::from_u128(0x01a1_fdfa_4600_7000_8000_0000_0000_0001);
    encode(&context, &Stamp { sequence: 7, uid, time }, entry)
}

/// The line of an entry as JSON.
pub(crate) fn json(entry: &Entry) -> Value {
    serde_json::from_slice(&line(entry)).unwrap()
}

/// The sample that the reference page shows for a code: the fullest success, or the fullest at all.
pub(crate) fn example(code: &str) -> Entry {
    all().into_iter().find(|entry| entry.code() == code).unwrap()
}

/// The samples; the first of each code is the page's example.
pub(crate) fn all() -> Vec<Entry> {
    let mut entries: Vec<Entry> = events().into_iter().map(|event| Entry::Event(Box::new(event))).collect();
    for cause in [GapCause::QueueFull, GapCause::SinkFailed] {
        entries.push(Entry::Log(LogEvent::Gap { first: 5, last: 7, cause }));
    }
    entries.push(Entry::Log(LogEvent::Started));
    entries.push(Entry::Log(LogEvent::Stopped));
    entries
}

pub(crate) fn subject() -> Subject {
    Subject {
        volume: "csi-3f2c".into(),
        workload: Workload {
            namespace: Namespace::parse("payments").unwrap(),
            service_account: ServiceAccountName::parse("app").unwrap(),
            pod: PodName::parse("app-0").unwrap(),
            pod_uid: PodUid::parse("6d6f9a52-0c1e-4a7e-9b57-0d6a2d1c7f11").unwrap(),
            node: NodeName::parse("node-a").unwrap(),
        },
        class: VolumeClassName::parse("app-db").unwrap(),
    }
}

pub(crate) fn identity() -> Identity {
    Identity {
        backend: BackendName::parse("vault").unwrap(),
        mount: "kubernetes".into(),
        role: "app".into(),
        audience: "vault".into(),
        caller: Some(Principal {
            namespace: Namespace::parse("payments").unwrap(),
            service_account: ServiceAccountName::parse("app").unwrap(),
            service_account_uid: Some(ServiceAccountUid::parse("0b1c8a6e-5d43-4b0c-8f5e-2f6f0c1d9a77").unwrap()),
            pod_uid: None,
        }),
    }
}

fn nobody() -> Identity {
    let empty = String::new;
    Identity { mount: empty(), role: empty(), audience: empty(), caller: None, ..identity() }
}

fn shown(version: Option<&str>) -> Shown {
    Shown {
        backend: BackendName::parse("vault").unwrap(),
        path: "kv/data/payments/db".into(),
        version: version.map(Version::new),
        ends: false,
    }
}

/// Stops compiling when an event is added, until it has a sample below.
const fn is_sampled(event: &Event) -> bool {
    match event {
        Event::Cancelled { .. }
        | Event::Failed { .. }
        | Event::Fetched { .. }
        | Event::FreshAgain { .. }
        | Event::LeasesLost { .. }
        | Event::LoggedIn { .. }
        | Event::Mounted { .. }
        | Event::Offline { .. }
        | Event::Refreshed { .. }
        | Event::Refused { .. }
        | Event::Revoked { .. }
        | Event::TooStale { .. }
        | Event::Unmounted { .. } => true,
    }
}

fn events() -> Vec<Event> {
    let target = "/var/lib/kubelet/pods/6d6f9a52-0c1e-4a7e-9b57-0d6a2d1c7f11/volumes/kubernetes.io~csi/secrets/mount";
    let mut events = vec![
        Event::Mounted {
            subject: subject(),
            target: target.into(),
            files: vec!["username".into(), "password".into()],
            secrets: vec![shown(Some("7"))],
            options: ["ro", "nosuid", "nodev", "noexec", "noswap", "size=1048576"].map(str::to_owned).into(),
        },
        Event::Mounted {
            subject: subject(),
            target: "/".into(),
            files: Vec::new(),
            secrets: Vec::new(),
            options: Vec::new(),
        },
        Event::Refreshed {
            subject: subject(),
            generation: 2,
            before: vec![shown(Some("7"))],
            after: vec![shown(Some("8"))],
        },
        Event::Refreshed { subject: subject(), generation: 2, before: Vec::new(), after: vec![shown(None)] },
        Event::Unmounted { subject: Some(subject()), volume: "csi-3f2c".into(), target: target.into() },
        Event::TooStale {
            subject: subject(),
            limit: MaxStale { after: Duration::from_secs(3600), then: OnStale::Mark },
            generation: 2,
            kind: Kind::Unavailable,
            message: "backend vault cannot be reached for kv/payments/db; it is tried again".into(),
        },
        Event::TooStale {
            subject: subject(),
            limit: MaxStale { after: Duration::from_secs(3600), then: OnStale::Remove },
            generation: 3,
            kind: Kind::Refused,
            message: String::new(),
        },
        Event::Offline {
            subject: subject(),
            age: Duration::from_secs(312),
            message: "backend vault cannot be reached for a login; it is tried again".into(),
        },
        Event::FreshAgain { subject: subject(), generation: 2 },
        Event::LeasesLost { groups: 3 },
        Event::Unmounted { subject: None, volume: "csi-3f2c".into(), target: target.into() },
    ];
    let ends = Kind::ALL.into_iter().map(Outcome::Failure);
    for outcome in std::iter::once(Outcome::Success).chain(ends) {
        let endpoint = || Some(("vault.example".to_owned(), 8200));
        events.push(Event::Revoked {
            subject: subject(),
            identity: identity(),
            group: "9f0c1a52b7e64d0f8a3b5c6d7e8f9012".into(),
            leases: 2,
            cause: Cause::Replaced,
            outcome: outcome.clone(),
        });
        events.push(Event::Fetched {
            subject: subject(),
            identity: identity(),
            secret: shown(Some("7")),
            source: Source::Asked,
            request_id: Some("3f7a2c1e-9f0d-4c5e-8a57-2f0c1b9d4e60".into()),
            ttl: Some(Duration::from_secs(3600)),
            endpoint: endpoint(),
            outcome: outcome.clone(),
        });
        events.push(Event::Fetched {
            subject: subject(),
            identity: nobody(),
            secret: shown(None),
            source: Source::Reused,
            request_id: None,
            ttl: None,
            endpoint: None,
            outcome: outcome.clone(),
        });
        events.push(Event::LoggedIn {
            subject: subject(),
            identity: identity(),
            login: Login {
                performed: true,
                method: "kubernetes",
                endpoint: endpoint(),
                request_id: Some("b0a7c6de-1d52-4f7b-8d3e-90c7a1f2e345".into()),
                ttl: Some(Duration::from_secs(600)),
            },
            outcome: outcome.clone(),
        });
        events.push(Event::LoggedIn {
            subject: subject(),
            identity: nobody(),
            login: Login { endpoint: Some(("::1".into(), 8200)), ..Login::default() },
            outcome: outcome.clone(),
        });
        events.push(Event::LoggedIn { subject: subject(), identity: nobody(), login: Login::default(), outcome });
    }
    for kind in Kind::ALL {
        let volume = || Some("csi-3f2c".to_owned());
        let message = "service account payments/app may not read kv/other/db from backend vault";
        events.push(Event::Refused {
            subject: Some(subject()),
            purpose: Some(Purpose::First),
            volume: volume(),
            kind: Kind::Refused,
            message: message.into(),
        });
        for (subject, volume) in [(None, volume()), (None, None)] {
            events.push(Event::Refused { subject, purpose: None, volume, kind, message: String::new() });
        }
        for purpose in [Purpose::First, Purpose::Refresh] {
            events.push(Event::Failed {
                subject: subject(),
                purpose,
                kind: if purpose == Purpose::First { Kind::Unavailable } else { kind },
                message: "backend vault cannot be reached for kv/payments/db; it is tried again".into(),
            });
            events.push(Event::Cancelled { subject: subject(), purpose });
        }
    }
    assert!(events.iter().all(is_sampled));
    events
}
