// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Who received what, and who asked: auditors can tell, whatever was shared.

use std::collections::BTreeMap;
use std::time::Duration;

use evanesce_engine::audit::{Event, Source};
use evanesce_engine::backend::fake::FakeBackend;

use crate::one_fetch::ground::{Ask, Node, until};

fn of(volume: &str, fake: &FakeBackend) -> Ask {
    Ask::of(fake, &["db"]).but(|ask| ask.volume = volume.into())
}

/// By volume: whether it logged in, and where its answer came from with the backend's name for the request.
type Told = BTreeMap<String, (usize, Vec<(Source, String)>)>;

fn told(node: &Node) -> Told {
    let mut told = Told::new();
    for event in node.auditor.events() {
        match event {
            Event::LoggedIn { subject, .. } => told.entry(subject.volume).or_default().0 += 1,
            Event::Fetched { subject, source, request_id, secret, endpoint, .. } => {
                assert_eq!(secret.version.unwrap().as_str(), "1");
                assert_eq!(endpoint.unwrap().0, "fake.example");
                told.entry(subject.volume).or_default().1.push((source, request_id.unwrap()));
            }
            _ => {}
        }
    }
    told
}

fn store() -> FakeBackend {
    let fake = FakeBackend::new("store");
    fake.put("db", &[("a", "1")]);
    fake.delay(Duration::from_secs(1));
    fake
}

#[tokio::test(start_paused = true)]
async fn each_volume_has_its_own_event_which_says_whose_question_it_was() {
    let (fake, node) = (store(), Node::new());
    let first = node.begin(&of("first", &fake));
    until(|| fake.counts().logins == 1).await;
    let second = node.begin(&of("second", &fake));
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    node.ask(&of("third", &fake)).await.unwrap();
    let request = "fake-1".to_owned();
    let expected = [
        ("first", (1, vec![(Source::Asked, request.clone())])),
        ("second", (0, vec![(Source::Shared, request.clone())])),
        ("third", (0, vec![(Source::Reused, request)])),
    ];
    assert_eq!(told(&node), expected.map(|(volume, told)| (volume.to_owned(), told)).into());
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_is_in_the_log_also_if_its_asker_left() {
    let (fake, node) = (store(), Node::new());
    let first = node.begin(&of("first", &fake));
    until(|| fake.counts().logins == 1).await;
    let second = node.begin(&of("second", &fake));
    tokio::task::yield_now().await;
    first.abort();
    second.await.unwrap().unwrap();
    let told = told(&node);
    assert_eq!(told["first"], (1, vec![(Source::Asked, "fake-1".to_owned())]));
    assert_eq!(told["second"], (0, vec![(Source::Shared, "fake-1".to_owned())]));
    assert!(node.auditor.codes().contains(&"cancelled"));
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_was_shared_is_in_the_log_of_each_who_heard_it() {
    let (fake, node) = (store(), Node::new());
    fake.deny("db");
    let all: Vec<_> = (0..3).map(|number| node.begin(&of(&format!("csi-{number}"), &fake))).collect();
    for one in all {
        one.await.unwrap().err().unwrap();
    }
    let failed = |event: &Event| matches!(event, Event::Fetched { outcome, .. } if *outcome != evanesce_engine::audit::Outcome::Success);
    let codes = node.auditor.codes();
    assert_eq!(node.auditor.events().iter().filter(|event| failed(event)).count(), 3);
    assert_eq!(codes.iter().filter(|code| **code == "refused").count(), 3);
    assert_eq!(codes.iter().filter(|code| **code == "login").count(), 1);
}
