// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Many callers at once at few volumes, on many threads, of whom some do not wait for their answer.

#![allow(clippy::print_stdout, reason = "the seed is what repeats a storm")]

use std::sync::Arc;
use std::time::Duration;

use evanesce_engine::token::Audience;
use evanesce_proto::kubelet::{Publish, Token, TokensIn};
use futures_util::future::join_all;
use tonic::Code;

use crate::chance::{self, Chance};
use crate::counts;
use crate::fake_mounts::At;
use crate::ground::{FAR, Node, VOLUME, code};

const VOLUMES: u32 = 8;

fn with_token(volume: Publish, token: &str) -> Publish {
    volume.tokens(&[Token { audience: "fake", token, expires: FAR }], TokensIn::Secrets)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_storm_of_callers_loses_nothing_doubles_nothing_and_comes_to_its_end() {
    let node = Arc::new(Node::new().await);
    let seed = chance::seed();
    println!("EVANESCE_SEED={seed} repeats what is asked, though not the order in which threads run");
    let mut chance = Chance::new(seed, 0);
    node.mounts.dawdle(seed);
    let volumes: Vec<_> = (0..VOLUMES).map(|number| node.pod("payments", &format!("pod-{number}"))).collect();
    let calls: Vec<_> = (0..counts::CONCURRENT_CALLS.get())
        .map(|_| {
            let (node, volume) = (Arc::clone(&node), chance.below(VOLUMES));
            let (wish, patience) = (chance.below(10), chance.below(400));
            tokio::spawn(async move { call(&node, volume, wish, patience).await })
        })
        .collect();
    let answers: Vec<_> = join_all(calls).await.into_iter().filter_map(Result::unwrap).collect();
    let right = |code: &Code| matches!(code, Code::Ok | Code::Aborted);
    assert!(answers.iter().all(right), "{answers:?}");
    let many = |code| answers.iter().filter(|it| **it == code).count();
    println!("{} answered, {} aborted, the rest did not wait", many(Code::Ok), many(Code::Aborted));

    at_rest(&node).await;
    for volume in &volumes {
        let live = node.plugin.volumes.get(&volume.volume_id().parse().unwrap());
        let at = node.mounts.at(volume.volume_id(), &volume.target_path().to_str().unwrap().parse().unwrap());
        let record = node.mounts.records().contains_key(&volume.volume_id().parse().unwrap());
        match live {
            Some(_) => assert!(at == At::Mounted && record, "a live volume is {at:?}, with a record: {record}"),
            None => assert!(at == At::Nothing && !record, "no volume, and there is {at:?}, a record: {record}"),
        }
    }
    assert_eq!(node.plugin.budget.reserved(), node.plugin.volumes.live().len() as u64 * VOLUME);

    // Nothing is stuck, and nothing that comes now is lost.
    node.backend.put("kv/db", &[("username", "app"), ("password", "second")]);
    for volume in volumes {
        let volume = with_token(volume, "last");
        assert_eq!(code(node.publish(&volume).await), Code::Ok);
        let live = node.plugin.volumes.get(&volume.volume_id().parse().unwrap()).unwrap();
        let (tokens, now) = (live.tokens(), node.plugin.clock().now());
        assert!(tokens.get(&Audience::new("fake"), now).unwrap().expose() == b"last", "a token is lost");
        refresh(&node, &volume);
        crate::ground::until("the refreshed volume shows what is new", || {
            crate::ground::read(&volume, "password").as_deref() == Some("second")
        })
        .await;
        assert_eq!(code(node.unpublish(&volume).await), Code::Ok);
    }
    at_rest(&node).await;
    assert_eq!((node.mounts.volumes(), node.plugin.budget.reserved()), (0, 0), "something is left");
}

/// One call; nothing where the caller did not wait for the answer.
async fn call(node: &Node, volume: u32, wish: u32, patience: u32) -> Option<Code> {
    let volume = node.pod("payments", &format!("pod-{volume}"));
    let answer = async {
        match wish {
            0..=5 => code(node.publish(&volume).await),
            6..=8 => code(node.unpublish(&volume).await),
            _ => {
                refresh(node, &volume);
                Code::Ok
            }
        }
    };
    // One in four leaves, sooner or later.
    let leaves = patience < 100;
    tokio::select! {
        code = answer => Some(code),
        () = async { for _ in 0..patience { tokio::task::yield_now().await } }, if leaves => None,
    }
}

fn refresh(node: &Node, volume: &Publish) {
    let id = volume.volume_id().parse().unwrap();
    node.plugin.deadlines.wait_for_token(&id);
    node.plugin.deadlines.token_arrived(&id, node.plugin.clock());
}

/// Waits until whatever was begun has ended.
async fn at_rest(node: &Node) {
    node.plugin.tasks.close();
    let ended = tokio::time::timeout(Duration::from_secs(60), node.plugin.tasks.wait()).await;
    assert!(ended.is_ok(), "{} tasks wait for ever", node.plugin.tasks.len());
    node.plugin.tasks.reopen();
}
