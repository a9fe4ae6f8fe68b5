// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! How long an answer stays, and how much of them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use evanesce_engine::backend::fake::FakeBackend;
use evanesce_engine::fetch::Bounds;

use crate::one_fetch::ground::{Ask, Node, until, values};

fn store(count: usize, size: usize) -> FakeBackend {
    let fake = FakeBackend::new("store");
    for number in 0..count {
        fake.put(&format!("db-{number}"), &[("a", &"x".repeat(size))]);
    }
    fake
}

async fn ask(node: &Node, fake: &FakeBackend, number: usize) {
    node.ask(&Ask::of(fake, &[&format!("db-{number}")])).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_answer_serves_for_its_time_and_is_wiped_then_without_anybody_looking() {
    let (fake, node) = (store(1, 8), Node::new());
    ask(&node, &fake, 0).await;
    tokio::time::sleep(Duration::from_millis(4999)).await;
    ask(&node, &fake, 0).await;
    assert_eq!((fake.counts().fetches, node.keep.live()), (1, 1));
    tokio::time::sleep(Duration::from_millis(1)).await;
    until(|| node.keep.live() == 0).await;
    ask(&node, &fake, 0).await;
    assert_eq!(fake.counts().fetches, 2);
}

#[tokio::test(start_paused = true)]
async fn an_answers_age_counts_from_its_question() {
    let (fake, node) = (store(1, 8), Node::new());
    fake.delay(Duration::from_secs(3));
    ask(&node, &fake, 0).await;
    tokio::time::sleep(Duration::from_millis(2001)).await;
    until(|| node.keep.live() == 0).await;
    fake.delay(Duration::from_secs(6));
    ask(&node, &fake, 0).await;
    assert_eq!(node.keep.live(), 0, "it came too late to be kept");
}

#[tokio::test(start_paused = true)]
async fn with_reuse_off_nothing_is_kept() {
    let (fake, node) = (store(1, 8), Node::new());
    let ask = Ask::of(&fake, &["db-0"]).but(|ask| ask.limits.reuse = Duration::ZERO);
    for _ in 0..2 {
        assert_eq!(values(node.ask(&ask).await), ["xxxxxxxx"]);
    }
    assert_eq!((fake.counts().fetches, node.keep.ever.load(Ordering::Relaxed)), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn the_oldest_makes_room_in_number_and_in_bytes() {
    for bounds in [Bounds { entries: 3, bytes: 1 << 16 }, Bounds { entries: 64, bytes: 300 }] {
        let (fake, node) = (store(5, 30), Node::with_bounds(bounds));
        let fits = bounds.entries.min(bounds.bytes / 30).min(5);
        let sizes = if bounds.entries == 3 { 3 } else { 5 };
        assert_eq!(fits, sizes);
        for number in 0..5 {
            ask(&node, &fake, number).await;
        }
        assert_eq!(node.keep.live(), fits);
        let before = fake.counts().fetches;
        for number in (5 - fits)..5 {
            ask(&node, &fake, number).await;
        }
        assert_eq!(fake.counts().fetches, before, "the youngest stay");
        if fits < 5 {
            ask(&node, &fake, 0).await;
            assert_eq!(fake.counts().fetches, before + 1, "the oldest does not");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_are_bounded_also_where_the_place_has_more() {
    let (fake, node) = (store(40, 100), Node::with_bounds(Bounds { entries: 64, bytes: 1000 }));
    for number in 0..40 {
        ask(&node, &fake, number).await;
        assert!(node.keep.bytes.load(Ordering::Relaxed) <= 1000);
    }
    assert_eq!(node.keep.live(), 10);
}

#[tokio::test(start_paused = true)]
async fn one_large_answer_does_not_push_out_all_others() {
    let (fake, node) = (store(2, 100), Node::with_bounds(Bounds { entries: 64, bytes: 1000 }));
    fake.put("large", &[("a", &"x".repeat(126))]);
    ask(&node, &fake, 0).await;
    node.ask(&Ask::of(&fake, &["large"])).await.unwrap();
    ask(&node, &fake, 1).await;
    assert_eq!(node.keep.live(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_full_is_no_error() {
    let (fake, node) = (store(3, 100), Node::new());
    for (capacity, live) in [(250, 2), (50, 0)] {
        *node.keep.capacity.lock().unwrap() = Some(capacity);
        for number in 0..3 {
            ask(&node, &fake, number).await;
        }
        assert_eq!(node.keep.live(), live);
        let before = fake.counts().fetches;
        ask(&node, &fake, 2).await;
        assert_eq!(fake.counts().fetches - before, u64::from(live == 0), "the youngest is there if anything is");
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
}
