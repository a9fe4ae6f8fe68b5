// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Where news of a volume comes from.
//!
//! There is one source now, [`Mounted`]: it looks at the mount itself, and needs nothing but eyes. A socket of the node
//! plugin is to be the second; whoever [tells](crate::teller) the application knows neither.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::notice::{Bell, patience};
use crate::sight::{Sight, look};
use crate::standing::Standing;

/// A source of sights; of two that follow each other quickly, the first may never be seen.
pub trait Source: Send + Sync {
    /// What is shown, from the first look on; `None` before it.
    fn sights(&self) -> watch::Receiver<Option<Sight>>;
}

/// A volume that is mounted in this container too.
#[derive(Debug)]
pub struct Mounted(watch::Receiver<Option<Sight>>);

impl Source for Mounted {
    fn sights(&self) -> watch::Receiver<Option<Sight>> {
        self.0.clone()
    }
}

impl Mounted {
    /// Looks at `path` now, and until `stop` whenever `bell` rings and now and then.
    pub fn start(
        name: String,
        path: PathBuf,
        bell: Arc<Bell>,
        standing: Arc<Standing>,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let mut heard = bell.listen();
        let mut eyes = Eyes { name, path, bell, standing, said: None };
        let (sight, mut rings) = eyes.look();
        let (seen, sights) = watch::channel(Some(sight));
        let looking = async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => break,
                    _ = tokio::time::timeout(patience(rings), heard.changed()) => {}
                }
                let sight;
                (sight, rings) = eyes.look();
                seen.send_if_modified(|last| {
                    let new = last.as_ref() != Some(&sight);
                    if new {
                        *last = Some(sight);
                    }
                    new
                });
            }
            eyes.bell.forget(&eyes.path);
        };
        (Self(sights), looking)
    }
}

struct Eyes {
    name: String,
    path: PathBuf,
    bell: Arc<Bell>,
    standing: Arc<Standing>,
    /// Why there was no volume, the last time that it was said.
    said: Option<String>,
}

impl Eyes {
    /// What is there, and whether the bell will ring for the next change.
    fn look(&mut self) -> (Sight, bool) {
        // The watch comes before the look: what changes in between rings.
        let rings = self.bell.attend(&self.path);
        let sight = look(&self.path);
        match &sight {
            Sight::Nothing(why) if self.said.as_ref() != Some(why) => {
                warn!(volume = self.name, "waiting for the volume: {why}");
                self.said = Some(why.clone());
            }
            Sight::Shown(shown) if self.said.take().is_some() => {
                info!(volume = self.name, generation = %shown.generation, "the volume is there");
            }
            _ => {}
        }
        self.standing.saw(&sight, rings);
        (sight, rings)
    }
}
