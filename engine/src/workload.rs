// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Who asks: parsed, never half-valid.

use crate::names::{Namespace, NodeName, PodName, PodUid, ServiceAccountName};

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
