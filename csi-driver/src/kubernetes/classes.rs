// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Classes from the API server: those that this node's pods use, and no others.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use evanesce_engine::class_dir::Counts;
use evanesce_engine::class_source::{ClassSource, Lookup};
use evanesce_engine::names::{BackendName, Namespace, VolumeClassName};
use evanesce_engine::spec::{BackendSpec, ClassName, VolumeSpec};
use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::engine_half::metrics::Metrics;
use crate::engine_half::plugin::Plugin;
use crate::kubernetes::class_watch::{Ground, Watched};

/// How often the classes of live volumes are asked for, so that their watches go on.
const TOUCH: Duration = Duration::from_secs(60);
/// A class that nobody asked for in this time is not watched any more: a volume's next refresh may be an hour away, but
/// its class is touched meanwhile.
const IDLE: Duration = Duration::from_secs(300);

/// Classes from the API server.
pub struct KubernetesClasses {
    ground: Arc<Ground>,
    backends: Arc<Watched<BackendSpec>>,
    volumes: Arc<Watched<VolumeSpec>>,
}

impl KubernetesClasses {
    /// Asks for nothing yet.
    pub fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        // There is nothing to be read before the first question: it is ready from the start.
        let changes = watch::Sender::new(1);
        let ground = Arc::new(Ground { client, changes, metrics, said: Mutex::default() });
        Self { backends: Watched::new(Arc::clone(&ground)), volumes: Watched::new(Arc::clone(&ground)), ground }
    }

    /// How many classes are known now.
    pub fn counts(&self) -> Counts {
        let ((backends, broken_backends), (volumes, broken_volumes)) = (self.backends.counts(), self.volumes.counts());
        Counts { backends, volumes, problems: broken_backends + broken_volumes }
    }

    fn forget(&self) {
        self.backends.forget(IDLE);
        self.volumes.forget(IDLE);
    }
}

impl ClassSource for KubernetesClasses {
    fn backend(&self, name: &BackendName) -> Lookup<BackendSpec> {
        self.backends.lookup(ClassName::Backend(name.clone()))
    }

    fn volume(&self, namespace: &Namespace, name: &VolumeClassName) -> Lookup<VolumeSpec> {
        self.volumes.lookup(ClassName::Volume(namespace.clone(), name.clone()))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.ground.changes.subscribe()
    }
}

/// Keeps the classes of live volumes watched, and lets the others go, until `stop`.
pub async fn keep(classes: Arc<KubernetesClasses>, plugin: Arc<Plugin>, stop: CancellationToken) {
    loop {
        for volume in plugin.volumes.live() {
            // Asking is all; what is wrong is said by whoever needs the answer.
            let _ = plugin.deliverer.revision(&volume.subject);
        }
        classes.forget();
        if stop.run_until_cancelled(tokio::time::sleep(TOUCH)).await.is_none() {
            return;
        }
    }
}
