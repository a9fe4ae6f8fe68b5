// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A source that has to ask for a class before it knows it.

use std::time::Duration;

use tokio::time::{Instant, advance};
use tonic::Code;

use crate::classes::EVERY;
use crate::ground::{Node, published, settle, until};

#[tokio::test(start_paused = true)]
async fn a_first_delivery_waits_for_a_class_that_nobody_has_asked_for_yet() {
    let node = Node::new().await;
    node.classes.set_unknown(true);
    let pod = node.pod("payments", "pod-1");
    let (published, ()) = tokio::join!(node.publish(&pod), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        node.classes.set_unknown(false);
    });
    published.unwrap();
    node.assert_whole(&pod, "first");
}

#[tokio::test(start_paused = true)]
async fn a_class_that_nobody_answers_for_is_said_before_kubelet_gives_up() {
    let node = Node::new().await;
    node.classes.set_unknown(true);
    let (pod, begun) = (node.pod("payments", "pod-1"), Instant::now());
    let status = node.publish(&pod).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "SecretVolume payments/db is not known yet: nobody has answered yet");
    assert!(begun.elapsed() < Duration::from_secs(10));
    node.assert_nothing_left(&pod);
    node.classes.set_unknown(false);
    node.publish(&pod).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_class_that_is_not_known_any_more_makes_no_volume_due_and_harms_none() {
    let (node, pod) = published().await;
    let before = node.backend.counts();
    node.classes.set_unknown(true);
    for _ in 0..4 {
        advance(Duration::from_secs(60)).await;
        settle().await;
    }
    assert!(node.refreshed("not_ready", 0), "nothing was due");
    advance(EVERY).await;
    settle().await;
    // It waits as long as a first delivery does.
    advance(Duration::from_secs(10)).await;
    until("a refresh found nobody to ask", || node.refreshed("not_ready", 1)).await;
    assert_eq!(node.backend.counts(), before);
    node.assert_whole(&pod, "first");
}
