// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The warden and the backend, stopped at every call: whoever makes a schedule says which call goes on, and how it ends.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use evanesce_csi::engine_half::journal::Journal;
use evanesce_csi::engine_half::mounts::Mounts;
use evanesce_csi::protocol::{LeaseGroupId, Owner, TargetPath, VolumeId, VolumePath};
use evanesce_engine::backend::fake::FakeBackend;
use evanesce_engine::backend::{Backend, BackendError, BackendErrorKind, Caller, Identity, Login, Session};
use evanesce_engine::error::{Error, Kind};
use evanesce_engine::names::BackendName;
use evanesce_engine::policy::Grant;
use evanesce_engine::secret::{Secret, Version};
use evanesce_engine::secret_ref::{SecretRef, WirePath};
use evanesce_engine::token::Audience;
use tokio::sync::oneshot;

use crate::fake_mounts::{Call, FakeMounts};

/// A call that waits: of which volume, and what it asks for. A record that is looked for is of none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Step {
    pub(crate) volume: Option<String>,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum What {
    Login,
    Fetch,
    Version,
    Mounts(Call),
}

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    Done,
    /// It fails and has done nothing.
    Failed,
    /// It fails and has done what it was to do.
    Lost,
}

/// The calls that wait.
#[derive(Default)]
pub(crate) struct Steps(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    stopped: bool,
    calls: Vec<(Step, oneshot::Sender<Outcome>)>,
}

impl Steps {
    /// Whether calls are stopped from now on.
    pub(crate) fn stop(&self, stopped: bool) {
        self.state().stopped = stopped;
    }

    /// What waits, in order. Whoever made a call and is gone does not wait.
    pub(crate) fn waiting(&self) -> Vec<Step> {
        let mut state = self.state();
        state.calls.retain(|(_, go)| !go.is_closed());
        let mut steps: Vec<_> = state.calls.iter().map(|(step, _)| step.clone()).collect();
        steps.sort();
        steps
    }

    /// Lets one go on.
    pub(crate) fn go(&self, step: &Step, outcome: Outcome) {
        let mut state = self.state();
        let at = state.calls.iter().position(|(waiting, go)| waiting == step && !go.is_closed()).unwrap();
        let _ = state.calls.remove(at).1.send(outcome);
    }

    async fn arrive(&self, volume: Option<&str>, what: What) -> Outcome {
        let gone = {
            let mut state = self.state();
            if !state.stopped {
                return Outcome::Done;
            }
            let (go, gone) = oneshot::channel();
            state.calls.push((Step { volume: volume.map(str::to_owned), what }, go));
            gone
        };
        gone.await.unwrap()
    }

    fn state(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap()
    }
}

pub(crate) struct SteppedMounts {
    pub(crate) steps: Arc<Steps>,
    pub(crate) mounts: Arc<FakeMounts>,
}

impl SteppedMounts {
    async fn step<T>(
        &self,
        volume: Option<&str>,
        call: Call,
        does: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let failed = || Err(Error::new(Kind::Internal, format!("the schedule lets it fail: {call:?}")));
        match self.steps.arrive(volume, What::Mounts(call)).await {
            Outcome::Done => does.await,
            Outcome::Failed => failed(),
            Outcome::Lost => does.await.and_then(|_| failed()),
        }
    }
}

#[async_trait]
impl Mounts for SteppedMounts {
    async fn make(&self, volume: &VolumeId, size: u64, inodes: u64) -> Result<OwnedFd, Error> {
        self.step(Some(volume.as_str()), Call::Make, self.mounts.make(volume, size, inodes)).await
    }

    async fn own(&self, volume: &VolumeId, files: Vec<(VolumePath, Owner)>) -> Result<(), Error> {
        self.step(Some(volume.as_str()), Call::Own, self.mounts.own(volume, files)).await
    }

    async fn attach(&self, volume: &VolumeId, target: &TargetPath) -> Result<Vec<String>, Error> {
        self.step(Some(volume.as_str()), Call::Attach, self.mounts.attach(volume, target)).await
    }

    async fn resize(&self, volume: &VolumeId, size: u64) -> Result<(), Error> {
        self.step(Some(volume.as_str()), Call::Resize, self.mounts.resize(volume, size)).await
    }

    async fn is_attached(&self, volume: &VolumeId, target: &TargetPath) -> Result<bool, Error> {
        self.step(Some(volume.as_str()), Call::IsAttached, self.mounts.is_attached(volume, target)).await
    }

    async fn detach(&self, volume: &VolumeId, target: &TargetPath) -> Result<(), Error> {
        self.step(Some(volume.as_str()), Call::Detach, self.mounts.detach(volume, target)).await
    }

    async fn adopt(&self, volume: &VolumeId, target: &TargetPath) -> Result<Option<OwnedFd>, Error> {
        self.step(Some(volume.as_str()), Call::Adopt, self.mounts.adopt(volume, target)).await
    }

    async fn put_record(&self, volume: &VolumeId, record: Vec<u8>) -> Result<(), Error> {
        self.step(Some(volume.as_str()), Call::PutRecord, self.mounts.put_record(volume, record)).await
    }

    async fn drop_record(&self, volume: &VolumeId) -> Result<(), Error> {
        self.step(Some(volume.as_str()), Call::DropRecord, self.mounts.drop_record(volume)).await
    }

    async fn next_record(&self, after: Option<&VolumeId>) -> Result<Option<(VolumeId, Vec<u8>)>, Error> {
        self.step(None, Call::NextRecord, self.mounts.next_record(after)).await
    }

    async fn any_unknown(&self) -> Result<bool, Error> {
        self.step(None, Call::AnyUnknown, self.mounts.any_unknown()).await
    }
}

#[async_trait]
impl Journal for SteppedMounts {
    async fn put_lease(&self, group: &LeaseGroupId, entry: Vec<u8>) -> Result<(), Error> {
        self.step(None, Call::PutLease, self.mounts.put_lease(group, entry)).await
    }

    async fn drop_lease(&self, group: &LeaseGroupId) -> Result<(), Error> {
        self.step(None, Call::DropLease, self.mounts.drop_lease(group)).await
    }

    async fn next_lease(&self, after: Option<&LeaseGroupId>) -> Result<Option<(LeaseGroupId, Vec<u8>)>, Error> {
        self.step(None, Call::NextLease, self.mounts.next_lease(after)).await
    }
}

/// A backend whose questions wait. The pod's uid is the volume's id.
pub(crate) struct SteppedBackend {
    pub(crate) steps: Arc<Steps>,
    pub(crate) backend: FakeBackend,
}

struct SteppedSession {
    steps: Arc<Steps>,
    session: Box<dyn Session>,
    volume: String,
}

async fn ask(steps: &Steps, volume: &str, what: What) -> Result<(), BackendError> {
    match steps.arrive(Some(volume), what).await {
        Outcome::Done => Ok(()),
        Outcome::Failed | Outcome::Lost => {
            Err(BackendError::new(BackendErrorKind::Unavailable, format!("the schedule lets it fail: {what:?}")))
        }
    }
}

#[async_trait]
impl Backend for SteppedBackend {
    fn name(&self) -> &BackendName {
        self.backend.name()
    }

    fn kind(&self) -> &'static str {
        self.backend.kind()
    }

    fn canonical(&self, reference: &SecretRef) -> Result<WirePath, Error> {
        self.backend.canonical(reference)
    }

    fn canonical_pattern(&self, pattern: &str) -> Result<String, Error> {
        self.backend.canonical_pattern(pattern)
    }

    fn audience(&self) -> Option<&Audience> {
        self.backend.audience()
    }

    fn identity(&self, caller: &Caller<'_>, role: Option<&str>) -> Result<Identity, Error> {
        self.backend.identity(caller, role)
    }

    async fn open(&self, caller: &Caller<'_>, identity: &Identity) -> Result<Box<dyn Session>, BackendError> {
        let volume = caller.workload.pod_uid.to_string();
        ask(&self.steps, &volume, What::Login).await?;
        let session = self.backend.open(caller, identity).await?;
        Ok(Box::new(SteppedSession { steps: Arc::clone(&self.steps), session, volume }))
    }

    async fn probe(&self) -> Result<(), BackendError> {
        self.backend.probe().await
    }
}

#[async_trait]
impl Session for SteppedSession {
    async fn fetch(&self, grant: &Grant) -> Result<Secret, BackendError> {
        ask(&self.steps, &self.volume, What::Fetch).await?;
        self.session.fetch(grant).await
    }

    async fn version(&self, grant: &Grant) -> Result<Option<Version>, BackendError> {
        ask(&self.steps, &self.volume, What::Version).await?;
        self.session.version(grant).await
    }

    fn login(&self) -> &Login {
        self.session.login()
    }
}
