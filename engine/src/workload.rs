// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Who asks: parsed, never half-valid.

use crate::names::{Namespace, NodeName, PodName, PodUid, ServiceAccountName, ServiceAccountUid};
use crate::token::Token;

/// The pod that a volume belongs to, as kubelet names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Workload {
    /// The pod's namespace.
    pub namespace: Namespace,
    /// The pod's service account.
    pub service_account: ServiceAccountName,
    /// The pod's name.
    pub pod: PodName,
    /// The pod's uid.
    pub pod_uid: PodUid,
    /// The node the pod runs on.
    pub node: NodeName,
}

impl Workload {
    /// The user name that Kubernetes gives the service account.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.service_account)
    }
}

/// A workload with what it proves itself by: what a backend logs in with.
pub struct Caller<'a> {
    /// Who asks.
    pub workload: &'a Workload,
    /// The token for the backend's audience; absent for backends that ask for none.
    pub token: Option<&'a Token>,
}

impl Caller<'_> {
    /// The service account's uid, as its token says; part of every identity, because a deleted and re-created account
    /// of the same name is somebody else.
    pub fn service_account_uid(&self) -> Option<&ServiceAccountUid> {
        self.token.and_then(|token| token.claims().service_account_uid.as_ref())
    }
}
