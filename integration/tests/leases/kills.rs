// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Whoever is killed, whenever: what pods hold logs in, and what they held is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::ground::{Left, assert_nothing_lent, beneath, ground, whole};
use evanesce_integration::chance::{Chance, seed};
use evanesce_integration::kubelet::Kubelet;
use evanesce_integration::plugin::Plugin;
use evanesce_integration::postgres::Postgres;
use evanesce_integration::token_review::{Claims, TokenReview, WorkloadName};
use evanesce_integration::wait::{self, Patience};
use evanesce_integration::world::{AUDIENCE, Setup, World, volume};
use evanesce_integration::{binaries, counts};
use evanesce_proto::kubelet::Publish;

/// How many pods come and go side by side.
const BRIEF: usize = 3;

/// Whom the storm kills.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Engine,
    Warden,
    Both,
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_whenever_what_pods_hold_logs_in_and_what_they_held_is_gone() {
    let seed = seed();
    let (world, postgres) = ground(Setup::default()).await;
    let account = world.pod("payments", "app");
    let World { mut plugin, kubelet, backend, cluster, scratch: _scratch } = world;
    let node = Node {
        kubelet,
        cluster,
        account,
        postgres: Arc::clone(&postgres),
        over: false.into(),
        lives: 0.into(),
        replaced: 0.into(),
    };
    let node = Arc::new(node);
    let brief = (0..BRIEF).map(|slot| tokio::spawn(Arc::clone(&node).come_and_go(slot, seed)));
    let long = ["medium", "medium-shared"].map(|class| tokio::spawn(Arc::clone(&node).stay(class)));
    let pods: Vec<_> = brief.chain(long).collect();
    let mut chance = Chance::new(seed, u64::MAX);
    for victim in [Victim::Engine, Victim::Warden, Victim::Both] {
        for kill in 0..counts::LEASE_KILLS.get() {
            let lives = node.lives.load(Ordering::Relaxed) + 1 + chance.below(2);
            let goes_on = || node.lives.load(Ordering::Relaxed) >= lives || pods.iter().any(|pod| pod.is_finished());
            wait::until(&format!("seed {seed}: pods live on before kill {kill} of {victim:?}"), goes_on).await;
            // Where in the lives of the pods the kill falls: no condition says so.
            tokio::time::sleep(Duration::from_millis(chance.below(60).into())).await;
            match victim {
                Victim::Engine => wait::until_some("the engine half runs", || plugin.engine()).await.kill(),
                Victim::Warden => plugin.kill_and_restart().await.unwrap(),
                Victim::Both => {
                    plugin.engine().into_iter().for_each(|engine| engine.kill());
                    plugin.kill_and_restart().await.unwrap();
                }
            }
        }
    }
    node.over.store(true, Ordering::Relaxed);
    for pod in pods {
        pod.await.unwrap();
    }
    assert!(node.replaced.load(Ordering::Relaxed) >= 2, "no pod lived through a replacement");
    assert_nothing_lent(&plugin, &backend, &postgres, Left::NeverAnswered).await;
}

/// The steps of a lease, in [`evanesce_engine::crash::POINTS`].
const STEPS: [&str; 6] =
    ["lease:written", "lease:renamed", "lease:journalled", "lease:lent", "lease:revoked", "lease:removed"];

#[tokio::test(flavor = "multi_thread")]
async fn death_at_every_step_of_a_lease_leaves_no_role_behind() {
    let (mut world, postgres) = ground(Setup::default().crash_points()).await;
    for step in STEPS {
        let volume = world.volume(&world.pod("payments", "app"), "app");
        world.plugin.crash_at(step).unwrap();
        let what = format!("{step}: the volume is published");
        let patience = Patience::new(&what);
        while world.kubelet.publish(&volume).await.is_err() {
            tend(&mut world.plugin).await;
            patience.a_moment().await;
        }
        for read in [beneath, whole] {
            let (role, password) = read(volume.target_path());
            postgres.log_in(&role, &password).await.unwrap();
        }
        let what = format!("{step}: it is reached, and the volume is unpublished");
        let patience = Patience::new(&what);
        while world.kubelet.unpublish(&volume).await.is_err() || world.plugin.is_to_crash() {
            tend(&mut world.plugin).await;
            patience.a_moment().await;
        }
        tend(&mut world.plugin).await;
        world.plugin.ready().await.unwrap();
        assert_nothing_lent(&world.plugin, &world.backend, &postgres, Left::None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn death_at_every_step_of_a_replacement_takes_nothing_from_its_pod_and_leaves_nothing_behind() {
    let (mut world, postgres) = ground(Setup::default().crash_points()).await;
    // Built before anybody waits for what it does.
    binaries::evanesce().unwrap();
    let account = world.pod("payments", "app");
    for step in STEPS {
        for class in ["app", "app-shared"] {
            let pod = account.sibling("app-0");
            let volume = world.volume(&pod, class);
            world.kubelet.publish(&volume).await.unwrap();
            let before = whole(volume.target_path());
            world.plugin.crash_at(step).unwrap();
            let what = format!("{step}: it is reached while what {class} shows is replaced");
            let patience = Patience::new(&what);
            while whole(volume.target_path()) == before || world.plugin.is_to_crash() {
                tend(&mut world.plugin).await;
                if whole(volume.target_path()) == before {
                    // What is not answered is asked again, as kubelet and an operator do; who starts has no token yet.
                    let _ = world.kubelet.publish(&world.volume(&pod, class)).await;
                    let _ = world.plugin.refresh(&["--all", "--wait", "0"]);
                }
                for read in [beneath, whole] {
                    let (role, password) = read(volume.target_path());
                    postgres.log_in(&role, &password).await.unwrap();
                }
                patience.a_moment().await;
            }
            tend(&mut world.plugin).await;
            world.plugin.ready().await.unwrap();
            world.kubelet.unpublish(&volume).await.unwrap();
            assert_nothing_lent(&world.plugin, &world.backend, &postgres, Left::None).await;
        }
    }
}

/// The container runtime: what has ended is started again.
async fn tend(plugin: &mut Plugin) {
    if plugin.has_ended() {
        plugin.ended().await;
        plugin.restart().await.unwrap();
    }
}

/// Pods of one service account that log in: some come and go, some stay.
struct Node {
    kubelet: Kubelet,
    cluster: TokenReview,
    account: WorkloadName,
    postgres: Arc<Postgres>,
    over: AtomicBool,
    lives: AtomicU32,
    /// How often one that stays saw another credential.
    replaced: AtomicU32,
}

impl Node {
    /// A pod after the other, of a class that shares or of one that does not.
    async fn come_and_go(self: Arc<Self>, slot: usize, seed: u64) {
        let mut chance = Chance::new(seed, slot as u64);
        while !self.over.load(Ordering::Relaxed) {
            let class = ["app", "app-shared"][chance.below(2) as usize];
            let pod = self.account.sibling(&format!("app-{slot}"));
            let volume = self.begin(&pod, class).await;
            for _ in 0..=chance.below(4) {
                self.log_in(&volume).await;
            }
            self.end(&volume).await;
            self.lives.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One pod whose credential is replaced again and again. Kubelet publishes its volume again more often than it does in life,
    /// as its leases are shorter.
    async fn stay(self: Arc<Self>, class: &'static str) {
        let pod = self.account.sibling(class);
        let volume = self.begin(&pod, class).await;
        let mut seen = whole(volume.target_path());
        while !self.over.load(Ordering::Relaxed) {
            self.log_in(&volume).await;
            let now = whole(volume.target_path());
            self.replaced.fetch_add((now != seen).into(), Ordering::Relaxed);
            seen = now;
            let _ = self.kubelet.publish(&self.volume(&pod, class)).await;
            wait::a_moment().await;
        }
        self.end(&volume).await;
    }

    /// What kubelet does while a plugin comes back. Whoever kills it sees that pods live on.
    async fn begin(&self, pod: &WorkloadName, class: &str) -> Publish {
        while self.kubelet.publish(&self.volume(pod, class)).await.is_err() {
            wait::a_moment().await;
        }
        self.volume(pod, class)
    }

    async fn end(&self, volume: &Publish) {
        while self.kubelet.unpublish(volume).await.is_err() {
            wait::a_moment().await;
        }
    }

    async fn log_in(&self, volume: &Publish) {
        for read in [beneath, whole] {
            let (role, password) = read(volume.target_path());
            let logged_in = self.postgres.log_in(&role, &password).await;
            assert!(logged_in.is_ok(), "{role} was taken from a pod that holds it: {:?}", logged_in.err());
        }
    }

    fn volume(&self, pod: &WorkloadName, class: &str) -> Publish {
        volume(&self.kubelet, &self.cluster, pod, class, &Claims::new(pod, AUDIENCE))
    }
}
