// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Who waits for whom, and what a waiter hears when things go wrong.

use std::time::Duration;

use evanesce_engine::audit::{Purpose, Source};
use evanesce_engine::backend::BackendErrorKind;
use evanesce_engine::backend::fake::FakeBackend;
use evanesce_engine::error::Kind;

use crate::one_fetch::ground::{Ask, Node, until, values};

fn store() -> FakeBackend {
    let fake = FakeBackend::new("store");
    fake.put("db", &[("a", "1")]);
    fake
}

/// A refresh of a volume of the same pod's account.
fn refresh(ask: &Ask) -> Ask {
    ask.but(|ask| ask.purpose = Purpose::Refresh)
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_takes_nobodys_answer_with_them() {
    let (fake, node) = (store(), Node::new());
    fake.delay(Duration::from_secs(1));
    let all: Vec<_> = (0..100).map(|_| node.begin(&Ask::of(&fake, &["db"]))).collect();
    until(|| fake.counts().logins == 1).await;
    // Also the first one, whose question it is.
    for leaver in all.iter().step_by(2) {
        leaver.abort();
    }
    for stayer in all.into_iter().skip(1).step_by(2) {
        assert_eq!(values(stayer.await.unwrap()), ["1"]);
    }
    assert_eq!((fake.counts().logins, fake.counts().fetches), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_question_that_nobody_waits_for_any_more_is_cancelled_and_asked_anew_by_the_next() {
    let (fake, node) = (store(), Node::new());
    fake.hold();
    let all: Vec<_> = (0..10).map(|_| node.begin(&Ask::of(&fake, &["db"]))).collect();
    until(|| fake.counts().logins == 1).await;
    for leaver in all {
        leaver.abort();
        assert!(leaver.await.is_err());
    }
    fake.release();
    assert_eq!(values(node.ask(&Ask::of(&fake, &["db"])).await), ["1"]);
    assert_eq!((fake.counts().logins, fake.counts().fetches, fake.counts().sessions), (2, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_heard_by_all_who_wait_and_forgotten() {
    let (fake, node) = (store(), Node::new());
    node.ask(&Ask::of(&fake, &["other"])).await.err().unwrap();
    let before = fake.counts();
    fake.hold();
    let all: Vec<_> = (0..10).map(|_| node.begin(&Ask::of(&fake, &["db", "other"]))).collect();
    until(|| fake.counts().logins > before.logins).await;
    fake.release();
    for one in all {
        assert_eq!(one.await.unwrap().err().unwrap().kind(), Kind::Missing);
    }
    assert_eq!(fake.counts().fetches - before.fetches, 2);
    node.ask(&Ask::of(&fake, &["other"])).await.err().unwrap();
    assert_eq!(fake.counts().fetches - before.fetches, 3, "a failure was kept");
}

#[tokio::test(start_paused = true)]
async fn an_answer_with_an_end_is_its_askers_alone_also_where_the_backend_had_called_it_shareable() {
    for mistaken in [false, true] {
        let (fake, node) = (store(), Node::new());
        fake.lease("db", Duration::from_secs(3600));
        if mistaken {
            fake.call_shareable("db");
        }
        fake.hold();
        let all: Vec<_> = (0..3).map(|_| node.begin(&Ask::of(&fake, &["db"]))).collect();
        // What is known to lend is asked with a login of its volume's own.
        until(|| fake.counts().logins == if mistaken { 1 } else { 3 }).await;
        fake.release();
        let mut leases = Vec::new();
        for one in all {
            let answers = one.await.unwrap().unwrap().unwrap();
            let secret = answers.secrets.values().next().unwrap();
            leases.push(secret.lease.as_ref().unwrap().id.expose().to_vec());
        }
        leases.sort();
        leases.dedup();
        assert_eq!((leases.len(), fake.counts().fetches), (3, 3), "two volumes have one credential");
        assert_eq!(node.keep.live(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_expires_by_itself_is_not_kept() {
    let (fake, node) = (store(), Node::new());
    fake.expire("db", std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(3600));
    fake.call_shareable("db");
    node.ask(&Ask::of(&fake, &["db"])).await.unwrap();
    assert_eq!(node.keep.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_has_no_answer_that_is_older_than_itself() {
    let (fake, node) = (store(), Node::new());
    let ask = Ask::of(&fake, &["db"]);
    assert_eq!(values(node.ask(&ask).await), ["1"]);
    fake.put("db", &[("a", "2")]);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(values(node.ask(&ask).await), ["1"], "a new pod is served from what is there");
    assert_eq!(values(node.ask(&refresh(&ask)).await), ["2"]);
    assert_eq!(values(node.ask(&ask).await), ["2"], "and then from what is newer");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_does_not_wait_for_a_question_that_was_put_before_it_began() {
    let (fake, node) = (store(), Node::new());
    fake.hold();
    let first = node.begin(&Ask::of(&fake, &["db"]));
    until(|| fake.counts().logins == 1).await;
    tokio::time::advance(Duration::from_millis(1)).await;
    let refreshes: Vec<_> = (0..2).map(|_| node.begin(&refresh(&Ask::of(&fake, &["db"])))).collect();
    tokio::time::sleep(Duration::from_millis(1)).await;
    fake.release();
    for one in refreshes.into_iter().chain([first]) {
        assert_eq!(values(one.await.unwrap()), ["1"]);
    }
    assert_eq!(fake.counts().fetches, 2, "the first delivery's, and one for both refreshes");
    assert_eq!((node.meter.count(Source::Asked), node.meter.count(Source::Shared)), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_before_a_class_was_edited_is_not_used_after_it() {
    let (fake, node) = (store(), Node::new());
    let ask = Ask::of(&fake, &["db"]);
    fake.hold();
    let slow = node.begin(&ask);
    until(|| fake.counts().logins == 1).await;
    let edited = node.begin(&ask.but(|ask| ask.revision = 2));
    until(|| fake.counts().logins == 2).await;
    fake.release();
    assert_eq!(values(slow.await.unwrap()), ["1"]);
    assert_eq!(values(edited.await.unwrap()), ["1"]);
    assert_eq!(fake.counts().fetches, 2);
    fake.put("db", &[("a", "2")]);
    assert_eq!(values(node.ask(&ask.but(|ask| ask.revision = 3)).await), ["2"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_does_not_fail_because_another_one_could_not_prove_itself() {
    let (fake, node) = (store(), Node::new());
    fake.fail_next(BackendErrorKind::Unauthenticated, None);
    fake.hold();
    let all: Vec<_> = (0..10).map(|_| node.begin(&Ask::of(&fake, &["db"]))).collect();
    until(|| fake.counts().logins == 1).await;
    fake.release();
    let mut failed = 0;
    for one in all {
        match one.await.unwrap() {
            Ok(answers) => assert_eq!(values(Ok(answers)), ["1"]),
            Err(error) => {
                assert_eq!(error.kind(), Kind::Unauthenticated);
                failed += 1;
            }
        }
    }
    assert_eq!((failed, fake.counts().logins, fake.counts().fetches), (1, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn pods_of_an_account_that_the_backend_refuses_try_twice_at_most_and_not_each() {
    let (fake, node) = (store(), Node::new());
    fake.fail(BackendErrorKind::Unauthenticated, None);
    fake.hold();
    let all: Vec<_> = (0..100).map(|_| node.begin(&Ask::of(&fake, &["db"]))).collect();
    until(|| fake.counts().logins == 1).await;
    fake.release();
    for one in all {
        assert_eq!(one.await.unwrap().err().unwrap().kind(), Kind::Unauthenticated);
    }
    assert_eq!(fake.counts().logins, 2);
}
