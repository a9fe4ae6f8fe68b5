// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Every order in which three callers can meet at two volumes, on the real plugin: decision 0014.
//!
//! Each call of the plugin to the warden or the backend is stopped; a schedule says which goes on, and how it ends, when
//! the next caller comes, when one leaves, when the engine half dies. From each state that was not seen before every choice
//! is tried, until there is none left, and after each the rules of [`World::judge`] have to hold.

#![allow(clippy::print_stdout, reason = "says what was explored, and the schedule that breaks a rule")]

use std::collections::{HashSet, hash_map::DefaultHasher};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use evanesce_csi::engine_half::adoption;
use evanesce_csi::engine_half::budget::Budget;
use evanesce_csi::engine_half::metrics::Metrics;
use evanesce_csi::engine_half::plugin::Plugin;
use evanesce_csi::engine_half::publish_request::PublishRequest;
use evanesce_csi::engine_half::refresher;
use evanesce_csi::protocol::{TargetPath, VolumeId};
use evanesce_engine::audit::Subject;
use evanesce_engine::audit::recording::RecordingAuditor;
use evanesce_engine::backend::fake::FakeBackend;
use evanesce_engine::deliver::Deliverer;
use evanesce_engine::error::{Error, Kind};
use evanesce_engine::fetch::{BackendHandle, Backends, Bounds, Fetcher};
use evanesce_engine::keep::HeapKeep;
use evanesce_engine::lease::Lender;
use evanesce_engine::names::{BackendName, Namespace, NodeName, PodName, PodUid, ServiceAccountName, VolumeClassName};
use evanesce_engine::policy::{Allow, Glob, SecretPattern};
use evanesce_engine::projection::DigestKey;
use evanesce_engine::secret::SecretBytes;
use evanesce_engine::spec::backend::Limits;
use evanesce_engine::token::{Audience, Tokens};
use evanesce_engine::workload::Workload;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::classes::{MemoryClasses, spec};
use crate::counts;
use crate::fake_mounts::{At, Call, FakeMounts};
use crate::ground::{FAR, TestClock};
use crate::stepped::{Outcome, Step, SteppedBackend, SteppedMounts, Steps, What};

/// What a caller wants, of the first or the second volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Wish {
    Publish(usize),
    Refresh(usize),
    Unpublish(usize),
}

use Wish::{Publish, Refresh, Unpublish};

impl Wish {
    fn volume(self) -> usize {
        match self {
            Publish(volume) | Refresh(volume) | Unpublish(volume) => volume,
        }
    }
}

/// What can happen next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Choice {
    /// This caller comes.
    Come(usize),
    /// This call ends so.
    Go(Step, Outcome),
    /// This caller does not wait any longer.
    Leave(usize),
    /// The engine half dies, and another one takes over.
    Die,
}

/// A caller.
enum Caller {
    ToCome,
    Waiting(Underway),
    /// Gone before the answer; what it began may go on.
    Left,
    Answered(Result<(), Kind>),
}

struct Underway {
    task: JoinHandle<Result<(), Error>>,
    /// Whether `ABORTED` would be a right answer: something was under way with the volume, or stuck.
    may_be_aborted: bool,
}

/// An engine half with its runtime.
struct Life {
    runtime: Runtime,
    plugin: Arc<Plugin>,
    adopting: Option<JoinHandle<Result<usize, Error>>>,
}

struct World {
    steps: Arc<Steps>,
    mounts: Arc<FakeMounts>,
    backend: FakeBackend,
    life: Life,
    wishes: Vec<Wish>,
    callers: Vec<Caller>,
    /// Who came, in order.
    came: Vec<usize>,
    /// How many things may still go wrong.
    disturbances: u32,
    deaths: u32,
    /// Volumes where a step of a removal failed: something may be left there until the next removal.
    tainted: [bool; 2],
    disturbed: [bool; 2],
    was_live: [bool; 2],
    refreshed: [bool; 2],
}

fn id(volume: usize) -> VolumeId {
    format!("csi-{volume}").parse().unwrap()
}

struct Store(Arc<BackendHandle>);

impl Backends for Store {
    fn find(&self, _: &BackendName) -> Result<Arc<BackendHandle>, Error> {
        Ok(Arc::clone(&self.0))
    }
}

impl World {
    /// Two volumes, of which some are live and show what has changed since.
    fn new(live: [bool; 2], wishes: &[Wish], disturbances: u32) -> Self {
        let backend = FakeBackend::new("store");
        backend.put("kv/db", &[("username", "app"), ("password", "first")]);
        let (steps, mounts) = (Arc::<Steps>::default(), Arc::new(FakeMounts::new()));
        let life = Life::start(&steps, &mounts, &backend);
        let callers = wishes.iter().map(|_| Caller::ToCome).collect();
        let mut world = Self {
            steps,
            mounts,
            backend,
            life,
            wishes: wishes.to_vec(),
            callers,
            came: Vec::new(),
            disturbances,
            deaths: 0,
            tainted: [false; 2],
            disturbed: [false; 2],
            was_live: live,
            refreshed: [false; 2],
        };
        for volume in (0..2).filter(|volume| live[*volume]) {
            world.now(Publish(volume)).unwrap();
        }
        world.backend.put("kv/db", &[("username", "app"), ("password", "second")]);
        world.steps.stop(true);
        world
    }

    fn target(&self, volume: usize) -> TargetPath {
        self.mounts.pods().join(format!("pod-{volume}/mount")).to_str().unwrap().parse().unwrap()
    }

    /// The request of the caller of this number.
    fn request(&self, volume: usize, caller: usize) -> PublishRequest {
        let json = format!(r#"{{"fake":{{"token":"token-{caller}","expirationTimestamp":"{FAR}"}}}}"#);
        let workload = Workload {
            namespace: Namespace::parse("payments").unwrap(),
            service_account: ServiceAccountName::parse(&format!("app-{volume}")).unwrap(),
            pod: PodName::parse("web-0").unwrap(),
            pod_uid: PodUid::parse(&format!("csi-{volume}")).unwrap(),
            node: NodeName::parse("node-1").unwrap(),
        };
        let class = VolumeClassName::parse("db").unwrap();
        PublishRequest {
            volume: id(volume),
            target: self.target(volume),
            subject: Subject { volume: id(volume).to_string(), workload, class },
            tokens: Tokens::parse(&SecretBytes::new(json.into_bytes()), &HeapKeep).unwrap(),
            group: None,
        }
    }

    fn call(&self, wish: Wish, caller: usize) -> JoinHandle<Result<(), Error>> {
        let plugin = Arc::clone(&self.life.plugin);
        match wish {
            Publish(volume) => {
                let request = self.request(volume, caller);
                self.life.runtime.spawn(async move { plugin.publish(request).await })
            }
            Unpublish(volume) => {
                let target = self.target(volume);
                self.life.runtime.spawn(async move { plugin.unpublish(id(volume), target).await })
            }
            Refresh(volume) => self.life.runtime.spawn(async move {
                plugin.deadlines.wait_for_token(&id(volume));
                plugin.deadlines.token_arrived(&id(volume), plugin.clock());
                Ok(())
            }),
        }
    }

    /// A call that nothing stops.
    fn now(&mut self, wish: Wish) -> Result<(), Error> {
        let task = self.call(wish, usize::MAX);
        let answer = self.life.runtime.block_on(task).unwrap();
        self.life.settle();
        answer
    }

    fn is_live(&self, volume: usize) -> bool {
        self.life.plugin.volumes.get(&id(volume)).is_some()
    }

    fn is_busy(&self, volume: usize) -> bool {
        let name = id(volume).to_string();
        self.life.adopting.is_some() || self.steps.waiting().iter().any(|step| step.volume.as_ref() == Some(&name))
    }

    /// What can happen next. Callers that want the same are the same, so the first of them comes first.
    fn choices(&self) -> Vec<Choice> {
        let mut choices = Vec::new();
        let waiting = self.steps.waiting();
        choices.extend(waiting.iter().map(|step| Choice::Go(step.clone(), Outcome::Done)));
        for (caller, wish) in self.wishes.iter().enumerate() {
            let first = self.wishes[..caller].iter().zip(&self.callers);
            let waits_for_twin = first.into_iter().any(|(it, caller)| it == wish && matches!(caller, Caller::ToCome));
            if matches!(self.callers[caller], Caller::ToCome) && !waits_for_twin && self.life.adopting.is_none() {
                choices.push(Choice::Come(caller));
            }
        }
        if self.disturbances > 0 {
            for step in waiting {
                // The warden has a volume last of all: one that it does not hand over is none.
                let lost = (step.what != What::Mounts(Call::Make)).then_some(Outcome::Lost);
                choices.extend(lost.into_iter().chain([Outcome::Failed]).map(|how| Choice::Go(step.clone(), how)));
            }
            let leaves = |caller: &Caller| matches!(caller, Caller::Waiting(_));
            choices.extend((0..self.callers.len()).filter(|it| leaves(&self.callers[*it])).map(Choice::Leave));
            if !self.came.is_empty() {
                choices.push(Choice::Die);
            }
        }
        choices
    }

    fn take(&mut self, choice: &Choice) {
        match choice {
            Choice::Come(caller) => {
                let wish = self.wishes[*caller];
                let volume = wish.volume();
                let may_be_aborted = !self.is_live(volume) && (self.is_busy(volume) || self.tainted[volume]);
                self.refreshed[volume] |= matches!(wish, Refresh(_)) && self.is_live(volume);
                self.callers[*caller] = Caller::Waiting(Underway { task: self.call(wish, *caller), may_be_aborted });
                self.came.push(*caller);
            }
            Choice::Go(step, outcome) => {
                if *outcome != Outcome::Done {
                    self.disturbances -= 1;
                    let removal = matches!(step.what, What::Mounts(Call::Detach | Call::DropRecord));
                    for volume in (0..2).filter(|it| step.volume.as_ref().is_none_or(|of| *of == id(*it).to_string())) {
                        self.tainted[volume] |= removal;
                        self.disturbed[volume] = true;
                    }
                }
                self.steps.go(step, *outcome);
            }
            Choice::Leave(caller) => {
                self.disturbances -= 1;
                self.disturbed[self.wishes[*caller].volume()] = true;
                if let Caller::Waiting(call) = std::mem::replace(&mut self.callers[*caller], Caller::Left) {
                    call.task.abort();
                }
            }
            Choice::Die => self.die(),
        }
        self.life.settle();
        self.judge();
    }

    /// The engine half is killed: its tasks are gone where they stood, and the warden forgets what was not attached.
    fn die(&mut self) {
        self.disturbances -= 1;
        self.deaths += 1;
        self.disturbed = [true; 2];
        self.next_life();
    }

    fn next_life(&mut self) {
        let next = Life::start(&self.steps, &self.mounts, &self.backend);
        std::mem::replace(&mut self.life, next).runtime.shutdown_background();
        self.mounts.forget_unattached();
        for caller in &mut self.callers {
            if matches!(caller, Caller::Waiting(_)) {
                *caller = Caller::Left;
            }
        }
        let plugin = Arc::clone(&self.life.plugin);
        self.life.adopting = Some(self.life.runtime.spawn(async move { adoption::adopt(&plugin).await }));
    }

    /// What holds after every step.
    fn judge(&mut self) {
        if let Some(adopting) = self.life.adopting.take_if(|adopting| adopting.is_finished())
            && self.life.runtime.block_on(adopting).unwrap().is_err()
        {
            // The engine half ends, and the warden starts another one.
            self.next_life();
        }
        for (caller, wish) in self.callers.iter_mut().zip(&self.wishes) {
            let Caller::Waiting(call) = caller else { continue };
            if !call.task.is_finished() {
                continue;
            }
            let answer = self.life.runtime.block_on(&mut call.task).unwrap().map_err(|error| error.kind());
            let aborted = answer == Err(Kind::Busy);
            assert!(!aborted || call.may_be_aborted, "{wish:?} hears ABORTED, and nothing is under way");
            let disturbed = self.disturbed[wish.volume()];
            assert!(answer.is_ok() || aborted || disturbed, "{wish:?} fails by itself: {answer:?}");
            *caller = Caller::Answered(answer);
        }
        let records = self.mounts.records();
        for volume in 0..2 {
            let (at, live) = (self.mounts.at(id(volume).as_str(), &self.target(volume)), self.is_live(volume));
            assert_ne!(at, At::Another, "something is mounted that nobody holds");
            if self.is_busy(volume) {
                continue;
            }
            // Nothing is under way with this volume: what is known of it is what there is.
            self.was_live[volume] &= live;
            self.refreshed[volume] &= live;
            let record = records.contains_key(&id(volume));
            match live {
                true => assert!(at == At::Mounted && record, "a live volume is {at:?}, with a record: {record}"),
                false if self.tainted[volume] => {}
                false => assert!(at == At::Nothing && !record, "no volume, and there is {at:?}, a record: {record}"),
            }
            if live {
                self.tainted[volume] = false;
                self.judge_files(volume);
            }
        }
        let sizes: u64 = self.life.plugin.volumes.live().len() as u64 * crate::ground::VOLUME;
        let open = (0..2).any(|volume| self.is_busy(volume) || self.tainted[volume]);
        assert!(open || self.life.plugin.budget.reserved() == sizes, "memory is reserved for nobody");
    }

    /// A volume shows one whole set, and the newest one if anybody asked for it.
    fn judge_files(&self, volume: usize) {
        let file = |name: &str| std::fs::read_to_string(format!("{}/{name}", self.target(volume))).unwrap_or_default();
        let (username, password) = (file("username"), file("password"));
        let newest = !self.was_live[volume] || (self.refreshed[volume] && !self.disturbed[volume]);
        assert!(
            username == "app" && (password == "second" || (!newest && password == "first")),
            "{volume}: {password:?}"
        );
    }

    /// What holds when nothing can happen any more.
    fn finish(mut self) {
        for (caller, wish) in self.callers.iter().zip(&self.wishes) {
            assert!(!matches!(caller, Caller::Waiting(_)), "{wish:?} waits for ever");
        }
        assert!(self.life.plugin.tasks.is_empty(), "a task waits for ever");
        for volume in 0..2 {
            self.judge_tokens(volume);
            self.judge_removals(volume);
        }
        // Whatever happened, kubelet's next calls put it right.
        self.steps.stop(false);
        for volume in 0..2 {
            self.now(Unpublish(volume)).unwrap();
            self.tainted[volume] = false;
            self.was_live[volume] = false;
        }
        self.judge();
        assert_eq!((self.mounts.volumes(), self.life.plugin.budget.reserved()), (0, 0), "something is left");
        self.now(Publish(0)).unwrap();
        self.judge();
    }

    /// No token is lost: a live volume has the one of the last publish that was answered, or a later one.
    fn judge_tokens(&self, volume: usize) {
        let Some(live) = self.life.plugin.volumes.get(&id(volume)) else { return };
        let came: Vec<_> = self.came.iter().copied().filter(|caller| self.wishes[*caller] == Publish(volume)).collect();
        let last = came.iter().rposition(|caller| matches!(self.callers[*caller], Caller::Answered(Ok(()))));
        let Some(last) = last.filter(|_| self.deaths == 0) else { return };
        let tokens = live.tokens();
        let token = tokens.get(&Audience::new("fake"), self.life.plugin.clock().now()).unwrap();
        let is = |caller: &usize| format!("token-{caller}").as_bytes() == token.expose();
        assert!(came[last..].iter().any(is), "the token of caller {} is lost", came[last]);
    }

    /// An unpublish wins: unless somebody came after it, the volume is gone.
    fn judge_removals(&self, volume: usize) {
        let of = |wish: Wish| {
            self.came.iter().rposition(|caller| {
                self.wishes[*caller] == wish
                    && (wish == Publish(volume) || matches!(self.callers[*caller], Caller::Answered(Ok(()))))
            })
        };
        if of(Unpublish(volume)) > of(Publish(volume)) {
            assert!(!self.is_live(volume), "an unpublish was answered and the volume is there");
        }
    }

    /// Everything that what follows depends on.
    fn state(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for caller in &self.callers {
            match caller {
                Caller::ToCome => 0.hash(&mut hasher),
                Caller::Waiting(call) => (1, call.may_be_aborted).hash(&mut hasher),
                Caller::Left => 2.hash(&mut hasher),
                Caller::Answered(answer) => (3, answer).hash(&mut hasher),
            }
        }
        (&self.came, self.disturbances, self.deaths, self.steps.waiting()).hash(&mut hasher);
        (self.tainted, self.disturbed, self.was_live, self.refreshed).hash(&mut hasher);
        (self.life.adopting.is_some(), self.life.plugin.tasks.len()).hash(&mut hasher);
        let records = self.mounts.records();
        for volume in 0..2 {
            let file = std::fs::read(format!("{}/password", self.target(volume))).ok();
            let at = self.mounts.at(id(volume).as_str(), &self.target(volume));
            (at, self.is_live(volume), file, records.get(&id(volume)).map(Vec::len)).hash(&mut hasher);
        }
        hasher.finish()
    }
}

impl Life {
    fn start(steps: &Arc<Steps>, mounts: &Arc<FakeMounts>, backend: &FakeBackend) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let guard = runtime.enter();
        let stepped = SteppedBackend { steps: Arc::clone(steps), backend: backend.clone() };
        let allow = Allow {
            namespaces: vec![Glob::parse("*")],
            service_accounts: vec![Glob::parse("*")],
            secrets: vec![SecretPattern::parse("*", &stepped).unwrap()],
            role: None,
        };
        let handle = BackendHandle::new(Arc::new(stepped), vec![allow], Limits::default(), 1);
        let (clock, metrics) =
            (Arc::new(TestClock { start: Instant::now(), ahead: 0.into() }), Arc::new(Metrics::declare().0));
        // Without answers that stay for a moment: they are no part of the state that is compared.
        let bounds = Bounds { entries: 0, bytes: 0 };
        let classes = Arc::new(MemoryClasses::new());
        classes.set("db", spec(&["username kv/db username", "password kv/db password"]));
        let fetcher = Fetcher::new(
            (Arc::new(HeapKeep), bounds),
            (Arc::new(HeapKeep), bounds),
            Arc::clone(&clock) as _,
            Arc::clone(&metrics) as _,
        );
        let backends: Arc<dyn Backends> = Arc::new(Store(Arc::new(handle)));
        let auditor = Arc::new(RecordingAuditor::default());
        let lender = Lender::new(
            Arc::new(()),
            Arc::new(HeapKeep),
            Arc::clone(&backends),
            Arc::clone(&fetcher),
            Arc::clone(&auditor) as _,
            Arc::clone(&clock) as _,
            DigestKey::new(&[7; 32]),
        );
        let deliverer = Deliverer {
            fetcher,
            lender,
            classes,
            backends,
            auditor,
            clock,
            digests: DigestKey::new(&[7; 32]),
            limit: Duration::from_secs(20),
        };
        let plugin = Arc::new(Plugin {
            deliverer,
            mounts: Arc::new(SteppedMounts { steps: Arc::clone(steps), mounts: Arc::clone(mounts) }),
            budget: Budget::new(1 << 30, 1 << 30),
            volumes: Default::default(),
            deadlines: Default::default(),
            metrics,
            left_alone: Default::default(),
            found: Default::default(),
            any_unknown: true.into(),
            tasks: Default::default(),
        });
        runtime.spawn(refresher::run(Arc::clone(&plugin), unbounded_channel().1, Default::default()));
        drop(guard);
        Self { runtime, plugin, adopting: None }
    }

    /// Lets everything run that no step stops: the clock of a paused runtime moves only when all else waits.
    fn settle(&self) {
        self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
    }
}

/// How many states there are, and how many schedules reach an end.
#[derive(Default)]
struct Explored {
    states: usize,
    ends: usize,
}

impl Explored {
    fn explore(&mut self, live: [bool; 2], wishes: &[Wish], disturbances: u32) {
        let mut seen = HashSet::new();
        let mut open = vec![Vec::<Choice>::new()];
        while let Some(mut path) = open.pop() {
            // What the guard holds when a rule is broken is the schedule that breaks it.
            let told = Told { live, wishes, path: &mut path };
            let mut world = World::new(live, wishes, disturbances);
            for choice in told.path.iter() {
                world.take(choice);
            }
            while seen.insert(world.state()) {
                let choices = world.choices();
                let Some((next, others)) = choices.split_first() else {
                    self.ends += 1;
                    world.finish();
                    break;
                };
                open.extend(others.iter().map(|other| [told.path.as_slice(), std::slice::from_ref(other)].concat()));
                told.path.push(next.clone());
                world.take(next);
            }
        }
        self.states += seen.len();
    }
}

/// Prints the schedule of a world that breaks a rule.
struct Told<'a> {
    live: [bool; 2],
    wishes: &'a [Wish],
    path: &'a mut Vec<Choice>,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("live at first: {:?}, callers: {:?}", self.live, self.wishes);
            self.path.iter().for_each(|choice| println!("  {choice:?}"));
        }
    }
}

/// Every way to choose so many callers, whatever they want of which volume.
fn crowds(callers: usize) -> Vec<Vec<Wish>> {
    const WISHES: [Wish; 6] = [Publish(0), Refresh(0), Unpublish(0), Publish(1), Refresh(1), Unpublish(1)];
    let mut crowds = vec![Vec::new()];
    for _ in 0..callers {
        let with = |crowd: &Vec<Wish>| {
            let least = crowd.last().map_or(0, |last| WISHES.iter().position(|it| it == last).unwrap());
            WISHES[least..].iter().map(|wish| [crowd.as_slice(), &[*wish]].concat()).collect::<Vec<_>>()
        };
        crowds = crowds.iter().flat_map(with).collect();
    }
    crowds
}

/// The same with the volumes exchanged.
fn mirrored(crowd: &[Wish]) -> Vec<Wish> {
    let mut mirrored: Vec<_> = crowd
        .iter()
        .map(|wish| match wish {
            Publish(volume) => Publish(1 - volume),
            Refresh(volume) => Refresh(1 - volume),
            Unpublish(volume) => Unpublish(1 - volume),
        })
        .collect();
    mirrored.sort_by_key(|wish| (wish.volume(), *wish));
    mirrored
}

#[test]
fn no_order_of_callers_failures_and_deaths_loses_or_doubles_a_volume() {
    let callers = counts::CALLERS_AT_TWO_VOLUMES.get() as usize;
    let mut explored = Explored::default();
    for mut crowd in crowds(callers) {
        crowd.sort_by_key(|wish| (wish.volume(), *wish));
        // What one volume has to do with the other does not depend on which is called the first.
        if mirrored(&crowd) < crowd {
            continue;
        }
        // A volume that nobody wants anything of is not there.
        let may_live =
            |volume| if crowd.iter().any(|wish| wish.volume() == volume) { &[false, true][..] } else { &[false] };
        for first in may_live(0) {
            for second in may_live(1) {
                explored.explore([*first, *second], &crowd, 1);
            }
        }
    }
    println!("{callers} callers at two volumes: {} states, {} ends", explored.states, explored.ends);
    assert!(explored.states > 1000);
}
