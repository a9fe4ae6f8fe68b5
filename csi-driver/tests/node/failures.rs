// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A first delivery that fails leaves nothing, and a retry never finds half a volume.

use evanesce_engine::backend::BackendErrorKind;
use evanesce_engine::error::Kind;
use tonic::Code;

use crate::fake_mounts::Call;
use crate::ground::{Node, code};

const STEPS: [Call; 4] = [Call::Make, Call::Own, Call::PutRecord, Call::Attach];

#[tokio::test(start_paused = true)]
async fn a_first_publish_that_fails_at_any_step_leaves_nothing_and_its_retry_is_whole() {
    for step in STEPS {
        let node = Node::new().await;
        let pod = node.pod("payments", "pod-1");
        node.mounts.fail_next(step, Kind::Internal);
        assert_eq!(code(node.publish(&pod).await), Code::Internal, "{step:?}");
        node.assert_nothing_left(&pod);
        assert_eq!(node.auditor.codes().last(), Some(&"failed"), "{step:?}");
        assert_eq!(code(node.publish(&pod).await), Code::Ok, "{step:?}");
        node.assert_whole(&pod, "first");
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_publish_whose_clean_up_fails_too_is_still_whole_when_it_is_ok() {
    // After the first: whoever has made nothing has nothing to clean up.
    for &step in &STEPS[1..] {
        for cleaning in [Call::Detach, Call::DropRecord] {
            let node = Node::new().await;
            let pod = node.pod("payments", "pod-1");
            node.mounts.fail_next(step, Kind::Internal);
            node.mounts.fail_next(cleaning, Kind::Internal);
            assert_eq!(code(node.publish(&pod).await), Code::Internal, "{step:?}, {cleaning:?}");
            assert!(node.plugin.volumes.live().is_empty(), "{step:?}, {cleaning:?}: an entry is left");
            assert_eq!(code(node.publish(&pod).await), Code::Ok, "{step:?}, {cleaning:?}");
            node.assert_whole(&pod, "first");
            node.unpublish(&pod).await.unwrap();
            node.assert_nothing_left(&pod);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_publish_that_the_backend_fails_touches_no_mount() {
    for failing in [BackendErrorKind::Denied, BackendErrorKind::Unavailable, BackendErrorKind::NotFound] {
        // The login, then the question.
        for succeed in 0..2 {
            let node = Node::new().await;
            let pod = node.pod("payments", "pod-1");
            if succeed == 0 {
                node.backend.fail_next(failing, None);
            } else {
                node.backend.deny("kv/db");
            }
            assert_ne!(code(node.publish(&pod).await), Code::Ok);
            assert_eq!((node.mounts.count(Call::Make), node.mounts.count(Call::Attach)), (0, 0));
            node.assert_nothing_left(&pod);
            if succeed == 0 {
                node.publish(&pod).await.unwrap();
                node.assert_whole(&pod, "first");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_publish_of_several_secrets_is_all_or_nothing() {
    let node = Node::new().await;
    node.classes.set("db", crate::classes::spec(&["username kv/db username", "password kv/late password"]));
    let pod = node.pod("payments", "pod-1");
    assert_eq!(code(node.publish(&pod).await), Code::NotFound);
    node.assert_nothing_left(&pod);
    node.backend.put("kv/late", &[("password", "second")]);
    node.publish(&pod).await.unwrap();
    node.assert_whole(&pod, "second");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_never_answers_is_a_deadline_and_the_retry_is_whole() {
    let node = Node::new().await;
    let pod = node.pod("payments", "pod-1");
    node.backend.hold();
    assert_eq!(code(node.publish(&pod).await), Code::DeadlineExceeded);
    node.assert_nothing_left(&pod);
    node.backend.release();
    node.publish(&pod).await.unwrap();
    node.assert_whole(&pod, "first");
}
