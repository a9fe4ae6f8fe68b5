// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What makes two questions the same: everything that could change the answer, and who hears it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::backend::Identity;
use crate::policy::Grant;
use crate::secret_ref::WirePath;

/// Whom a backend takes the caller for, under one state of its class. Address, the server's own namespace and trust are
/// parts of the class, so an edit of any of them makes another asker.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Asker {
    /// Whom the backend takes the caller for.
    pub(super) identity: Identity,
    /// The class's revision.
    pub(super) revision: u64,
}

/// One question of one asker, as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    asker: Arc<Asker>,
    path: WirePath,
    version: Option<u64>,
    args: BTreeMap<String, String>,
}

impl Question {
    /// Whether it is this identity's.
    pub(super) fn is_of(&self, identity: &Identity) -> bool {
        self.asker.identity == *identity
    }

    /// The question that `grant` lets `asker` put.
    pub(super) fn new(asker: &Arc<Asker>, grant: &Grant) -> Self {
        let reference = grant.reference();
        Self {
            asker: Arc::clone(asker),
            path: grant.path().clone(),
            version: reference.version,
            args: reference.args.clone(),
        }
    }
}
