// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Pods that come, look and go, each in a slot of the node, while a reader watches what every slot may expect.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use evanesce_integration::chance::Chance;
use evanesce_integration::kubelet::{self, Kubelet};
use evanesce_integration::mounts::{self, Mount};
use evanesce_integration::openbao::OpenBao;
use evanesce_integration::sight::{self, Files};
use evanesce_integration::token_review::{Claims, TokenReview, WorkloadName};
use evanesce_integration::wait::{self, Patience};
use evanesce_integration::world::{AUDIENCE, volume};
use evanesce_proto::kubelet::Publish;
use serde_json::json;
use tonic::Status;

use crate::leaks::Live;

/// How many pods live side by side. The first never leaves.
pub(crate) const SLOTS: usize = 12;

/// Three files that have to be of the same number.
pub(crate) const FILES: [&str; 3] = [
    "{path: a, from: {backend: vault, secret: kv/payments/storm, key: a}}",
    "{path: below/b, from: {backend: vault, secret: kv/payments/storm, key: b}}",
    "{path: all.json, from: {backend: vault, secret: kv/payments/storm}}",
];

/// So many looks after which a pod that waits has kubelet publish again.
const LOOKS: u32 = 20;

/// A node under the storm.
pub(crate) struct Node {
    pub(crate) kubelet: Kubelet,
    backend: OpenBao,
    cluster: TokenReview,
    slots: Vec<Mutex<Slot>>,
    /// What the secret holds.
    newest: tokio::sync::Mutex<u64>,
    /// Operations go through it; whoever closes it has the node to himself.
    gate: tokio::sync::RwLock<()>,
    done: [AtomicU32; 3],
    is_over: AtomicBool,
    complaints: Mutex<Vec<String>>,
}

/// What may be seen in one slot.
#[derive(Debug, Clone, Default)]
enum Slot {
    /// Nothing is promised, but that what is there is whole.
    #[default]
    Changing,
    /// The volume is there, whole, at least of this number, in this mount.
    Live { volume: String, target: PathBuf, mount: Vec<Mount>, number: u64 },
}

impl Node {
    pub(crate) async fn new(kubelet: Kubelet, backend: OpenBao, cluster: TokenReview) -> Arc<Self> {
        let slots = (0..SLOTS).map(|_| Mutex::default()).collect();
        let (newest, gate, done) = Default::default();
        let (is_over, complaints) = Default::default();
        let node = Self { kubelet, backend, cluster, slots, newest, gate, done, is_over, complaints };
        node.change().await;
        Arc::new(node)
    }

    /// The life of one slot: pod after pod.
    pub(crate) async fn live(self: Arc<Self>, slot: usize, seed: u64) {
        let mut chance = Chance::new(seed, slot as u64);
        while !self.is_over() {
            let pod = WorkloadName::new("payments", "app", &format!("app-{slot}"));
            self.publish(slot, &pod).await;
            let refreshes = chance.below(4);
            let mut refreshed = 0;
            while !self.is_over() && (slot == 0 || refreshed < refreshes) {
                self.refresh(slot, &pod).await;
                refreshed += 1;
            }
            self.unpublish(slot, &pod).await;
        }
    }

    async fn publish(&self, slot: usize, pod: &WorkloadName) {
        let _turn = self.gate.read().await;
        let patience = Patience::new("a volume is published");
        while !self.succeeds(self.call_publish(pod).await) {
            patience.a_moment().await;
        }
        let volume = self.volume(pod);
        let mount = mounts::at(volume.target_path());
        if mount.len() != 1 {
            self.complain(format!("a published volume has {} mounts: {mount:?}", mount.len()));
        }
        let (target, volume) = (volume.target_path().to_owned(), volume.volume_id().to_owned());
        *self.slot(slot) = Slot::Live { volume, target, mount, number: 0 };
        self.look(slot);
        self.count(0);
    }

    async fn refresh(&self, slot: usize, pod: &WorkloadName) {
        let _turn = self.gate.read().await;
        let wanted = self.change().await;
        let patience = Patience::new("a volume shows what is new");
        let mut looks = 0;
        while self.look(slot).is_none_or(|number| number < wanted) {
            if looks % LOOKS == 0 {
                self.succeeds(self.call_publish(pod).await);
            }
            looks += 1;
            patience.a_moment().await;
        }
        self.count(1);
    }

    async fn unpublish(&self, slot: usize, pod: &WorkloadName) {
        let _turn = self.gate.read().await;
        self.look(slot);
        let before = std::mem::take(&mut *self.slot(slot));
        let volume = self.volume(pod);
        let patience = Patience::new("a volume is unpublished");
        while !self.succeeds(self.kubelet.unpublish(&volume).await) {
            patience.a_moment().await;
        }
        let Slot::Live { mount, target, .. } = before else { unreachable!("it was published") };
        if !mounts::at(&target).is_empty() || target.exists() {
            self.complain(format!("an unpublished volume is left: {mount:?}"));
        }
        self.count(2);
    }

    async fn call_publish(&self, pod: &WorkloadName) -> Result<(), Status> {
        self.kubelet.publish(&self.volume(pod)).await
    }

    fn volume(&self, pod: &WorkloadName) -> Publish {
        volume(&self.kubelet, &self.cluster, pod, "storm", &Claims::new(pod, AUDIENCE))
    }

    /// Kubelet tries again, unless it is told that this is final: nothing here is.
    fn succeeds(&self, result: Result<(), Status>) -> bool {
        match result {
            Ok(()) => true,
            Err(status) => {
                if kubelet::is_final(status.code()) {
                    self.complain(format!("kubelet heard a final error: {status:?}"));
                }
                false
            }
        }
    }

    /// Puts the next number into the secret.
    async fn change(&self) -> u64 {
        let mut newest = self.newest.lock().await;
        *newest += 1;
        // Longer and shorter, so that what is cut off or left over is seen.
        let text = format!("{newest} {}", "x".repeat(usize::try_from(*newest % 7).unwrap() * 100));
        self.backend.admin().put("kv", "payments/storm", json!({"a": text, "b": text})).await.unwrap();
        *newest
    }

    /// Reads what the slot shows, and complains if that is not what it has to be. The number, if all is well.
    fn look(&self, slot: usize) -> Option<u64> {
        let Slot::Live { target, mount, number, .. } = self.slot(slot).clone() else { return None };
        let seen = sight::generation(&target).map_err(|error| error.to_string()).and_then(|files| whole(&files));
        let there = mounts::at(&target);
        let mut now = self.slot(slot);
        match &mut *now {
            Slot::Live { target: still, number: known, .. } if *still == target => match seen {
                Ok(seen) if seen >= number && there == mount => {
                    *known = seen.max(*known);
                    return Some(seen);
                }
                seen => {
                    drop(now);
                    self.complain(format!(
                        "a running pod sees {seen:?} after {number}, mounted {there:?}, was {mount:?}"
                    ));
                }
            },
            // It was taken away meanwhile; then it need not be there.
            _ => {}
        }
        None
    }

    /// The reader: looks at all slots until the storm is over.
    pub(crate) async fn watch(self: Arc<Self>) {
        while !self.is_over() {
            for slot in 0..SLOTS {
                self.look(slot);
            }
            wait::a_moment().await;
        }
    }

    /// Waits for what is under way, and keeps the next from beginning while the guard lives.
    pub(crate) async fn calm(&self) -> tokio::sync::RwLockWriteGuard<'_, ()> {
        self.gate.write().await
    }

    pub(crate) fn volumes(&self) -> Live {
        let live = self.slots.iter().filter_map(|slot| match slot.lock().unwrap().clone() {
            Slot::Live { volume, target, .. } => Some((volume, target)),
            Slot::Changing => None,
        });
        live.unzip()
    }

    pub(crate) fn operations(&self) -> u32 {
        self.done.iter().map(|done| done.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn tally(&self) -> String {
        let [publishes, refreshes, unpublishes] = self.done.each_ref().map(|done| done.load(Ordering::Relaxed));
        format!("{publishes} publishes, {refreshes} refreshes, {unpublishes} unpublishes")
    }

    pub(crate) fn finish(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn assert_no_complaint(&self) {
        let complaints = std::mem::take(&mut *self.complaints.lock().unwrap());
        assert!(complaints.is_empty(), "{} complaints: {}", complaints.len(), complaints.join("\n"));
    }

    fn complain(&self, what: String) {
        self.complaints.lock().unwrap().push(what);
    }

    fn count(&self, what: usize) {
        self.done[what].fetch_add(1, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn slot(&self, slot: usize) -> MutexGuard<'_, Slot> {
        self.slots[slot].lock().unwrap()
    }
}

/// The number of a complete set of files that belong together.
fn whole(files: &Files) -> Result<u64, String> {
    let names: Vec<_> = files.keys().map(String::as_str).collect();
    if names != ["a", "all.json", "below/b"] {
        return Err(format!("the files {names:?}"));
    }
    let text = |name: &str| String::from_utf8_lossy(&files[name]).into_owned();
    let (a, b) = (text("a"), text("below/b"));
    let all: serde_json::Value = serde_json::from_str(&text("all.json")).map_err(|error| error.to_string())?;
    let number: u64 = a.split(' ').next().and_then(|number| number.parse().ok()).ok_or("no number")?;
    let padding = usize::try_from(number % 7).unwrap() * 100;
    if a != b || all["a"] != a || all["b"] != b || a.len() != format!("{number} ").len() + padding {
        return Err(format!("a mixture: {a:?} {b:?} {all}"));
    }
    Ok(number)
}
