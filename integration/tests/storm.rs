// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Many callers at once at few volumes of the built plugin, of whom some do not wait for their answer.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "the seed is what repeats a storm")]

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use evanesce_integration::world::{PASSWORD, World};
use evanesce_integration::{counts, mounts, sight, wait};
use tonic::Code;

const VOLUMES: usize = 4;

/// What a seed repeats: which volume, what with it, and how long the caller waits, in microseconds.
fn dice(seed: u64, number: u64) -> [u64; 3] {
    let digest = ring::digest::digest(&ring::digest::SHA256, format!("{seed} {number}").as_bytes());
    [0, 8, 16].map(|at| u64::from_le_bytes(digest.as_ref()[at..at + 8].try_into().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_callers_leaves_each_volume_mounted_once_and_whole_or_not_at_all() {
    let world = World::recorded().await.unwrap();
    let seed = std::env::var("EVANESCE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("EVANESCE_SEED={seed}");
    let volumes: Vec<_> = (0..VOLUMES).map(|_| world.volume(&world.pod("payments", "app"), "db")).collect();
    for volume in &volumes {
        fs::create_dir_all(volume.target_path().parent().unwrap()).unwrap();
    }
    let calls: Vec<_> = (0..u64::from(counts::CONCURRENT_CALLS_OF_THE_PLUGIN.get()))
        .map(|number| {
            let [volume, wish, patience] = dice(seed, number);
            let (kubelet, volume) = (world.kubelet.clone(), &volumes[volume as usize % VOLUMES]);
            let (publish, unpublish) = (volume.request(), volume.unpublish());
            let call = async move {
                if wish % 3 == 0 {
                    kubelet.call_unpublish(unpublish).await
                } else {
                    kubelet.call_publish(publish).await
                }
            };
            // One in four leaves, sooner or later.
            let patience =
                if patience % 4 == 0 { Duration::from_micros(patience % 20_000) } else { Duration::from_secs(60) };
            tokio::spawn(
                async move { tokio::time::timeout(patience, call).await.ok().filter(|_| patience.as_secs() == 60) },
            )
        })
        .collect();
    let mut answered = 0;
    for call in calls {
        if let Some(answer) = call.await.unwrap() {
            let code = answer.map_or_else(|status| status.code(), |()| Code::Ok);
            assert!(matches!(code, Code::Ok | Code::Aborted), "{code:?}");
            answered += 1;
        }
    }
    assert!(answered > 0);
    // Whoever left has left something behind that comes to its end: then each volume can be had and taken away.
    for volume in &volumes {
        let again = async || world.kubelet.publish(volume).await.ok();
        wait::until_ready("nothing is under way with the volume any more", again).await;
    }
    let pods = world.plugin.pods();
    let mounted: BTreeSet<_> = mounts::below(pods).into_iter().map(|mount| mount.target).collect();
    assert_eq!((mounts::below(pods).len(), mounted.len()), (VOLUMES, VOLUMES), "a volume is mounted twice");
    for volume in &volumes {
        assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
        world.kubelet.unpublish(volume).await.unwrap();
        assert!(!volume.target_path().exists(), "something is left");
    }
    assert_eq!(mounts::below(pods), []);
}
