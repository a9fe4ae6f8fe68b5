// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What a backend that fails, or that is asked much, has to bear.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use evanesce_engine::audit::Purpose;
use evanesce_engine::backend::BackendErrorKind;
use evanesce_engine::backend::fake::FakeBackend;
use evanesce_engine::error::Kind;
use evanesce_engine::fetch::BackendHandle;
use tokio::time::Instant;

use super::ground::{Ask, Node, until};

const PATH: &str = "db";

fn store() -> FakeBackend {
    let fake = FakeBackend::new("store");
    fake.put(PATH, &[("password", "p4ss")]);
    fake
}

/// A delivery of a service account of its own, through the one handle of the backend.
fn ask(fake: &FakeBackend, handle: &Arc<BackendHandle>, number: usize, purpose: Purpose) -> Ask {
    Ask::of(fake, &[PATH]).but(|ask| {
        ask.shared_handle = Some(Arc::clone(handle));
        ask.account_uid = Some(format!("uid-{number}"));
        ask.volume = format!("csi-{number}");
        ask.purpose = purpose;
    })
}

fn handle(fake: &FakeBackend) -> Arc<BackendHandle> {
    Ask::of(fake, &[PATH]).handle()
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_gone_is_asked_a_few_times_a_minute_however_many_volumes_ask() {
    let (fake, node) = (store(), Node::new());
    let handle = handle(&fake);
    fake.fail(BackendErrorKind::Unavailable, None);
    let mut minutes = Vec::new();
    for _ in 0..10 {
        let before = fake.counts().logins;
        for _ in 0..30 {
            for number in 0..20 {
                let error = node.ask(&ask(&fake, &handle, number, Purpose::Refresh)).await.err().unwrap();
                assert_eq!(error.kind(), Kind::Unavailable);
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        minutes.push(fake.counts().logins - before);
    }
    // 600 a minute want to. The first minute has the failures that are borne, and the pauses that are still short.
    assert!(minutes[0] <= 16 && minutes[1..].iter().all(|logins| *logins <= 5), "{minutes:?}");
    assert_eq!(node.meter.left_alone.load(Ordering::Relaxed), 1);
    assert!(node.meter.held_back.load(Ordering::Relaxed) > 5_800);

    fake.recover();
    tokio::time::sleep(Duration::from_secs(30)).await;
    for number in 0..20 {
        node.ask(&ask(&fake, &handle, number, Purpose::Refresh)).await.unwrap();
    }
    assert_eq!(node.meter.left_alone.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_is_held_back_hears_when_to_come_again() {
    let (fake, node) = (store(), Node::new());
    let handle = handle(&fake);
    fake.fail(BackendErrorKind::TimedOut, None);
    let mut last = None;
    for number in 0..10 {
        last = node.ask(&ask(&fake, &handle, number, Purpose::Refresh)).await.err();
    }
    let error = last.unwrap();
    assert_eq!(error.kind(), Kind::TimedOut, "it is the same trouble, and no news");
    let wait = error.retry_after().unwrap();
    assert!(wait <= Duration::from_secs(1), "{wait:?}");
    fake.recover();
    tokio::time::sleep(wait).await;
    node.ask(&ask(&fake, &handle, 0, Purpose::Refresh)).await.unwrap();
    let [away, back] = &node.meter.probes;
    assert_eq!((away.load(Ordering::Relaxed), back.load(Ordering::Relaxed)), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_class_that_is_edited_during_an_outage_leaves_no_backend_counted_as_left_alone() {
    let (fake, node) = (store(), Node::new());
    let before = handle(&fake);
    fake.fail(BackendErrorKind::Unavailable, None);
    for number in 0..10 {
        let _ = node.ask(&ask(&fake, &before, number, Purpose::Refresh)).await;
    }
    assert_eq!(node.meter.left_alone.load(Ordering::Relaxed), 1);
    // The edit makes another handle, and nobody holds the one before any more.
    drop(before);
    fake.recover();
    node.ask(&ask(&fake, &handle(&fake), 0, Purpose::Refresh)).await.unwrap();
    assert_eq!(node.meter.left_alone.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn pods_that_start_wait_for_one_probe_and_begin_together_when_the_backend_is_back() {
    let (fake, node) = (store(), Node::new());
    let handle = handle(&fake);
    fake.fail(BackendErrorKind::Unavailable, None);
    for _ in 0..300 {
        let _ = node.ask(&ask(&fake, &handle, 0, Purpose::Refresh)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let before = fake.counts().logins;
    let started = Instant::now();
    let all: Vec<_> = (0..60).map(|number| node.begin(&ask(&fake, &handle, number, Purpose::First))).collect();
    until(|| node.meter.waiting.load(Ordering::Relaxed) >= 59).await;
    fake.recover();
    for one in all {
        // Whoever was the probe that still failed is the only one that hears so.
        let _ = one.await.unwrap().map_err(|error| assert_eq!(error.kind(), Kind::Unavailable));
    }
    assert!(started.elapsed() <= Duration::from_secs(4), "{:?}", started.elapsed());
    assert!(fake.counts().logins - before <= 61);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_says_no_is_well() {
    let (fake, node) = (store(), Node::new());
    let handle = handle(&fake);
    let paths: Vec<_> = (0..40).map(|number| format!("denied-{number}")).collect();
    paths.iter().for_each(|path| fake.deny(path));
    let many = ask(&fake, &handle, 0, Purpose::Refresh).but(|ask| ask.paths = paths);
    assert_eq!(node.ask(&many).await.err().unwrap().kind(), Kind::Refused);
    assert_eq!(fake.counts().fetches, 40);
    node.ask(&ask(&fake, &handle, 0, Purpose::Refresh)).await.unwrap();
    assert_eq!(node.meter.held_back.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn requests_beyond_the_rate_wait_and_none_is_lost() {
    let (fake, node) = (store(), Node::new());
    let slow = Ask::of(&fake, &[PATH]).but(|ask| ask.limits.requests_per_second = 1).handle();
    let started = Instant::now();
    // A login and a read each: 60 at once, and then one a second.
    let all: Vec<_> = (0..40).map(|number| node.begin(&ask(&fake, &slow, number, Purpose::First))).collect();
    for one in all {
        one.await.unwrap().unwrap();
    }
    assert_eq!((fake.counts().logins, fake.counts().fetches), (40, 40));
    assert!((19..=21).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}
