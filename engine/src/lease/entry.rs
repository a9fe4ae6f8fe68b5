// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What the journal holds of a group: whose it is, as JSON on one line, and after it the login's credential as it is.

use serde::{Deserialize, Serialize};

use crate::audit::Subject;
use crate::backend::Identity;
use crate::error::Error;
use crate::names::VolumeClassName;
use crate::secret::SecretBytes;
use crate::workload::Workload;

/// Everything but the credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    volume: String,
    workload: Workload,
    class: VolumeClassName,
    /// Who lends, and whom it was taken for.
    pub(super) identity: Identity,
    /// Which kind of backend that is.
    pub(super) kind: String,
    /// The one path that is asked, where all volumes of the identity may show what it lends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) shared: Option<String>,
}

impl Entry {
    pub(super) fn new(subject: &Subject, identity: &Identity, kind: &str, shared: Option<&str>) -> Self {
        let Subject { volume, workload, class } = subject.clone();
        let (identity, kind, shared) = (identity.clone(), kind.to_owned(), shared.map(str::to_owned));
        Self { volume, workload, class, identity, kind, shared }
    }

    pub(super) fn subject(&self) -> Subject {
        Subject { volume: self.volume.clone(), workload: self.workload.clone(), class: self.class.clone() }
    }

    /// With the credential, in one buffer of the right size from the start: growth would leave copies behind.
    pub(super) fn with(&self, credential: &[u8]) -> Result<SecretBytes, Error> {
        let json = serde_json::to_vec(self)
            .map_err(|error| Error::internal("a lease group cannot be written down").with_detail(error.to_string()))?;
        let mut bytes = Vec::with_capacity(json.len() + 1 + credential.len());
        bytes.extend_from_slice(&json);
        bytes.push(b'\n');
        bytes.extend_from_slice(credential);
        Ok(SecretBytes::new(bytes))
    }

    /// Both parts again. A parser's error quotes its input, so none is passed on; the first part holds no secret, but what
    /// is damaged may be anything.
    pub(super) fn read(entry: &SecretBytes) -> Option<(Self, SecretBytes)> {
        let bytes = entry.expose();
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let credential = SecretBytes::from(bytes.get(end + 1..)?);
        (!credential.is_empty()).then_some(())?;
        Some((serde_json::from_slice(&bytes[..end]).ok()?, credential))
    }
}
