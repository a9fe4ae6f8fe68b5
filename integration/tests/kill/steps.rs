// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Death at every named step (`engine/src/crash.rs`): whoever comes to it first dies there, and what was asked for comes
//! about all the same.

use std::fs;
use std::path::Path;

use evanesce_engine::crash::POINTS;
use evanesce_integration::binaries;
use evanesce_integration::plugin::DRIVER;
use evanesce_integration::recorder::Recorder;
use evanesce_integration::sight::{self, Files};
use evanesce_integration::token_review::WorkloadName;
use evanesce_integration::wait::{self, Patience};
use evanesce_integration::world::{Setup, World};
use evanesce_proto::kubelet::Publish;
use serde_json::json;

use crate::leaks::Leaks;

/// What leads to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Start,
    Publish,
    Refresh,
    Grow,
    Rename,
    Sweep,
    KillEngine,
    KillWarden,
    Unpublish,
    Terminate,
}

/// Each way that leads there: what a first publish leaves half-done is thrown away, what a refresh leaves is gone on with.
fn acts(step: &str) -> &'static [Act] {
    match step.split_once(':').expect("a step has a room and a name") {
        ("start" | "launcher" | "hello", _) => &[Act::Start],
        ("resize", _) | (_, "grown") => &[Act::Grow],
        (_, "name-removed") => &[Act::Rename],
        (_, "name-linked") => &[Act::Publish, Act::Rename],
        ("write" | "show" | "own" | "record", _) => &[Act::Publish, Act::Refresh],
        ("sweep" | "remove", _) => &[Act::Sweep],
        ("republish" | "refresh", _) => &[Act::Refresh],
        ("adopt", "cloned") => &[Act::KillWarden],
        ("adopt", _) => &[Act::KillEngine],
        ("unpublish" | "detach" | "drop", _) => &[Act::Unpublish],
        ("drain", _) => &[Act::Terminate],
        // The class of this test leases nothing.
        ("lease", _) => &[],
        _ => &[Act::Publish],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn death_at_every_step_leaves_nothing_undone_and_nothing_behind() {
    let mut node = Node::new().await;
    let leaks = Leaks::look(&node.world.plugin).await;
    for step in POINTS {
        for act in acts(step) {
            node.die_at(step, *act).await;
            leaks.assert_none(Default::default(), &mut node.world.plugin).await;
        }
    }
}

#[test]
fn the_real_program_has_no_trace_of_a_crash_point() {
    let has = |program: &Path| {
        let bytes = fs::read(program).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        ["EVANESCE_CRASH_FILE", "place:attached"].map(|trace| text.contains(trace))
    };
    assert_eq!(has(&binaries::evanesce_csi().unwrap()), [false; 2]);
    assert_eq!(
        has(&binaries::evanesce_csi_crash_points().unwrap()),
        [true; 2],
        "what is looked for is not what is there"
    );
}

const SMALL: usize = 1;
/// Two generations of it are more than a volume begins with.
const LARGE: usize = 500_000;

struct Node {
    world: World<Recorder>,
    /// How often the secret was changed, and what it holds.
    number: u32,
    text: String,
    /// The name of one of the files, which an edit of the class changes.
    name: &'static str,
}

impl Node {
    async fn new() -> Self {
        let setup = Setup::default().crash_points().log("info");
        let mut node = Self { world: setup.recorder().await.unwrap(), number: 0, text: String::new(), name: "a" };
        node.change(SMALL);
        node.edit("a");
        let volume = node.world.volume(&node.world.pod("payments", "app"), "steps");
        wait::until_ready("the class is known", async || node.world.kubelet.publish(&volume).await.ok()).await;
        node.world.kubelet.unpublish(&volume).await.unwrap();
        node
    }

    async fn die_at(&mut self, step: &str, act: Act) {
        let pod = self.world.pod("payments", "app");
        self.change(SMALL);
        if ![Act::Publish, Act::Start].contains(&act) {
            self.published(step, &pod, false).await;
        }
        if act == Act::Sweep {
            self.change(SMALL);
            self.published(step, &pod, true).await;
        }
        self.world.plugin.crash_at(step).unwrap();
        match act {
            Act::Start => {
                // The key is made when there is none; all else happens at every start.
                let _ = fs::remove_file(self.world.plugin.state().join(DRIVER).join("key"));
                self.world.plugin.warden().kill();
            }
            Act::KillWarden => self.world.plugin.warden().kill(),
            Act::KillEngine => wait::until_some("the engine half runs", || self.world.plugin.engine()).await.kill(),
            Act::Terminate => drop(self.world.plugin.terminate().await),
            Act::Refresh => self.change(SMALL),
            Act::Grow => self.change(LARGE),
            Act::Rename => self.edit(if self.name == "a" { "z" } else { "a" }),
            Act::Publish | Act::Sweep | Act::Unpublish => {}
        }
        if act != Act::Unpublish {
            self.published(step, &pod, ![Act::Publish, Act::Start].contains(&act)).await;
        }
        self.unpublished(step, &pod).await;
    }

    /// Publishes until the step was reached, if this is how, and the files are what the secret holds. If the pod runs
    /// already, its files are whole all the while.
    async fn published(&mut self, step: &str, pod: &WorkloadName, live: bool) {
        let volume = self.world.volume(pod, "steps");
        let what = format!("{step} is reached and the volume shows number {}", self.number);
        let patience = Patience::new(&what);
        let mut looks = 0;
        loop {
            self.tend().await;
            // A volume that is shown is published again from time to time, one that is not at once.
            if looks % 20 == 0 || sight::generation(volume.target_path()).is_err() {
                self.publish(&volume).await;
            }
            looks += 1;
            let seen = sight::generation(volume.target_path()).ok();
            assert!(!live || seen.as_ref().is_some_and(whole), "{step}: a running pod sees {seen:?}");
            if !self.world.plugin.is_to_crash() && seen == Some(self.files()) {
                return;
            }
            patience.a_moment().await;
        }
    }

    async fn unpublished(&mut self, step: &str, pod: &WorkloadName) {
        let volume = self.world.volume(pod, "steps");
        let what = format!("{step} is reached and the volume is gone");
        let patience = Patience::new(&what);
        loop {
            self.tend().await;
            if self.world.kubelet.unpublish(&volume).await.is_ok() && !self.world.plugin.is_to_crash() {
                return;
            }
            patience.a_moment().await;
        }
    }

    async fn publish(&self, volume: &Publish) {
        if let Err(status) = self.world.kubelet.publish(volume).await {
            assert!(!evanesce_integration::kubelet::is_final(status.code()), "kubelet heard a final error: {status:?}");
        }
    }

    /// The container runtime: what has ended is started again.
    async fn tend(&mut self) {
        while self.world.plugin.has_ended() {
            self.world.plugin.ended().await;
            // It may end again before it is ready; that is what this is about.
            let _ = self.world.plugin.restart().await;
        }
    }

    fn change(&mut self, length: usize) {
        self.number += 1;
        self.text = format!("{} {}", self.number, "x".repeat(length));
        self.world.backend.put("kv", "payments/steps", &json!({"a": self.text}));
    }

    fn files(&self) -> Files {
        [self.name, "below/b"].map(|name| (name.to_owned(), self.text.clone().into_bytes())).into()
    }

    fn edit(&mut self, name: &'static str) {
        self.name = name;
        self.world.classes("steps.yaml", &class(name)).unwrap();
    }
}

/// The class, with one of its files under this name.
fn class(name: &str) -> String {
    let from = "from: {backend: vault, secret: kv/payments/steps, key: a}";
    format!(
        "apiVersion: evanesce.dev/v1alpha1
kind: SecretVolume
metadata: {{name: steps, namespace: payments}}
spec:
  refresh: {{every: 1s, jitter: 0%}}
  keepPrevious: 1s
  files:
    - {{path: {name}, {from}}}
    - {{path: below/b, {from}}}
"
    )
}

/// Both files, with the same content.
fn whole(files: &Files) -> bool {
    files.len() == 2 && files.values().all(|content| Some(content) == files.get("below/b"))
}
