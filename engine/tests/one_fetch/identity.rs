// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Every part of an identity and of a question, swapped alone.

use evanesce_engine::backend::fake::FakeBackend;
use evanesce_engine::names::{Namespace, PodName, PodUid, ServiceAccountName};

use crate::one_fetch::ground::{Ask, Node, values};

type Change = fn(&mut Ask);

/// Each alone makes another question of it, or another asker.
const PARTS: &[(&str, Change)] = &[
    ("backend", |ask| ask.fake = ask.fake.with_name("other")),
    ("class", |ask| ask.revision = 2),
    ("auth mount", |ask| ask.fake = ask.fake.with_mount("other")),
    ("role of the backend", |ask| ask.fake = ask.fake.with_role("other")),
    ("role of the allow entry", |ask| ask.role = Some("other".into())),
    ("audience", |ask| ask.fake = ask.fake.with_audience(Some("other"))),
    ("namespace", |ask| ask.workload.namespace = Namespace::parse("other").unwrap()),
    ("service account", |ask| ask.workload.service_account = ServiceAccountName::parse("other").unwrap()),
    ("service account's uid", |ask| ask.account_uid = Some("other".into())),
    ("path", |ask| ask.paths = vec!["other".into()]),
    ("version", |ask| ask.version = Some(1)),
    ("arguments", |ask| drop(ask.args.insert("a".into(), "b".into()))),
    ("arguments' values", |ask| drop(ask.args.insert("common_name".into(), "other".into()))),
];

/// These alone make no difference to whom the backend sees.
const NO_PARTS: &[(&str, Change)] =
    &[("nothing", |_| ()), ("volume", |ask| ask.volume = "csi-2".into()), ("pod", |ask| another_pod(ask))];

fn another_pod(ask: &mut Ask) {
    ask.workload.pod = PodName::parse("app-1").unwrap();
    ask.workload.pod_uid = PodUid::parse("99999999-2222-3333-4444-555555555555").unwrap();
}

/// How many fetches these two make at the same time, and one after the other.
async fn fetches(one: &Ask, other: &Ask) -> [u64; 2] {
    let fake = &one.fake;
    let before = fake.counts().fetches;
    let node = Node::new();
    fake.hold();
    let both = [node.begin(one), node.begin(other)];
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    fake.release();
    for answers in both {
        assert_eq!(values(answers.await.unwrap()).len(), 1);
    }
    let together = fake.counts().fetches - before;
    let node = Node::new();
    for ask in [one, other] {
        assert_eq!(values(node.ask(ask).await).len(), 1);
    }
    [together, fake.counts().fetches - before - together]
}

fn store() -> FakeBackend {
    let fake = FakeBackend::new("store");
    fake.put("db", &[("a", "1")]);
    fake.put("other", &[("a", "2")]);
    fake
}

#[tokio::test(start_paused = true)]
async fn swapping_any_one_part_alone_makes_two_fetches() {
    for (part, change) in PARTS {
        let one = Ask::of(&store(), &["db"]).but(|ask| drop(ask.args.insert("common_name".into(), "app".into())));
        assert_eq!(fetches(&one, &one.but(change)).await, [2, 2], "{part}");
    }
}

#[tokio::test(start_paused = true)]
async fn callers_whom_the_backend_cannot_tell_apart_make_one_fetch() {
    for (what, change) in NO_PARTS {
        let one = Ask::of(&store(), &["db"]);
        assert_eq!(fetches(&one, &one.but(change)).await, [1, 1], "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn pods_of_one_account_make_two_fetches_where_the_backend_tells_pods_apart() {
    let one = Ask::of(&store().seeing_pods(), &["db"]);
    assert_eq!(fetches(&one, &one.but(another_pod)).await, [2, 2]);
    assert_eq!(fetches(&one, &one).await, [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_shared_where_the_token_does_not_name_the_accounts_uid() {
    let fake = store();
    let one = Ask::of(&fake, &["db"]).but(|ask| ask.account_uid = None);
    assert_eq!(fetches(&one, &one).await, [2, 2]);
    assert_eq!(fake.counts().logins, 4);
}
