// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Classes of one kind, each watched by its name since somebody asked for it.
//!
//! A watch begins with one list of one object and resumes where it broke off; only where the server has forgotten that
//! place is the object listed again. Tries are spread by a back-off with jitter, so that a thousand nodes do not come back
//! together.

use std::collections::HashMap;
use std::hash::Hash;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use evanesce_engine::class_source::{Class, Lookup};
use evanesce_engine::error::Error;
use evanesce_engine::spec::document::API_VERSION;
use evanesce_engine::spec::{BackendSpec, ClassName, Document, VolumeSpec};
use futures_util::{Stream, StreamExt as _};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, error, warn};

use crate::engine_half::metrics::Metrics;

/// The most objects of one kind that are watched: far above what one node's pods can name.
pub const MOST: usize = 1024;
/// What an object that is asked for the first time has to be answered within, before it is asked for anew.
const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// A watch that fails is worth a line once in this time, whatever the number of watches.
const SAY_AGAIN: Duration = Duration::from_secs(300);

/// A kind of class, as the API server has it.
pub trait Kind: Clone + PartialEq + Hash + Send + Sync + 'static {
    /// The kind's name.
    const KIND: &'static str;
    /// The name in a URL.
    const PLURAL: &'static str;

    /// The class of a document, if it is of this kind.
    fn of(document: Document) -> Option<Self>;
}

impl Kind for BackendSpec {
    const KIND: &'static str = "SecretBackend";
    const PLURAL: &'static str = "secretbackends";

    fn of(document: Document) -> Option<Self> {
        match document {
            Document::Backend(spec) => Some(spec),
            Document::Volume { .. } => None,
        }
    }
}

impl Kind for VolumeSpec {
    const KIND: &'static str = "SecretVolume";
    const PLURAL: &'static str = "secretvolumes";

    fn of(document: Document) -> Option<Self> {
        match document {
            Document::Volume { spec, .. } => Some(spec),
            Document::Backend(_) => None,
        }
    }
}

/// What a watch says next.
type Heard = watcher::Result<Option<DynamicObject>>;

/// What every watch needs.
pub struct Ground {
    /// The API server.
    pub client: Client,
    /// Rung whenever a class changed.
    pub changes: watch::Sender<u64>,
    /// Counts what failed.
    pub metrics: Arc<Metrics>,
    /// When a failure was last worth a line.
    pub said: Mutex<Option<Instant>>,
}

/// The watched objects of one kind.
pub struct Watched<T> {
    ground: Arc<Ground>,
    objects: Mutex<HashMap<ClassName, Object<T>>>,
}

struct Object<T> {
    known: Lookup<T>,
    asked: Instant,
    /// Ends with the entry.
    _watch: AbortOnDropHandle<()>,
}

impl<T: Kind> Watched<T> {
    /// Watches nothing yet.
    pub fn new(ground: Arc<Ground>) -> Arc<Self> {
        Arc::new(Self { ground, objects: Mutex::default() })
    }

    /// What is known of an object, which is watched from now on.
    pub fn lookup(self: &Arc<Self>, name: ClassName) -> Lookup<T> {
        let mut objects = self.objects();
        let now = Instant::now();
        if let Some(object) = objects.get_mut(&name) {
            object.asked = now;
            return object.known.clone();
        }
        if objects.len() >= MOST {
            return Lookup::NotKnownYet(format!("this node's pods name more than {MOST} objects of kind {}", T::KIND));
        }
        let known = Lookup::NotKnownYet("the API server has not answered yet".to_owned());
        let watch = tokio::spawn(follow(Arc::downgrade(self), name.clone()));
        objects.insert(name, Object { known: known.clone(), asked: now, _watch: AbortOnDropHandle::new(watch) });
        known
    }

    /// Ends the watches of objects that nobody has asked for within `idle`.
    pub fn forget(&self, idle: Duration) {
        let now = Instant::now();
        self.objects().retain(|_, object| now.saturating_duration_since(object.asked) < idle);
    }

    /// How many objects are known and can be used, and how many are known and cannot.
    pub fn counts(&self) -> (usize, usize) {
        let objects = self.objects();
        let count = |what: fn(&Lookup<T>) -> bool| objects.values().filter(|object| what(&object.known)).count();
        (count(|known| matches!(known, Lookup::Found(_))), count(|known| matches!(known, Lookup::Broken(_))))
    }

    /// A watch of one object, from its beginning.
    fn watch(&self, name: &ClassName) -> impl Stream<Item = Heard> + Send + use<T> {
        let (group, version) = API_VERSION.split_once('/').unwrap_or_default();
        let kind = GroupVersionKind::gvk(group, version, T::KIND);
        let resource = ApiResource::from_gvk_with_plural(&kind, T::PLURAL);
        let client = self.ground.client.clone();
        match name {
            ClassName::Backend(name) => watcher::watch_object(Api::all_with(client, &resource), name.as_str()),
            ClassName::Volume(namespace, name) => {
                watcher::watch_object(Api::namespaced_with(client, namespace.as_str(), &resource), name.as_str())
            }
        }
    }

    fn heard(&self, name: &ClassName, heard: Heard) {
        match heard {
            Ok(object) => self.learnt(name, object.map_or(Lookup::Absent(None), |object| read(name, &object))),
            Err(error) => self.failed(name, &error),
        }
    }

    fn learnt(&self, name: &ClassName, known: Lookup<T>) {
        match self.objects().get_mut(name) {
            Some(object) if object.known != known => object.known = known,
            _ => return,
        }
        self.ground.changes.send_modify(|revision| *revision += 1);
    }

    /// What is known counts on; who waits for the first answer hears why there is none.
    fn failed(&self, name: &ClassName, error: &watcher::Error) {
        self.ground.metrics.class_watch_failed();
        let why = explain::<T>(error);
        if let Some(Object { known: Lookup::NotKnownYet(before), .. }) = self.objects().get_mut(name) {
            before.clone_from(&why);
        }
        let mut said = self.ground.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_some_and(|at| at.elapsed() < SAY_AGAIN) {
            debug!(class = %name, %error, "a class cannot be watched");
        } else {
            *said = Some(Instant::now());
            warn!(class = %name, why, %error, "a class cannot be watched: what is known of classes counts on");
        }
    }

    fn objects(&self) -> MutexGuard<'_, HashMap<ClassName, Object<T>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches one object for as long as anybody holds the other end.
async fn follow<T: Kind>(watched: Weak<Watched<T>>, name: ClassName) {
    let mut backoff = watcher::DefaultBackoff::default();
    loop {
        let Some(events) = watched.upgrade().map(|watched| watched.watch(&name)) else { return };
        let mut events = pin!(events);
        let mut answered = false;
        loop {
            // A server that takes the connection and says nothing would be waited for until the kernel gives up.
            let silence = if answered { Duration::MAX } else { FIRST_ANSWER };
            let Ok(Some(event)) = tokio::time::timeout(silence, events.next()).await else { break };
            let Some(watched) = watched.upgrade() else { return };
            answered |= event.is_ok();
            let failed = event.is_err();
            watched.heard(&name, event);
            drop(watched);
            if failed {
                tokio::time::sleep(pause(&mut backoff)).await;
            }
        }
        tokio::time::sleep(pause(&mut backoff)).await;
    }
}

/// Longer and longer, with jitter, up to half a minute.
fn pause(backoff: &mut watcher::DefaultBackoff) -> Duration {
    backoff.next().unwrap_or(Duration::from_secs(30))
}

/// What an object says.
fn read<T: Kind>(name: &ClassName, object: &DynamicObject) -> Lookup<T> {
    let document = serde_json::to_value(object)
        .map_err(|_| Error::invalid("the API server's object cannot be read"))
        .and_then(|object| Document::from_object(&object));
    match document.map(T::of) {
        Ok(Some(spec)) => Lookup::Found(Class::new(Arc::new(spec))),
        Ok(None) => Lookup::Broken(format!("it is no {}", T::KIND)),
        Err(problem) => {
            error!(class = %name, %problem, "a class cannot be used");
            Lookup::Broken(problem.message().to_owned())
        }
    }
}

/// Why there is no answer, and what to do, in words for whoever has the pod.
fn explain<T: Kind>(error: &watcher::Error) -> String {
    use watcher::Error as E;
    let code = match error {
        E::InitialListFailed(kube::Error::Api(status))
        | E::WatchStartFailed(kube::Error::Api(status))
        | E::WatchFailed(kube::Error::Api(status)) => status.code,
        E::WatchError(status) => status.code,
        _ => 0,
    };
    match code {
        401 | 403 => format!(
            "the API server does not let the node plugin read {}: install the ClusterRole of its chart (Helm value `rbac.create`)",
            T::PLURAL
        ),
        404 => format!(
            "the API server does not know the kind {}: install the CustomResourceDefinitions of the chart (Helm value `crds.install`)",
            T::KIND
        ),
        _ => "the API server does not answer; it is asked again".to_owned(),
    }
}
