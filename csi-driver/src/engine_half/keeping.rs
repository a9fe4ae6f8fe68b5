// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The engine's two wishes that only the node plugin can grant: memory that root cannot read, and files that only root
//! can.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use evanesce_engine::credentials::CredentialFiles;
use evanesce_engine::error::Error;
use evanesce_engine::fetch::Bounds;
use evanesce_engine::keep::{HeapKeep, Keep, Kept};
use evanesce_engine::secret::SecretBytes;
use evanesce_runtime::arena::{self, Arena, ArenaError, ArenaKind};
use tracing::warn;

use crate::engine_half::warden_client::WardenClient;
use crate::protocol::{CredentialName, FileIdentity};

/// Protected memory for tokens and credentials: a thousand pods with a token of one and a half kilobytes each fit.
const ARENA: usize = 1536 << 10;
/// Below this much there is no use in starting.
const SMALLEST_ARENA: usize = 64 << 10;
/// Protected memory for answers that stay for a moment, apart from the tokens': however many there are, a token fits.
const ANSWERS: Bounds = Bounds { entries: 1024, bytes: 1 << 20 };

/// Memory for tokens and credentials: as much as this process may lock.
///
/// # Errors
/// When not even the least can be had.
pub fn for_tokens() -> Result<Arena, ArenaError> {
    let mut size = ARENA;
    loop {
        match Arena::open(size) {
            Err(ArenaError::LockLimit { .. }) if size > SMALLEST_ARENA => size /= 2,
            Ok(arena) => {
                if size < ARENA || arena.kind() != ArenaKind::SecretMemory {
                    warn!(
                        kind = arena.kind().as_str(),
                        size,
                        "protected memory is less than it could be: raise RLIMIT_MEMLOCK, or use a kernel with memfd_secret"
                    );
                }
                return Ok(arena);
            }
            refused => return refused,
        }
    }
}

/// Protected memory for answers, for a moment or for the time that a backend is away; without any they are not kept, and
/// each volume asks.
pub fn for_answers() -> (Arc<dyn Keep>, Bounds) {
    match Arena::open(ANSWERS.bytes) {
        Ok(arena) => (Arc::new(ArenaKeep(arena)), ANSWERS),
        Err(error) => {
            warn!(%error, "answers are not kept for the next pod: there is no protected memory for them");
            (Arc::new(HeapKeep), Bounds { entries: 0, bytes: 0 })
        }
    }
}

/// Keeps values in the arena.
pub struct ArenaKeep(pub Arena);

struct InArena(arena::Kept);

impl Keep for ArenaKeep {
    fn keep(&self, value: SecretBytes) -> Result<Box<dyn Kept>, Error> {
        let kept = self.0.keep(value.expose()).map_err(|error| {
            Error::exhausted("the driver's protected memory is full; try again").with_detail(error.to_string())
        })?;
        Ok(Box::new(InArena(kept)))
    }
}

impl Kept for InArena {
    fn expose(&self) -> &[u8] {
        self.0.expose()
    }
}

/// What was read, and from which state of the file.
type Known = HashMap<CredentialName, (FileIdentity, Arc<dyn Kept>)>;

/// Credentials files, opened by the warden: asked about each time, read again only when they changed.
pub struct WardenFiles {
    warden: WardenClient,
    keep: ArenaKeep,
    known: Mutex<Known>,
}

impl WardenFiles {
    /// Asks `warden`; what was read lives in `arena`.
    pub fn new(warden: WardenClient, arena: Arena) -> Self {
        Self { warden, keep: ArenaKeep(arena), known: Mutex::default() }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl CredentialFiles for WardenFiles {
    async fn read(&self, name: &str) -> Result<SecretBytes, Error> {
        let name = CredentialName::try_from(name.to_owned())
            .map_err(|error| Error::invalid(format!("credentials file: {error}")))?;
        let known = self.known().get(&name).map(|(identity, kept)| (*identity, Arc::clone(kept)));
        let identity = known.as_ref().map(|(identity, _)| *identity);
        match (self.warden.open_credential(&name, identity).await.map_err(Error::from)?, known) {
            (None, Some((_, kept))) => Ok(SecretBytes::from(kept.expose())),
            (None, None) => Err(Error::internal(format!("credentials file {name} was not passed"))),
            (Some((identity, file)), _) => {
                let size = usize::try_from(identity.size).unwrap_or_default();
                let unreadable = |error: &dyn std::fmt::Display| {
                    Error::internal(format!("credentials file {name} cannot be read")).with_detail(error.to_string())
                };
                let bytes = tokio::task::spawn_blocking(move || {
                    // Of the right size from the start: growth would leave copies behind.
                    let mut bytes = Vec::with_capacity(size + 1);
                    std::fs::File::from(file).read_to_end(&mut bytes).map(|_| bytes)
                })
                .await
                .map_err(|error| unreadable(&error))?
                .map_err(|error| unreadable(&error))?;
                let bytes = SecretBytes::new(bytes);
                let kept = self.keep.keep(SecretBytes::from(bytes.expose()))?;
                self.known().insert(name, (identity, Arc::from(kept)));
                Ok(bytes)
            }
        }
    }
}
