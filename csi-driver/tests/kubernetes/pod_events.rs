// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What a pod's owner is told, and how often.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use evanesce_csi::engine_half::metrics::Metrics;
use evanesce_csi::kubernetes::pod_events::{PodEvent, PodEvents, Reporter};
use evanesce_engine::audit::recording::RecordingAuditor;
use evanesce_engine::audit::{Auditor as _, Event, Purpose, Shown, Subject};
use evanesce_engine::clock::SystemClock;
use evanesce_engine::error::Kind;
use evanesce_engine::names::{BackendName, Namespace, NodeName, PodName, PodUid, ServiceAccountName, VolumeClassName};
use evanesce_engine::secret::Version;
use evanesce_engine::workload::Workload;

use crate::fake_api::{FakeApi, Mood, until};

const REFUSAL: &str =
    "service account payments/guest may not read kv/payments/db from backend vault: ask for an entry in its `allow`";

fn subject(pod: &str) -> Subject {
    Subject {
        volume: "csi-1".to_owned(),
        workload: Workload {
            namespace: Namespace::parse("payments").unwrap(),
            service_account: ServiceAccountName::parse("guest").unwrap(),
            pod: PodName::parse(pod).unwrap(),
            pod_uid: PodUid::parse(&format!("uid-of-{pod}")).unwrap(),
            node: NodeName::parse("node-1").unwrap(),
        },
        class: VolumeClassName::parse("db").unwrap(),
    }
}

fn refused(pod: &str, message: &str) -> Event {
    Event::Refused {
        subject: Some(subject(pod)),
        purpose: Some(Purpose::First),
        volume: None,
        kind: Kind::Refused,
        message: message.to_owned(),
    }
}

fn failed(purpose: Purpose, kind: Kind) -> Event {
    Event::Failed { subject: subject("web-0"), purpose, kind, message: "backend vault cannot be reached".to_owned() }
}

fn shown(path: &str, version: u64) -> Shown {
    Shown {
        backend: BackendName::parse("vault").unwrap(),
        path: path.to_owned(),
        version: Some(Version::new(version)),
        ends: false,
    }
}

fn start(api: &FakeApi) -> (PodEvents, Arc<RecordingAuditor>) {
    let log = Arc::new(RecordingAuditor::default());
    let reporter = Reporter { driver: "csi.evanesce.dev".to_owned(), node: "node-1".to_owned() };
    let metrics = Arc::new(Metrics::declare().0);
    (PodEvents::start(Arc::clone(&log) as _, api.client(), reporter, Arc::new(SystemClock), metrics), log)
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_event_of_the_pod_in_the_words_of_the_status() {
    let api = FakeApi::new();
    let (events, log) = start(&api);
    events.record(refused("web-0", REFUSAL));
    until("the event", || api.bodies().len() == 1).await;
    let event = &api.bodies()[0];
    assert_eq!(event["note"], REFUSAL);
    assert_eq!((&event["type"], &event["reason"]), (&"Warning".into(), &"SecretsRefused".into()));
    assert_eq!((&event["regarding"]["kind"], &event["regarding"]["uid"]), (&"Pod".into(), &"uid-of-web-0".into()));
    assert_eq!(event["metadata"]["namespace"], "payments");
    assert_eq!(
        (&event["reportingController"], &event["reportingInstance"]),
        (&"csi.evanesce.dev".into(), &"node-1".into())
    );
    assert!(
        api.requests()[0].starts_with("POST /apis/events.k8s.io/v1/namespaces/payments/events"),
        "{:?}",
        api.requests()
    );
    assert_eq!(log.events(), [refused("web-0", REFUSAL)], "the audit has it too");
}

#[tokio::test(start_paused = true)]
async fn the_same_again_is_counted_on_the_event_that_is_there() {
    let api = FakeApi::new();
    let (events, log) = start(&api);
    for _ in 0..10 {
        events.record(refused("web-0", REFUSAL));
        tokio::time::sleep(Duration::from_secs(25)).await;
    }
    assert_eq!(api.requests().len(), 1, "within five minutes it is said once");
    tokio::time::sleep(Duration::from_secs(60)).await;
    events.record(refused("web-0", REFUSAL));
    until("the count", || api.requests().len() == 2).await;
    let name = api.bodies()[0]["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(api.requests()[1].starts_with("PATCH") && api.requests()[1].contains(&name), "{:?}", api.requests());
    assert_eq!(api.bodies()[1]["series"]["count"], 11);
    assert_eq!(log.events().len(), 11, "the audit has each");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_could_not_be_written_is_tried_with_the_next() {
    let api = FakeApi::new();
    api.set(Mood::Refuses(403));
    let (events, _) = start(&api);
    events.record(refused("web-0", REFUSAL));
    until("the try", || api.requests().len() == 1).await;
    api.set(Mood::Answers);
    events.record(refused("web-0", REFUSAL));
    until("the event", || api.bodies().len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_api_server_holds_up_neither_the_audit_nor_a_delivery() {
    let api = FakeApi::new();
    api.set(Mood::Silent);
    let (events, log) = start(&api);
    for number in 0..1000 {
        events.record(refused(&format!("web-{number}"), REFUSAL));
    }
    assert_eq!(log.events().len(), 1000);
}

#[test]
fn each_event_of_the_audit_is_said_to_whom_it_helps_and_no_other_is() {
    let says = |event: &Event| PodEvent::of(event).map(|(_, said)| (said.reason.as_str(), said.note));
    let (first, refresh) = (Purpose::First, Purpose::Refresh);
    let unreachable = "backend vault cannot be reached".to_owned();
    assert_eq!(says(&failed(first, Kind::Unavailable)), Some(("SecretsUnavailable", unreachable.clone())));
    let stays = format!("SecretVolume db: the files stay as they are: {unreachable}");
    assert_eq!(says(&failed(refresh, Kind::Unavailable)), Some(("SecretsStale", stays)));
    for kind in [Kind::Busy, Kind::Cancelled] {
        assert_eq!(says(&failed(first, kind)), None, "it mends itself");
    }
    let (before, after) =
        (vec![shown("kv/data/a", 1), shown("kv/data/b", 3)], vec![shown("kv/data/a", 2), shown("kv/data/b", 3)]);
    let rotated = Event::Refreshed { subject: subject("web-0"), generation: 4, before, after };
    let text = "SecretVolume db: new files are in place (generation 4): kv/data/a at version 2";
    assert_eq!(says(&rotated), Some(("SecretsRotated", text.to_owned())));
    assert_eq!(says(&Event::Cancelled { subject: subject("web-0"), purpose: first }), None);
    let unparsed =
        Event::Refused { subject: None, purpose: None, volume: None, kind: Kind::Invalid, message: String::new() };
    assert_eq!(says(&unparsed), None, "whose pod it is was not understood");
    let (_, long) = says(&refused("web-0", &"ü".repeat(600))).unwrap();
    assert!(long.len() < 1024 && long.ends_with('…'));
}
