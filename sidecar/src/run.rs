// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce-sidecar run`: one task looks at each volume and one tells about it, one follows the file, and all end within
//! the grace.

use std::collections::HashMap;
use std::sync::Arc;

use evanesce_runtime::http;
use evanesce_runtime::ready::{Readiness, ReadyGuard};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::args::Run;
use crate::config::{Config, Volume};
use crate::config_file::ConfigFile;
use crate::hook::Real;
use crate::metrics::Metrics;
use crate::notice::Bell;
use crate::sight::Sight;
use crate::source::{Mounted, Source as _};
use crate::standing::Standings;
use crate::teller::Teller;

/// Runs until it is asked to end.
///
/// # Errors
/// The line to end with: what it cannot do without is not there.
pub async fn run(args: Run) -> Result<(), String> {
    let ended = |error: std::io::Error| format!("signals cannot be waited for: {error}");
    let (mut term, mut int) =
        (signal(SignalKind::terminate()).map_err(ended)?, signal(SignalKind::interrupt()).map_err(ended)?);
    let (file, config) = ConfigFile::open(args.config)?;
    let readiness = Readiness::new();
    let standings = Arc::new(Standings::default());
    let (metrics, all) = Metrics::declare(Arc::clone(&standings));
    let metrics = Arc::new(metrics);

    let (stop, stop_serving) = (CancellationToken::new(), CancellationToken::new());
    let serving = TaskTracker::new();
    if let Some(address) = args.http_address.0 {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| format!("--http-address {address}: {error}: choose another port, or `none`"))?;
        let router = http::router(|| std::future::ready(Ok(())), readiness.clone(), Arc::new(all));
        serving.spawn(http::serve(listener, router, stop_serving.clone()));
    }
    let bell = Arc::new(Bell::new());
    let (changed, mut changes) = mpsc::channel(1);
    let mut volumes = Volumes {
        bell: Arc::clone(&bell),
        metrics: Arc::clone(&metrics),
        standings,
        tasks: TaskTracker::new(),
        stop: stop.clone(),
        running: HashMap::new(),
    };
    volumes.follow(&config, Some(&readiness));
    info!(volumes = config.volumes.len(), "watching");
    let tasks = volumes.tasks.clone();
    tasks.spawn(file.follow(bell, metrics, changed, stop.clone()));
    loop {
        tokio::select! {
            () = asked_to_end(&mut term, &mut int) => break,
            Some(config) = changes.recv() => volumes.follow(&config, None),
        }
    }
    info!(grace = ?args.grace, "ending: hooks that run are waited for");
    stop.cancel();
    tasks.close();
    if tokio::time::timeout(args.grace, tasks.wait()).await.is_err() {
        warn!("ending in the middle of a hook: it took longer than --grace");
    }
    stop_serving.cancel();
    Ok(())
}

async fn asked_to_end(term: &mut Signal, int: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

/// The volumes that are watched.
struct Volumes {
    bell: Arc<Bell>,
    metrics: Arc<Metrics>,
    standings: Arc<Standings>,
    tasks: TaskTracker,
    stop: CancellationToken,
    running: HashMap<String, Running>,
}

struct Running {
    settings: watch::Sender<Arc<Volume>>,
    stop: CancellationToken,
}

impl Volumes {
    /// Makes what is watched what `config` says. A volume of the same name and path goes on with what the application
    /// knows; `readiness` then waits for each.
    fn follow(&mut self, config: &Config, readiness: Option<&Readiness>) {
        let stays = |name: &String, running: &mut Running| {
            let before = running.settings.borrow();
            let stays = config.volumes.iter().any(|volume| volume.name == *name && volume.path == before.path);
            if !stays {
                info!(volume = name, "no longer watched");
                running.stop.cancel();
            }
            stays
        };
        self.running.retain(stays);
        for volume in &config.volumes {
            match self.running.get(&volume.name) {
                Some(running) => {
                    running.settings.send_if_modified(|before| {
                        let new = *before != *volume;
                        *before = Arc::clone(volume);
                        new
                    });
                }
                None => self.begin(volume, readiness.map(|readiness| readiness.wait_for("volumes"))),
            }
        }
    }

    fn begin(&mut self, volume: &Arc<Volume>, waits: Option<ReadyGuard>) {
        let (settings, seen) = watch::channel(Arc::clone(volume));
        let (stop, standing) = (self.stop.child_token(), self.standings.add());
        let (mounted, looking) = Mounted::start(
            volume.name.clone(),
            volume.path.clone(),
            Arc::clone(&self.bell),
            Arc::clone(&standing),
            stop.clone(),
        );
        self.tasks.spawn(looking);
        if let Some(guard) = waits {
            let (stop, sights) = (stop.clone(), mounted.sights());
            self.tasks.spawn(async move {
                // One that is no longer watched is no longer waited for.
                stop.run_until_cancelled(seen_once(sights)).await;
                guard.ready();
            });
        }
        let teller = Teller {
            volume: seen,
            hooks: Real(Arc::clone(&self.metrics)),
            metrics: Arc::clone(&self.metrics),
            standing,
            stop: stop.clone(),
        };
        self.tasks.spawn(teller.run(mounted));
        self.running.insert(volume.name.clone(), Running { settings, stop });
    }
}

/// The application that waits for the sidecar to be ready may start once its files are there.
async fn seen_once(mut sights: watch::Receiver<Option<Sight>>) {
    // If it cannot be seen any more, it is no longer watched.
    let _ = sights.wait_for(|sight| matches!(sight, Some(Sight::Shown(_)))).await;
}
