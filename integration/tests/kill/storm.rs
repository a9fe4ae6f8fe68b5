// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The storm: pods come, look and go, a secret changes under them, and somebody kills. The test is kubelet, which tries
//! again, and the container runtime, which starts the warden again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evanesce_integration::chance::{Chance, seed};
use evanesce_integration::plugin::Plugin;
use evanesce_integration::world::{Setup, World, lively_class};
use evanesce_integration::{counts, wait};

use crate::leaks::Leaks;
use crate::pods::{FILES, Node, SLOTS};

/// Whom the storm kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    Engine,
    Warden,
    Both,
    Launcher,
}

/// So many kills apart, everybody stands still and what is there is counted.
const COUNTED_EVERY: u32 = 20;

pub(crate) async fn run(victim: Victim) {
    let (seed, begun) = (seed(), Instant::now());
    say(&format!("{victim:?}: EVANESCE_SEED={seed}"));
    let world = Setup::default().class(&lively_class("storm", &FILES)).log("info").openbao().await.unwrap();
    let World { mut plugin, kubelet, backend, cluster, scratch } = world;
    let node = Node::new(kubelet, backend, cluster).await;
    let leaks = Leaks::look(&plugin).await;
    let slots: Vec<_> = (0..SLOTS).map(|number| tokio::spawn(Arc::clone(&node).live(number, seed))).collect();
    let reader = tokio::spawn(Arc::clone(&node).watch());

    let mut killer = Killer { victim, chance: Chance::new(seed, u64::MAX), back: Vec::new() };
    let (kills, operations) = (counts::KILLS.get(), counts::STORM_OPERATIONS.get());
    for kill in 1..=kills {
        // On average so many that all come to their number; at least one, or the plugin has not come back.
        let more = 1 + killer.chance.below((2 * operations / kills).max(2) - 1);
        let enough = node.operations() + more;
        let what = format!("{victim:?}, seed {seed}: after kill {} the plugin does {more} operations", kill - 1);
        wait::until(&what, || node.operations() >= enough || slots.iter().any(|slot| slot.is_finished())).await;
        killer.kill(&mut plugin).await;
        node.assert_no_complaint();
        if kill % COUNTED_EVERY == 0 {
            let _calm = node.calm().await;
            leaks.assert_none(node.volumes(), &mut plugin).await;
        }
    }
    wait::until("the operations are done", || node.operations() >= operations).await;
    node.finish();
    for slot in slots {
        slot.await.expect("a pod's life goes as it should");
    }
    reader.await.expect("the reader sees nothing wrong");
    node.assert_no_complaint();
    leaks.assert_none(node.volumes(), &mut plugin).await;
    say(&format!("{victim:?}: {kills} kills, {}, {:?} in all; {}", node.tally(), begun.elapsed(), killer.summary()));
    drop((plugin, node, scratch));
}

struct Killer {
    victim: Victim,
    chance: Chance,
    back: Vec<Duration>,
}

impl Killer {
    async fn kill(&mut self, plugin: &mut Plugin) {
        let begun = Instant::now();
        match self.victim {
            Victim::Engine => {
                let before = wait::until_some("the engine half runs", || plugin.engine()).await;
                before.kill();
                // One in ten dies once more while it takes over what its predecessor left.
                if self.chance.below(10) == 0 {
                    let next = || plugin.engine().filter(|now| *now != before);
                    wait::until_some("another engine half runs", next).await.kill();
                }
            }
            Victim::Warden => plugin.kill_and_restart().await.unwrap(),
            Victim::Both => {
                let engine = plugin.engine();
                if self.chance.below(2) == 0 {
                    engine.into_iter().for_each(|engine| engine.kill());
                }
                plugin.warden().kill();
                engine.into_iter().for_each(|engine| engine.kill());
                plugin.kill_and_restart().await.unwrap();
            }
            Victim::Launcher => {
                wait::until_some("the launcher runs", || plugin.launcher()).await.kill();
                // The warden cannot go on and says so.
                assert!(!plugin.ended().await.success());
                plugin.restart().await.unwrap();
            }
        }
        self.back.push(begun.elapsed());
    }

    fn summary(&self) -> String {
        let mut back = self.back.clone();
        back.sort();
        match (back.get(back.len() / 2), back.last()) {
            (Some(median), Some(longest)) => format!("a kill and what follows took {median:?}, at most {longest:?}"),
            _ => String::new(),
        }
    }
}

#[expect(clippy::print_stderr, reason = "the seed, without which a failure cannot be repeated")]
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}
