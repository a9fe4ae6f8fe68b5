// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A backend in memory that uses everything the trait has, and that a test can script.
//!
//! It passes the contract suite, so what is shown with it holds for the real ones. It leases, expires, numbers its
//! versions, checks them cheaply, reads in batches, asks for fewer requests and tells service accounts apart.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use crate::backend::{Backend, BackendError, BackendErrorKind, Caller, Identity, Login, Principal, Session};
use crate::error::Error;
use crate::names::{BackendName, Namespace, ServiceAccountName};
use crate::policy::Grant;
use crate::secret::{Lease, Secret, SecretBytes, Value, ValueKind, Version};
use crate::secret_ref::{SecretRef, WirePath};
use crate::token::Audience;

/// What stands before every path on its imagined wire.
const ROOT: &str = "fake/";
/// How many questions one batch takes.
const BATCH: usize = 4;
/// How long a login is good for.
const LOGIN: Duration = Duration::from_secs(24 * 3600);

/// A backend in memory; clones of the handle share one memory.
#[derive(Clone)]
pub struct FakeBackend {
    name: BackendName,
    kind: &'static str,
    mount: String,
    role: String,
    audience: Option<Audience>,
    sees_pods: bool,
    memory: Arc<Memory>,
}

/// What it was asked so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Logins, successful or not.
    pub logins: u64,
    /// Sessions that are open now.
    pub sessions: u64,
    /// Batches; a single fetch is a batch of one.
    pub batches: u64,
    /// Secrets that were asked for.
    pub fetches: u64,
    /// Versions that were asked for.
    pub versions: u64,
    /// Logins that were ended.
    pub revocations: u64,
    /// Logins and leases that were prolonged.
    pub renewals: u64,
    /// The most batches that were under way at one time.
    pub most_side_by_side: u64,
}

struct Memory {
    state: Mutex<State>,
    /// A request holds a permit while it is under way; a test that takes all of them stops every request.
    gate: Semaphore,
}

#[derive(Default)]
struct State {
    secrets: BTreeMap<String, Stored>,
    denied: BTreeSet<String>,
    /// Called shareable although their answers are not.
    mistaken: BTreeSet<String>,
    strangers: BTreeSet<(Namespace, ServiceAccountName)>,
    failures: VecDeque<(BackendErrorKind, Option<Duration>)>,
    always: Option<(BackendErrorKind, Option<Duration>)>,
    latency: Duration,
    counts: Counts,
    under_way: u64,
    leases: u64,
    /// The logins that were not ended, each with what was lent to it.
    logins: BTreeMap<String, Vec<String>>,
    /// Logins and leases are prolonged.
    prolongs: bool,
    /// Prolongs no lease, but fails in this way.
    renews_not: Option<BackendErrorKind>,
    /// No login is ended.
    keeps: bool,
    /// Called leased although nothing is lent.
    lends_nothing: BTreeSet<String>,
}

#[derive(Default)]
struct Stored {
    versions: Vec<BTreeMap<String, String>>,
    lease: Option<Duration>,
    expires_at: Option<SystemTime>,
    rotates_in: Option<Duration>,
}

impl FakeBackend {
    /// An empty one that wants a token for audience `fake`.
    ///
    /// # Panics
    /// Where the name is not one.
    pub fn new(name: &str) -> Self {
        Self {
            name: BackendName::parse(name).expect("a backend's name"),
            kind: "fake",
            mount: "fake".to_owned(),
            role: "app".to_owned(),
            audience: Some(Audience::new("fake")),
            sees_pods: false,
            memory: Arc::new(Memory { state: Mutex::default(), gate: Semaphore::new(Semaphore::MAX_PERMITS) }),
        }
    }

    /// The same memory under another name.
    ///
    /// # Panics
    /// Where the name is not one.
    #[must_use]
    pub fn with_name(&self, name: &str) -> Self {
        Self { name: BackendName::parse(name).expect("a backend's name"), ..self.clone() }
    }

    /// The same memory, called one of another kind: metrics count none of a kind that they do not know.
    #[must_use]
    pub fn with_kind(&self, kind: &'static str) -> Self {
        Self { kind, ..self.clone() }
    }

    /// The same memory, telling the pods of one service account apart.
    #[must_use]
    pub fn seeing_pods(&self) -> Self {
        Self { sees_pods: true, ..self.clone() }
    }

    /// The same memory under another mount.
    #[must_use]
    pub fn with_mount(&self, mount: &str) -> Self {
        Self { mount: mount.to_owned(), ..self.clone() }
    }

    /// The same memory with another role of its own.
    #[must_use]
    pub fn with_role(&self, role: &str) -> Self {
        Self { role: role.to_owned(), ..self.clone() }
    }

    /// The same memory for another audience; `None` for a backend that logs no pod in.
    #[must_use]
    pub fn with_audience(&self, audience: Option<&str>) -> Self {
        Self { audience: audience.map(Audience::new), ..self.clone() }
    }

    /// Adds a version of a secret and answers its number.
    pub fn put(&self, path: &str, values: &[(&str, &str)]) -> u64 {
        let values = values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let mut state = self.memory.state();
        let versions = &mut state.secrets.entry(path.to_owned()).or_default().versions;
        versions.push(values);
        versions.len() as u64
    }

    /// Answers of this path come with a lease of this length.
    pub fn lease(&self, path: &str, duration: Duration) {
        self.memory.state().secrets.entry(path.to_owned()).or_default().lease = Some(duration);
    }

    /// Calls this path leased, and lends nothing with it.
    pub fn lease_nothing(&self, path: &str) {
        let mut state = self.memory.state();
        state.secrets.entry(path.to_owned()).or_default().lease = None;
        state.lends_nothing.insert(path.to_owned());
    }

    /// Ends no login any more.
    pub fn refuse_revocations(&self) {
        self.memory.state().keeps = true;
    }

    /// Answers of this path end then.
    pub fn expire(&self, path: &str, at: SystemTime) {
        self.memory.state().secrets.entry(path.to_owned()).or_default().expires_at = Some(at);
    }

    /// Answers of this path say that they change so long after each answer.
    pub fn rotate(&self, path: &str, after: Duration) {
        self.memory.state().secrets.entry(path.to_owned()).or_default().rotates_in = Some(after);
    }

    /// Deletes a secret with all its versions.
    pub fn delete(&self, path: &str) {
        self.memory.state().secrets.remove(path);
    }

    /// Refuses this path to everybody.
    pub fn deny(&self, path: &str) {
        self.memory.state().denied.insert(path.to_owned());
    }

    /// Calls this path shareable, also where its answers turn out not to be.
    pub fn call_shareable(&self, path: &str) {
        self.memory.state().mistaken.insert(path.to_owned());
    }

    /// Logs this service account in no more.
    pub fn refuse_login(&self, namespace: &Namespace, service_account: &ServiceAccountName) {
        self.memory.state().strangers.insert((namespace.clone(), service_account.clone()));
    }

    /// Fails the next request (a login, a batch or a version) in this way; several wait their turn.
    pub fn fail_next(&self, kind: BackendErrorKind, retry_after: Option<Duration>) {
        self.memory.state().failures.push_back((kind, retry_after));
    }

    /// Fails every request in this way until [`FakeBackend::recover`].
    pub fn fail(&self, kind: BackendErrorKind, retry_after: Option<Duration>) {
        self.memory.state().always = Some((kind, retry_after));
    }

    /// Fails no more.
    pub fn recover(&self) {
        let mut state = self.memory.state();
        state.always = None;
        state.failures.clear();
    }

    /// Takes so long for every request.
    pub fn delay(&self, latency: Duration) {
        self.memory.state().latency = latency;
    }

    /// Stops every request that comes from now on, until [`FakeBackend::release`]. [`Counts`] say who arrived.
    pub fn hold(&self) {
        self.memory.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Lets the stopped requests go on.
    pub fn release(&self) {
        self.memory.gate.add_permits(Semaphore::MAX_PERMITS - self.memory.gate.available_permits());
    }

    /// Prolongs logins and leases from now on.
    pub fn prolong(&self) {
        self.memory.state().prolongs = true;
    }

    /// Refuses in this way to prolong leases, whatever they say of themselves.
    pub fn refuse_renewals(&self, kind: BackendErrorKind) {
        self.memory.state().renews_not = Some(kind);
    }

    /// The leases that are not given back, in no order that counts.
    pub fn lent(&self) -> Vec<String> {
        self.memory.state().logins.values().flatten().cloned().collect()
    }

    /// What it was asked so far.
    pub fn counts(&self) -> Counts {
        self.memory.state().counts
    }
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What every request goes through: the gate, the latency, the scripted failure.
    async fn request(&self, count: impl FnOnce(&mut Counts)) -> Result<(), BackendError> {
        let latency = {
            let mut state = self.state();
            count(&mut state.counts);
            state.latency
        };
        drop(self.gate.acquire().await);
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let mut state = self.state();
        let failure = state.failures.pop_front().or(state.always);
        failure.map_or(Ok(()), |(kind, retry_after)| {
            Err(BackendError { kind, message: format!("the fake was told to fail: {kind:?}"), retry_after })
        })
    }

    /// Whether the login is there.
    fn known(&self, token: &str) -> Result<(), BackendError> {
        let there = self.state().logins.contains_key(token);
        there.then_some(()).ok_or_else(|| BackendError::new(BackendErrorKind::Denied, "the fake knows no such login"))
    }

    fn read(&self, grant: &Grant, token: &str) -> Result<Secret, BackendError> {
        let path = strip(grant)?;
        let mut state = self.state();
        let state = &mut *state;
        if state.denied.contains(path) {
            return Err(BackendError::new(BackendErrorKind::Denied, format!("the fake refuses {path}")));
        }
        let (number, stored) = state.find(path, grant.reference().version)?;
        let value = |text: &String| Value { bytes: SecretBytes::from(text.as_bytes()), kind: ValueKind::Text };
        let values = stored.versions[number - 1].iter().map(|(key, text)| (key.clone(), value(text))).collect();
        let Stored { lease, expires_at, rotates_in, .. } = *stored;
        state.leases += 1;
        let id = format!("{path}/{}", state.leases);
        if lease.is_some() {
            state.logins.entry(token.to_owned()).or_default().push(id.clone());
        }
        let lease = lease.map(|duration| Lease { id: SecretBytes::from(id.as_bytes()), duration, renewable: true });
        let request_id = Some(format!("fake-{}", state.counts.batches));
        Ok(Secret { values, version: Some(Version::new(number)), lease, expires_at, rotates_in, request_id })
    }
}

impl State {
    /// The number and the secret; versions count from 1.
    fn find(&self, path: &str, version: Option<u64>) -> Result<(usize, &Stored), BackendError> {
        let missing = || BackendError::new(BackendErrorKind::NotFound, format!("the fake has no {path}"));
        let stored = self.secrets.get(path).ok_or_else(missing)?;
        let last = stored.versions.len();
        let number = version.map_or(Some(last), |version| usize::try_from(version).ok()).ok_or_else(missing)?;
        if (1..=last).contains(&number) { Ok((number, stored)) } else { Err(missing()) }
    }
}

fn strip(grant: &Grant) -> Result<&str, BackendError> {
    grant
        .path()
        .as_str()
        .strip_prefix(ROOT)
        .ok_or_else(|| BackendError::new(BackendErrorKind::Malformed, "a grant of another backend".to_owned()))
}

#[async_trait]
impl Backend for FakeBackend {
    fn name(&self) -> &BackendName {
        &self.name
    }

    fn kind(&self) -> &'static str {
        self.kind
    }

    fn canonical(&self, reference: &SecretRef) -> Result<WirePath, Error> {
        self.canonical_pattern(reference.path.as_str()).map(WirePath::new)
    }

    fn canonical_pattern(&self, pattern: &str) -> Result<String, Error> {
        Ok(format!("{ROOT}{pattern}"))
    }

    fn audience(&self) -> Option<&Audience> {
        self.audience.as_ref()
    }

    fn identity(&self, caller: &Caller<'_>, role: Option<&str>) -> Result<Identity, Error> {
        let pod_uid = self.sees_pods.then(|| caller.workload.pod_uid.clone());
        let principal = Principal { pod_uid, ..Principal::service_account(caller) };
        Ok(Identity {
            backend: self.name.clone(),
            mount: self.mount.clone(),
            role: role.unwrap_or(&self.role).to_owned(),
            audience: self.audience.as_ref().map(ToString::to_string).unwrap_or_default(),
            caller: self.audience.as_ref().map(|_| principal),
        })
    }

    fn shareable(&self, grant: &Grant) -> bool {
        let state = self.memory.state();
        let ends = |it: &Stored| it.lease.is_some() || it.expires_at.is_some() || it.rotates_in.is_some();
        let endless = |path| !state.secrets.get(path).is_some_and(ends) || state.mistaken.contains(path);
        strip(grant).is_ok_and(endless)
    }

    fn lends(&self, grant: &Grant) -> bool {
        let state = self.memory.state();
        let lends = |path| {
            let leased = state.secrets.get(path).is_some_and(|it| it.lease.is_some());
            leased && !state.mistaken.contains(path) || state.lends_nothing.contains(path)
        };
        strip(grant).is_ok_and(lends)
    }

    fn batch_size(&self) -> usize {
        BATCH
    }

    fn login(&self) -> Login {
        let endpoint = Some(("fake.example".to_owned(), 443));
        Login { performed: self.audience.is_some(), method: "fake", endpoint, ..Login::default() }
    }

    async fn open(&self, caller: &Caller<'_>, _identity: &Identity) -> Result<Box<dyn Session>, BackendError> {
        self.memory.request(|counts| counts.logins += 1).await?;
        let who = (caller.workload.namespace.clone(), caller.workload.service_account.clone());
        let wanted = self.audience.is_some();
        if wanted && (caller.token.is_none() || self.memory.state().strangers.contains(&who)) {
            return Err(BackendError::new(BackendErrorKind::Unauthenticated, "the fake does not know this caller"));
        }
        let token = {
            let mut state = self.memory.state();
            state.counts.sessions += 1;
            let token = format!("token-{}", state.counts.logins);
            state.logins.insert(token.clone(), Vec::new());
            token
        };
        let login = Login { ttl: Some(LOGIN), ..self.login() };
        Ok(Box::new(FakeSession { memory: Arc::clone(&self.memory), login, token }))
    }

    async fn resume(&self, _: &Identity, credential: SecretBytes) -> Result<Box<dyn Session>, BackendError> {
        self.memory.state().counts.sessions += 1;
        let token = String::from_utf8_lossy(credential.expose()).into_owned();
        let login = Login { performed: false, ..self.login() };
        Ok(Box::new(FakeSession { memory: Arc::clone(&self.memory), login, token }))
    }

    async fn probe(&self) -> Result<(), BackendError> {
        self.memory.request(|_| ()).await
    }
}

struct FakeSession {
    memory: Arc<Memory>,
    login: Login,
    token: String,
}

impl Drop for FakeSession {
    fn drop(&mut self) {
        self.memory.state().counts.sessions -= 1;
    }
}

/// A batch that is under way; also one that is dropped half-way ends.
struct UnderWay<'a>(&'a Memory);

impl<'a> UnderWay<'a> {
    fn begin(memory: &'a Memory) -> Self {
        let mut state = memory.state();
        state.under_way += 1;
        state.counts.most_side_by_side = state.counts.most_side_by_side.max(state.under_way);
        Self(memory)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.state().under_way -= 1;
    }
}

#[async_trait]
impl Session for FakeSession {
    async fn fetch(&self, grant: &Grant) -> Result<Secret, BackendError> {
        let _under_way = UnderWay::begin(&self.memory);
        let count = |counts: &mut Counts| {
            counts.batches += 1;
            counts.fetches += 1;
        };
        self.memory.request(count).await?;
        self.memory.read(grant, &self.token)
    }

    async fn fetch_batch(&self, grants: &[&Grant]) -> Vec<Result<Secret, BackendError>> {
        let _under_way = UnderWay::begin(&self.memory);
        let count = |counts: &mut Counts| {
            counts.batches += 1;
            counts.fetches += grants.len() as u64;
        };
        match self.memory.request(count).await {
            Ok(()) => grants.iter().map(|grant| self.memory.read(grant, &self.token)).collect(),
            Err(BackendError { kind, message, retry_after }) => {
                let failed = || BackendError { kind, message: message.clone(), retry_after };
                grants.iter().map(|_| Err(failed())).collect()
            }
        }
    }

    async fn version(&self, grant: &Grant) -> Result<Option<Version>, BackendError> {
        self.memory.request(|counts| counts.versions += 1).await?;
        let path = strip(grant)?;
        let state = self.memory.state();
        state.find(path, grant.reference().version).map(|(number, _)| Some(Version::new(number)))
    }

    fn login(&self) -> &Login {
        &self.login
    }

    fn credential(&self) -> Option<SecretBytes> {
        self.login.performed.then(|| SecretBytes::from(self.token.as_bytes()))
    }

    async fn renew_login(&self) -> Result<Option<Duration>, BackendError> {
        self.memory.request(|counts| counts.renewals += 1).await?;
        self.memory.known(&self.token)?;
        Ok(self.memory.state().prolongs.then_some(LOGIN))
    }

    async fn renew(&self, lease: &[u8]) -> Result<Option<Duration>, BackendError> {
        self.memory.request(|counts| counts.renewals += 1).await?;
        self.memory.known(&self.token)?;
        let state = self.memory.state();
        if let Some(kind) = state.renews_not {
            return Err(BackendError::new(kind, "the fake prolongs no lease"));
        }
        let path = std::str::from_utf8(lease).ok().and_then(|id| id.rsplit_once('/')).map_or("", |(path, _)| path);
        Ok(state.secrets.get(path).and_then(|stored| stored.lease))
    }

    async fn revoke(&self) -> Result<(), BackendError> {
        self.memory.request(|counts| counts.revocations += 1).await?;
        self.memory.known(&self.token)?;
        if self.memory.state().keeps {
            return Err(BackendError::new(BackendErrorKind::Denied, "the fake ends no login"));
        }
        self.memory.state().logins.remove(&self.token);
        Ok(())
    }
}
