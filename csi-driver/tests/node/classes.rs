// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Classes in memory, and the one backend they name.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evanesce_engine::backend::Backend;
use evanesce_engine::backend::fake::FakeBackend;
use evanesce_engine::class_source::{Class, ClassSource, Lookup};
use evanesce_engine::error::Error;
use evanesce_engine::fetch::{BackendHandle, Backends};
use evanesce_engine::names::{BackendName, Namespace, VolumeClassName};
use evanesce_engine::policy::{Allow, Glob, SecretPattern};
use evanesce_engine::projection::FilePath;
use evanesce_engine::secret_ref::{SecretPath, SecretRef};
use evanesce_engine::spec::backend::Limits;
use evanesce_engine::spec::volume::{FileSpec, LeaseScope, Refresh, Select};
use evanesce_engine::spec::{BackendSpec, VolumeSpec};
use tokio::sync::watch;

/// The period of [`spec`], which has no jitter.
pub(crate) const EVERY: Duration = Duration::from_secs(300);

/// A class with these files: path, secret and key, separated by spaces.
pub(crate) fn spec(files: &[&str]) -> VolumeSpec {
    let file = |line: &&str| {
        let [path, secret, key] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
        let from = SecretRef {
            backend: BackendName::parse("store").unwrap(),
            path: SecretPath::parse(secret).unwrap(),
            version: None,
            args: Default::default(),
        };
        let select = Select::Key(key.to_owned());
        FileSpec { path: FilePath::parse(path).unwrap(), from, select, mode: None, uid: None, gid: None }
    };
    VolumeSpec {
        refresh: Refresh { every: EVERY, jitter_percent: 0 },
        keep_previous: VolumeSpec::DEFAULT_KEEP_PREVIOUS,
        overlap: VolumeSpec::DEFAULT_OVERLAP,
        lease_scope: LeaseScope::default(),
        max_stale: None,
        size: None,
        files: files.iter().map(file).collect(),
    }
}

pub(crate) struct MemoryClasses {
    unknown: AtomicBool,
    /// How hard the backend may be asked.
    pub(crate) limits: Mutex<Limits>,
    volumes: Mutex<HashMap<String, Class<VolumeSpec>>>,
    changes: watch::Sender<u64>,
}

impl MemoryClasses {
    pub(crate) fn new() -> Self {
        Self {
            unknown: AtomicBool::new(false),
            limits: Mutex::default(),
            volumes: Mutex::default(),
            changes: watch::channel(1).0,
        }
    }

    /// From now on nothing is known yet, or everything is again.
    pub(crate) fn set_unknown(&self, unknown: bool) {
        self.unknown.store(unknown, Ordering::Relaxed);
        self.changes.send_modify(|revision| *revision += 1);
    }

    /// Makes or edits a class.
    pub(crate) fn set(&self, name: &str, spec: VolumeSpec) {
        let revision = *self.changes.borrow() + 1;
        self.volumes.lock().unwrap().insert(name.to_owned(), Class { spec: Arc::new(spec), revision });
        self.changes.send_replace(revision);
    }

    pub(crate) fn remove(&self, name: &str) {
        self.volumes.lock().unwrap().remove(name);
        self.changes.send_modify(|revision| *revision += 1);
    }
}

impl ClassSource for MemoryClasses {
    fn backend(&self, _: &BackendName) -> Lookup<BackendSpec> {
        Lookup::Absent(None)
    }

    /// Every namespace has the same classes, but `no-classes`.
    fn volume(&self, namespace: &Namespace, name: &VolumeClassName) -> Lookup<VolumeSpec> {
        if self.unknown.load(Ordering::Relaxed) {
            return Lookup::NotKnownYet("nobody has answered yet".to_owned());
        }
        if namespace.as_str() == "no-classes" {
            return Lookup::Absent(None);
        }
        self.volumes.lock().unwrap().get(name.as_str()).map_or(Lookup::Absent(None), |it| Lookup::Found(it.clone()))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// The backend `store`, which every namespace may ask for `kv/*`, but `strangers`; with the limits of the classes.
pub(crate) struct OneBackend(Mutex<Arc<BackendHandle>>, Arc<MemoryClasses>);

impl OneBackend {
    pub(crate) fn new(backend: &FakeBackend, classes: Arc<MemoryClasses>) -> Self {
        let limits = *classes.limits.lock().unwrap();
        Self(Mutex::new(handle(Arc::new(backend.clone()), limits)), classes)
    }
}

fn handle(backend: Arc<dyn Backend>, limits: Limits) -> Arc<BackendHandle> {
    let allow = |namespace: &str| Allow {
        namespaces: vec![Glob::parse(namespace)],
        service_accounts: vec![Glob::parse("*")],
        secrets: vec![SecretPattern::parse("kv/*", backend.as_ref()).unwrap()],
        role: None,
    };
    let allow = ["payments", "team-*", "greedy"].map(allow).into();
    Arc::new(BackendHandle::new(backend, allow, limits, 1))
}

impl Backends for OneBackend {
    fn find(&self, name: &BackendName) -> Result<Arc<BackendHandle>, Error> {
        let (mut there, limits) = (self.0.lock().unwrap(), *self.1.limits.lock().unwrap());
        if there.limits != limits {
            *there = handle(Arc::clone(&there.backend), limits);
        }
        let found = (name == there.backend.name()).then(|| Arc::clone(&there));
        found.ok_or_else(|| Error::missing("there is no such backend"))
    }
}
