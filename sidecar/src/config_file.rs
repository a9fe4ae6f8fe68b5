// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The configuration file while the program runs: what is written to it holds from then on, or is refused in one line and
//! changes nothing.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::config::{Config, here};
use crate::metrics::{Metrics, Reload};
use crate::notice::{Bell, patience};

/// More than the reader of YAML takes.
const LARGEST: u64 = 2 * 1024 * 1024;
/// How long the file has to stay as it is before it is read: an editor may be in the middle of it.
const QUIET: Duration = Duration::from_millis(100);

/// What a file holds, to tell it from what it held before. Not the text: a header in it may be a token.
type Fingerprint = [u8; 32];

/// The file, and what was read of it last.
pub struct ConfigFile {
    path: PathBuf,
    read: Option<Fingerprint>,
}

impl ConfigFile {
    /// Reads it for the first time.
    ///
    /// # Errors
    /// The line to end with.
    pub fn open(path: PathBuf) -> Result<(Self, Config), String> {
        // Its folder is to be watched, which a bare name does not say.
        let path = std::path::absolute(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let text = text(&path);
        let fingerprint = text.as_deref().ok().map(fingerprint);
        let config = text.and_then(|text| usable(&text)).map_err(|wrong| format!("{}: {wrong}", path.display()))?;
        Ok((Self { path, read: fingerprint }, config))
    }

    /// Sends each new configuration that can be used, until `stop`.
    pub async fn follow(
        mut self,
        bell: Arc<Bell>,
        metrics: Arc<Metrics>,
        changed: mpsc::Sender<Config>,
        stop: CancellationToken,
    ) {
        let folder = self.path.parent().unwrap_or(Path::new("/")).to_owned();
        let mut heard = bell.listen();
        while !stop.is_cancelled() {
            let rings = bell.attend(&folder);
            if let Some(text) = self.changed() {
                let file = self.path.display();
                match text.and_then(|text| usable(&text)) {
                    Ok(config) => {
                        info!(%file, volumes = config.volumes.len(), "the configuration file has changed and is followed");
                        metrics.reloads.inc((Reload::Taken,));
                        metrics.refused.set((), 0.0);
                        if changed.send(config).await.is_err() {
                            return;
                        }
                    }
                    Err(wrong) => {
                        error!(%file, "the configuration file has changed and is refused; what it said before holds on: {wrong}");
                        metrics.reloads.inc((Reload::Refused,));
                        metrics.refused.set((), 1.0);
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                _ = tokio::time::timeout(patience(rings), heard.changed()) => tokio::time::sleep(QUIET).await,
            }
        }
    }

    /// Its text, if it is another one than the last time. A file that cannot be read is said once.
    fn changed(&mut self) -> Option<Result<String, String>> {
        let text = text(&self.path);
        let now = text.as_deref().ok().map(fingerprint);
        (std::mem::replace(&mut self.read, now) != now).then_some(text)
    }
}

/// The text of a configuration file.
///
/// # Errors
/// Why it cannot be read.
pub fn text(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    file.take(LARGEST).read_to_string(&mut text).map_err(|error| format!("cannot be read: {error}"))?;
    Ok(text)
}

/// What it says, if that can be done here.
fn usable(text: &str) -> Result<Config, String> {
    let config = Config::parse(text).map_err(|error| error.to_string())?;
    match here::missing(&config, &search_path()).as_slice() {
        [] => Ok(config),
        missing => Err(missing.join("; ")),
    }
}

/// Where programs are looked for; what the C library takes where nothing is set.
pub fn search_path() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into())
}

fn fingerprint(text: &str) -> Fingerprint {
    let mut print = [0; 32];
    print.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    print
}
