// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Permission as a value.

use crate::secret_ref::{SecretRef, WirePath};

/// Proof that policy lets this workload ask for this. Only [`authorise`](super::authorise) makes one.
#[derive(Clone, Debug)]
pub struct Grant {
    reference: SecretRef,
    path: WirePath,
    role: Option<String>,
}

impl Grant {
    /// For [`authorise`](super::authorise) alone.
    pub(super) fn new(reference: SecretRef, path: WirePath, role: Option<String>) -> Self {
        Self { reference, path, role }
    }

    /// What was asked, as its user wrote it.
    pub fn reference(&self) -> &SecretRef {
        &self.reference
    }

    /// The exact path to send.
    pub fn path(&self) -> &WirePath {
        &self.path
    }

    /// The role that the allow entry names, where it names one.
    pub fn role(&self) -> Option<&str> {
        self.role.as_deref()
    }
}
