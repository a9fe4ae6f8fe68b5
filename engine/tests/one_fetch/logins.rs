// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! One login for all who ask as one identity at a time, and none that outlives them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use evanesce_engine::backend::BackendErrorKind;
use evanesce_engine::backend::fake::FakeBackend;

use crate::one_fetch::ground::{Ask, Node, until};

fn store() -> FakeBackend {
    let fake = FakeBackend::new("store");
    for number in 0..100 {
        fake.put(&format!("db-{number}"), &[("a", "1")]);
    }
    fake
}

fn ask(fake: &FakeBackend, number: u32) -> Ask {
    Ask::of(fake, &[&format!("db-{number}")])
}

#[tokio::test(start_paused = true)]
async fn a_hundred_volumes_with_different_secrets_make_one_login_which_goes_with_the_last() {
    let (fake, node) = (store(), Node::new());
    fake.delay(Duration::from_millis(10));
    let all: Vec<_> = (0..100).map(|number| node.begin(&ask(&fake, number))).collect();
    for one in all {
        one.await.unwrap().unwrap();
    }
    assert_eq!((fake.counts().logins, fake.counts().fetches), (1, 100));
    until(|| fake.counts().sessions == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_asks_one_thing_after_the_other_logs_in_once() {
    let (fake, node) = (store(), Node::new());
    let mut slow = Ask::of(&fake, &["db-1", "db-2", "db-3", "db-4", "db-5", "db-6", "db-7", "db-8", "db-9"]);
    slow.limits.parallel = 1;
    node.ask(&slow).await.unwrap();
    assert_eq!((fake.counts().logins, fake.counts().batches), (1, 3));
    until(|| fake.counts().sessions == 0).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_finds_everything_there_does_not_log_in() {
    let (fake, node) = (store(), Node::new());
    for _ in 0..3 {
        node.ask(&ask(&fake, 1)).await.unwrap();
    }
    assert_eq!((fake.counts().logins, fake.counts().fetches), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_login_that_something_failed_with_takes_no_newcomers() {
    let (fake, node) = (store(), Node::new());
    fake.delay(Duration::from_secs(1));
    let long: Vec<_> = (0..2).map(|number| node.begin(&ask(&fake, number))).collect();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    fake.fail_next(BackendErrorKind::Denied, None);
    let holder = node.begin(&ask(&fake, 2));
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!((fake.counts().logins, fake.counts().sessions), (1, 1));
    node.ask(&ask(&fake, 3)).await.unwrap();
    assert_eq!(fake.counts().logins, 2);
    for one in long.into_iter().chain([holder]) {
        let _ = one.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_old_takes_no_newcomers_also_where_somebody_always_asks() {
    let (fake, node) = (store(), Node::new());
    fake.delay(Duration::from_secs(20));
    let mut all = Vec::new();
    for number in 0..5 {
        all.push(node.begin(&ask(&fake, number)));
        tokio::time::sleep(Duration::from_secs(9)).await;
    }
    for one in all {
        one.await.unwrap().unwrap();
    }
    // Made at 0 s and answered at 20 s; who comes at 36 s finds it older than the fake's time to live allows.
    assert_eq!((fake.counts().logins, fake.counts().fetches), (2, 5));
}

#[tokio::test(start_paused = true)]
async fn no_more_requests_are_under_way_than_the_node_may_and_the_rest_is_seen_waiting() {
    let (fake, node) = (store(), Node::new());
    fake.hold();
    let handle = ask(&fake, 0).but(|ask| ask.limits.parallel_per_node = 4).handle();
    let all: Vec<_> = (0..20)
        .map(|number| {
            node.begin(&ask(&fake, number).but(|ask| {
                ask.shared_handle = Some(handle.clone());
                ask.account_uid = Some(format!("uid-{number}"));
            }))
        })
        .collect();
    until(|| node.meter.under_way.load(Ordering::Relaxed) == 4).await;
    until(|| node.meter.waiting.load(Ordering::Relaxed) == 16).await;
    fake.release();
    for one in all {
        one.await.unwrap().unwrap();
    }
    assert_eq!(node.meter.most_under_way.load(Ordering::Relaxed), 4);
    assert_eq!(node.meter.under_way.load(Ordering::Relaxed), 0);
    assert_eq!(node.meter.waiting.load(Ordering::Relaxed), 0);
}
