// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A node's fetcher, deliveries that ask through it, and a place for values that counts what lies in it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use evanesce_engine::audit::recording::RecordingAuditor;
use evanesce_engine::audit::{Purpose, Scope, Shown, Source, Subject};
use evanesce_engine::backend::contract;
use evanesce_engine::backend::fake::FakeBackend;
use evanesce_engine::clock::SystemClock;
use evanesce_engine::error::Error;
use evanesce_engine::fetch::{Answers, BackendHandle, Bounds, Fetch, Fetcher, Meter, Wait};
use evanesce_engine::keep::{HeapKeep, Keep, Kept};
use evanesce_engine::lease::ledger::Became;
use evanesce_engine::lease::testing::lender;
use evanesce_engine::names::VolumeClassName;
use evanesce_engine::policy::{self, Allow, Glob, SecretPattern};
use evanesce_engine::secret::SecretBytes;
use evanesce_engine::secret_ref::{SecretPath, SecretRef};
use evanesce_engine::spec::backend::Limits;
use evanesce_engine::token::Tokens;
use evanesce_engine::workload::Workload;

/// Wall time at which tokens are valid.
const NOW: SystemTime = SystemTime::UNIX_EPOCH;

/// What all deliveries of a node have in common.
pub(crate) struct Node {
    pub(crate) fetcher: Arc<Fetcher>,
    pub(crate) keep: Arc<CountingKeep>,
    pub(crate) auditor: Arc<RecordingAuditor>,
    pub(crate) meter: Arc<CountingMeter>,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with_bounds(Bounds { entries: 64, bytes: 1 << 16 })
    }

    pub(crate) fn with_bounds(bounds: Bounds) -> Self {
        let (keep, meter) = (Arc::<CountingKeep>::default(), Arc::<CountingMeter>::default());
        let fetcher = Fetcher::new(
            (Arc::clone(&keep) as _, bounds),
            (Arc::clone(&keep) as _, bounds),
            Arc::new(SystemClock),
            Arc::clone(&meter) as _,
        );
        Self { fetcher, keep, auditor: Arc::default(), meter }
    }

    /// One delivery's questions, in a task of their own.
    pub(crate) fn begin(&self, ask: &Ask) -> tokio::task::JoinHandle<Result<Option<Answers>, Error>> {
        let (fetcher, auditor, ask) = (Arc::clone(&self.fetcher), Arc::clone(&self.auditor), ask.clone());
        let lender = lender(&fetcher, Arc::clone(&auditor) as _);
        tokio::spawn(async move {
            let subject = Subject {
                volume: ask.volume.clone(),
                workload: ask.workload.clone(),
                class: VolumeClassName::parse("app-db").unwrap(),
            };
            let scope = Scope::open(auditor, subject, ask.purpose);
            let result = match Fetch::plan(&fetcher, &lender, &scope, &ask.tokens(), NOW, ask.grants(), None) {
                Ok(fetch) => fetch.run(ask.known.as_deref()).await,
                Err(error) => Err(error),
            };
            scope.close(&result, |_, _| None);
            result
        })
    }

    /// One delivery's questions, to their end.
    pub(crate) async fn ask(&self, ask: &Ask) -> Result<Option<Answers>, Error> {
        self.begin(ask).await.unwrap()
    }
}

/// What one delivery asks; tests change one part of it.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) fake: FakeBackend,
    pub(crate) revision: u64,
    pub(crate) limits: Limits,
    pub(crate) role: Option<String>,
    pub(crate) purpose: Purpose,
    pub(crate) known: Option<Vec<Shown>>,
    pub(crate) volume: String,
    pub(crate) workload: Workload,
    pub(crate) account_uid: Option<String>,
    pub(crate) paths: Vec<String>,
    pub(crate) version: Option<u64>,
    pub(crate) args: BTreeMap<String, String>,
    /// One handle for several deliveries, as a registry gives it.
    pub(crate) shared_handle: Option<Arc<BackendHandle>>,
}

impl Ask {
    /// A new volume of `payments/app`.
    pub(crate) fn of(fake: &FakeBackend, paths: &[&str]) -> Self {
        Self {
            fake: fake.clone(),
            revision: 1,
            limits: Limits { timeout: Duration::from_secs(60), ..Limits::default() },
            role: None,
            purpose: Purpose::First,
            known: None,
            volume: "csi-1".into(),
            workload: contract::workload(),
            account_uid: Some("0b1c8a6e".into()),
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            version: None,
            args: BTreeMap::new(),
            shared_handle: None,
        }
    }

    /// The same with something else in one place.
    pub(crate) fn but(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut other = self.clone();
        change(&mut other);
        other
    }

    fn tokens(&self) -> Tokens {
        let with_uid = contract::unsigned_token(&self.workload, self.account_uid.as_deref().unwrap_or_default());
        let token = if self.account_uid.is_some() { with_uid } else { "e30.e30.c2ln".to_owned() };
        let one = |audience: &str| {
            format!(r#""{audience}":{{"token":"{token}","expirationTimestamp":"2100-01-01T00:00:00Z"}}"#)
        };
        let json = format!("{{{},{}}}", one("fake"), one("other"));
        Tokens::parse(&SecretBytes::from(json.as_bytes()), &HeapKeep).unwrap()
    }

    /// The backend as a registry has it.
    pub(crate) fn handle(&self) -> Arc<BackendHandle> {
        let allow = Allow {
            namespaces: vec![Glob::parse("*")],
            service_accounts: vec![Glob::parse("*")],
            secrets: vec![SecretPattern::parse("*", &self.fake).unwrap()],
            role: self.role.clone(),
        };
        Arc::new(BackendHandle::new(Arc::new(self.fake.clone()), vec![allow], self.limits, self.revision))
    }

    fn grants(&self) -> Vec<(Arc<BackendHandle>, policy::Grant)> {
        let handle = self.shared_handle.clone().unwrap_or_else(|| self.handle());
        let grant = |path: &String| {
            let reference = SecretRef {
                backend: handle.backend.name().clone(),
                path: SecretPath::parse(path).unwrap(),
                version: self.version,
                args: self.args.clone(),
            };
            let grant = policy::authorise(&self.fake, &handle.allow, &self.workload, &reference).unwrap();
            (Arc::clone(&handle), grant)
        };
        self.paths.iter().map(grant).collect()
    }
}

/// The one value of each answer, in the order of paths.
pub(crate) fn values(answers: Result<Option<Answers>, Error>) -> Vec<String> {
    let answers = answers.unwrap().unwrap();
    let text = |bytes: &SecretBytes| String::from_utf8(bytes.expose().to_vec()).unwrap();
    answers.secrets.values().map(|secret| text(&secret.values["a"].bytes)).collect()
}

/// Waits until something is so; with paused time, as long as that takes.
pub(crate) async fn until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if is_so() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it did not become so");
}

/// Counts the values in it.
#[derive(Default)]
pub(crate) struct CountingKeep {
    pub(crate) live: Arc<AtomicUsize>,
    pub(crate) bytes: Arc<AtomicUsize>,
    /// How many there were, ever.
    pub(crate) ever: AtomicUsize,
    /// The most bytes that fit; none where zero.
    pub(crate) capacity: Mutex<Option<usize>>,
}

struct Counted(SecretBytes, Arc<AtomicUsize>, Arc<AtomicUsize>);

impl Keep for CountingKeep {
    fn keep(&self, value: SecretBytes) -> Result<Box<dyn Kept>, Error> {
        let full = |capacity| self.bytes.load(Ordering::Relaxed) + value.len() > capacity;
        if self.capacity.lock().unwrap().is_some_and(full) {
            return Err(Error::exhausted("full"));
        }
        self.live.fetch_add(1, Ordering::Relaxed);
        self.ever.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(value.len(), Ordering::Relaxed);
        Ok(Box::new(Counted(value, Arc::clone(&self.live), Arc::clone(&self.bytes))))
    }
}

impl Kept for Counted {
    fn expose(&self) -> &[u8] {
        self.0.expose()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::Relaxed);
        self.2.fetch_sub(self.0.len(), Ordering::Relaxed);
    }
}

impl CountingKeep {
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }
}

/// Adds up what it is told.
#[derive(Default)]
pub(crate) struct CountingMeter {
    pub(crate) waiting: AtomicI64,
    pub(crate) under_way: AtomicI64,
    pub(crate) most_under_way: AtomicI64,
    pub(crate) left_alone: AtomicI64,
    pub(crate) held_back: AtomicI64,
    /// Probes of a backend that was away, and of one that was back.
    pub(crate) probes: [AtomicI64; 2],
    sources: Mutex<Vec<Source>>,
}

impl CountingMeter {
    pub(crate) fn count(&self, source: Source) -> usize {
        self.sources.lock().unwrap().iter().filter(|other| **other == source).count()
    }
}

impl Meter for CountingMeter {
    fn waiting(&self, _: &'static str, _: Wait, more: i32) {
        self.waiting.fetch_add(more.into(), Ordering::Relaxed);
    }

    fn under_way(&self, _: &'static str, more: i32) {
        let now = self.under_way.fetch_add(more.into(), Ordering::Relaxed) + i64::from(more);
        self.most_under_way.fetch_max(now, Ordering::Relaxed);
    }

    fn answered(&self, _: &'static str, source: Source) {
        self.sources.lock().unwrap().push(source);
    }

    fn left_alone(&self, _: &'static str, more: i32) {
        self.left_alone.fetch_add(more.into(), Ordering::Relaxed);
    }

    fn probed(&self, _: &'static str, is_back: bool) {
        self.probes[usize::from(is_back)].fetch_add(1, Ordering::Relaxed);
    }

    fn held_back(&self, _: &'static str) {
        self.held_back.fetch_add(1, Ordering::Relaxed);
    }

    fn leased(&self, _: &str, _: Became) {}
}
