// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Where classes come in, and where what happened goes out: files and the audit log, or the API server in front of it.

use std::error::Error as StdError;
use std::sync::Arc;

use evanesce_engine::audit::Auditor;
use evanesce_engine::audit::log::AuditLog;
use evanesce_engine::class_dir::{ClassDirectory, Counts};
use evanesce_engine::class_source::ClassSource;
use evanesce_engine::clock::Clock;
use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine_half::metrics::Metrics;
use crate::engine_half::plugin::Plugin;
use crate::kubernetes::classes::{self, KubernetesClasses};
use crate::kubernetes::pod_events::{PodEvents, Reporter};
use crate::kubernetes::taint;
use crate::protocol::{ClassesChoice, EngineConfig};

/// The ways in and out.
pub(super) struct Door {
    /// The classes.
    pub(super) classes: Arc<dyn ClassSource>,
    /// How many there are.
    pub(super) counts: Box<dyn Fn() -> Counts + Send + Sync>,
    /// Who hears what happened.
    pub(super) auditor: Arc<dyn Auditor>,
    /// What goes on beside.
    pub(super) kubernetes: Option<Kubernetes>,
}

/// What is only there with an API server.
pub(super) struct Kubernetes {
    client: Client,
    classes: Arc<KubernetesClasses>,
    node: String,
    startup_taint: Option<String>,
}

impl Door {
    /// Opens what the configuration names.
    ///
    /// # Errors
    /// When there is no thread for a directory, or no client for the API server.
    pub(super) fn open(
        config: &EngineConfig,
        log: &Arc<AuditLog>,
        clock: &Arc<dyn Clock>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, Box<dyn StdError>> {
        let log = Arc::clone(log) as Arc<dyn Auditor>;
        match &config.classes {
            ClassesChoice::Directory(directory) => {
                let classes = Arc::new(ClassDirectory::watch(directory)?);
                let counted = Arc::clone(&classes);
                Ok(Self { classes, counts: Box::new(move || counted.counts()), auditor: log, kubernetes: None })
            }
            ClassesChoice::Kubernetes { api_server, startup_taint } => {
                let client = api_server.client()?;
                let classes = Arc::new(KubernetesClasses::new(client.clone(), Arc::clone(metrics)));
                let (driver, node) = (config.driver_name.clone(), config.node_name.clone());
                let reporter = Reporter { driver, node: node.clone() };
                let events = PodEvents::start(log, client.clone(), reporter, Arc::clone(clock), Arc::clone(metrics));
                let counted = Arc::clone(&classes);
                Ok(Self {
                    classes: Arc::clone(&classes) as _,
                    counts: Box::new(move || counted.counts()),
                    auditor: Arc::new(events),
                    kubernetes: Some(Kubernetes { client, classes, node, startup_taint: startup_taint.clone() }),
                })
            }
        }
    }
}

impl Kubernetes {
    /// Keeps the classes of live volumes watched and, once kubelet knows the driver, takes the startup taint away.
    pub(super) fn begin(
        self,
        plugin: &Arc<Plugin>,
        mut known_to_kubelet: watch::Receiver<bool>,
        loops: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let Self { client, classes, node, startup_taint } = self;
        loops.spawn(classes::keep(classes, Arc::clone(plugin), stop.clone()));
        let Some(key) = startup_taint else { return };
        loops.spawn(stop.clone().run_until_cancelled_owned(async move {
            if known_to_kubelet.wait_for(|known| *known).await.is_ok() {
                taint::remove(client, node, key).await;
            }
        }));
    }
}
