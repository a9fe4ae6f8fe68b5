// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Target paths: none leads outside the directory of pods, whatever lies on the way.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use evanesce_integration::world::{PASSWORD, World};
use evanesce_integration::{mounts, sight};
use evanesce_proto::kubelet::Publish;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_target_path_that_leads_outside_is_refused_and_nothing_is_touched() {
    let world = World::recorded().await.unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "db");
    let pods = world.plugin.pods();
    let outside = world.scratch.directory("outside/volumes/kubernetes.io~csi/secrets").unwrap();
    fs::write(outside.join("file"), "keep").unwrap();
    let parent = volume.target_path().parent().unwrap();
    fs::create_dir_all(parent).unwrap();
    symlink(&outside, parent.join("link")).unwrap();
    symlink("../../../../../outside/volumes/kubernetes.io~csi/secrets", parent.join("relative")).unwrap();
    symlink(".", parent.join("here")).unwrap();
    symlink(outside.parent().unwrap(), pods.join("link")).unwrap();
    fs::write(parent.join("file"), "keep").unwrap();
    let before = everything(world.scratch.path());

    let (pods, parent) = (pods.to_string_lossy(), parent.to_string_lossy());
    let attacks = [
        "/etc".to_owned(),
        "/".to_owned(),
        "relative/mount".to_owned(),
        pods.to_string(),
        format!("{pods}/"),
        format!("{pods}x/mount"),
        format!("{pods}/../outside/mount"),
        format!("{parent}/../../../../../outside/mount"),
        format!("{parent}/.."),
        format!("{parent}/./mount"),
        format!("{parent}//mount"),
        format!("{parent}/mount/"),
        format!("{parent}/mo\0unt"),
        format!("{parent}/{}", "m".repeat(256)),
        format!("{parent}/{}", "m/".repeat(2048)),
        outside.join("mount").to_string_lossy().into_owned(),
        // Through links that somebody has put on the way, and onto one.
        format!("{pods}/link/secrets/mount"),
        format!("{parent}/link/mount"),
        format!("{parent}/relative/mount"),
        format!("{parent}/here/mount"),
        format!("{parent}/link"),
        // Onto what is no directory.
        format!("{parent}/file"),
        format!("{parent}/file/mount"),
        // Kubelet makes the directories above; without them this is no target of kubelet's.
        format!("{pods}/absent/volumes/kubernetes.io~csi/secrets/mount"),
    ];
    for attack in &attacks {
        let mut request = volume.request();
        request.target_path.clone_from(attack);
        let status = world.kubelet.call_publish(request).await.expect_err(attack);
        let refused = [Code::InvalidArgument, Code::NotFound, Code::PermissionDenied];
        assert!(refused.contains(&status.code()), "publish at {attack:?}: {status}");
        assert_eq!(mounts::below(world.plugin.pods()), [], "publish at {attack:?}");
        assert_eq!(mounts::below(&outside), [], "publish at {attack:?}");

        let mut request = volume.unpublish();
        request.target_path.clone_from(attack);
        // OK is a good answer where there is nothing; touching something is not.
        let _ = world.kubelet.call_unpublish(request).await;
        assert_eq!(everything(world.scratch.path()), before, "something changed at {attack:?}");
    }

    world.kubelet.publish(&volume).await.expect("the target of kubelet is none of these");
    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_replaces_a_target_is_not_followed_by_unpublish() {
    let world = World::recorded().await.unwrap();
    let victim = published(&world).await;
    let volume = world.volume(&world.pod("payments", "app"), "db");
    fs::create_dir_all(volume.target_path().parent().unwrap()).unwrap();
    symlink(victim.target_path(), volume.target_path()).unwrap();

    let _ = world.kubelet.call_unpublish(volume.unpublish()).await;
    assert_eq!(mounts::at(victim.target_path()).len(), 1, "another pod's volume is gone");
    let status = world.kubelet.call_publish(volume.request()).await.expect_err("a link is no directory");
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert_eq!(mounts::at(victim.target_path()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_not_taken_away_by_the_id_of_another() {
    let world = World::recorded().await.unwrap();
    let victim = published(&world).await;
    let mut request = world.volume(&world.pod("payments", "app"), "db").unpublish();
    request.target_path = victim.target_path().to_string_lossy().into_owned();
    let _ = world.kubelet.call_unpublish(request).await;
    assert_eq!(mounts::at(victim.target_path()).len(), 1);
    assert_eq!(sight::text(victim.target_path(), "password"), PASSWORD);
}

async fn published<B>(world: &World<B>) -> Publish {
    let volume = world.volume(&world.pod("payments", "app"), "db");
    world.kubelet.publish(&volume).await.unwrap();
    volume
}

/// Every path below a directory, but for what changes by itself: logs, audit, records.
fn everything(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) && !path.ends_with("state") {
            found.extend(everything(&path));
        }
        found.insert(path);
    }
    found
}
