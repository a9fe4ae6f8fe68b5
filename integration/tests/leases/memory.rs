// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! No process holds what was lent.

use std::collections::BTreeSet;

use evanesce_integration::world::Setup;
use evanesce_integration::{counts, memory, wait};

use crate::ground::{Left, assert_nothing_lent, ground, whole};

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_credentials_that_were_lent_no_process_holds_a_copy() {
    const VOLUMES: usize = 5;
    let (world, postgres) = ground(Setup::default()).await;
    let processes = world.plugin.processes();
    // Two of them share what they are lent.
    let account = world.pod("payments", "app");
    let class = |number| if number < 3 { "brief" } else { "brief-shared" };
    let volume = |number| world.volume(&account.sibling(&format!("app-{number}")), class(number));
    let volumes: Vec<_> = (0..VOLUMES).map(volume).collect();
    for volume in &volumes {
        world.kubelet.publish(volume).await.unwrap();
    }
    let mut passwords = BTreeSet::new();
    let rotations = counts::ROTATIONS_SCANNED.get() as usize * VOLUMES;
    while passwords.len() < rotations + VOLUMES {
        let known = passwords.len();
        wait::until(&format!("a password follows the {known} before"), || {
            passwords.extend(volumes.iter().map(|volume| whole(volume.target_path()).1));
            passwords.len() > known
        })
        .await;
    }
    let mut canaries: Vec<_> = passwords.into_iter().collect();
    canaries.extend(world.backend.tokens().unwrap());
    assert!(canaries.len() >= 2 * rotations, "each has a login of its own: {}", canaries.len());
    // Those that are shown too: a value lies in its file, and in no process.
    memory::until_clean("after the rotations", &processes, &canaries);
    for volume in &volumes {
        world.kubelet.unpublish(volume).await.unwrap();
    }
    assert_nothing_lent(&world.plugin, &world.backend, &postgres, Left::None).await;
    memory::until_clean("after the end", &processes, &canaries);
}
