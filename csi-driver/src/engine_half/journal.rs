// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Where lease groups are written down, as a trait: what they do when something dies is tested without root.

use std::sync::Arc;

use async_trait::async_trait;
use evanesce_engine::error::Error;
use evanesce_engine::lease;
use evanesce_engine::sealing::{SealingKey, Unsealable};
use evanesce_engine::secret::SecretBytes;

use crate::engine_half::warden_client::WardenClient;
use crate::protocol::LeaseGroupId;

/// The journal as the warden keeps it; see the requests of the same names in [`crate::protocol`]. Entries are sealed
/// before they come here ([`evanesce_engine::sealing`]).
#[async_trait]
pub trait Journal: Send + Sync {
    /// Keeps an entry for the next engine half, in place of the group's earlier one.
    async fn put_lease(&self, group: &LeaseGroupId, entry: Vec<u8>) -> Result<(), Error>;

    /// Forgets the entry. Done twice, it is done.
    async fn drop_lease(&self, group: &LeaseGroupId) -> Result<(), Error>;

    /// The first entry whose group sorts after the given one.
    async fn next_lease(&self, after: Option<&LeaseGroupId>) -> Result<Option<(LeaseGroupId, Vec<u8>)>, Error>;
}

#[async_trait]
impl Journal for WardenClient {
    async fn put_lease(&self, group: &LeaseGroupId, entry: Vec<u8>) -> Result<(), Error> {
        Ok(Self::put_lease(self, group, entry).await?)
    }

    async fn drop_lease(&self, group: &LeaseGroupId) -> Result<(), Error> {
        Ok(Self::drop_lease(self, group).await?)
    }

    async fn next_lease(&self, after: Option<&LeaseGroupId>) -> Result<Option<(LeaseGroupId, Vec<u8>)>, Error> {
        Ok(Self::next_lease(self, after).await?)
    }
}

/// Seals what goes in, opens what comes out.
pub struct Sealed {
    journal: Arc<dyn Journal>,
    key: SealingKey,
}

impl Sealed {
    /// Keeps entries in `journal`, sealed with `key`.
    pub fn new(journal: Arc<dyn Journal>, key: SealingKey) -> Self {
        Self { journal, key }
    }

    /// The first entry whose group sorts after the given one, or why it does not open.
    ///
    /// # Errors
    /// Where the journal cannot be asked.
    pub async fn next(
        &self,
        after: Option<&LeaseGroupId>,
    ) -> Result<Option<(LeaseGroupId, Result<SecretBytes, Unsealable>)>, Error> {
        let found = self.journal.next_lease(after).await?;
        Ok(found.map(|(group, sealed)| {
            let opened = self.key.open(&sealed, group.as_str().as_bytes());
            (group, opened)
        }))
    }
}

#[async_trait]
impl lease::Journal for Sealed {
    async fn put(&self, group: &LeaseGroupId, entry: SecretBytes) -> Result<(), Error> {
        let sealed = self.key.seal(&entry, group.as_str().as_bytes())?;
        self.journal.put_lease(group, sealed).await
    }

    async fn remove(&self, group: &LeaseGroupId) -> Result<(), Error> {
        self.journal.drop_lease(group).await
    }
}
