// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What kubelet puts into the free-form fields of CSI and registration messages.
//!
//! CSI leaves these to the orchestrator; the names are Kubernetes API, checked against `pkg/volume/csi` of Kubernetes
//! 1.36. [`Publish`] makes requests as kubelet does, for whoever stands in for it.

mod publish;

pub use publish::{Pod, Publish, Token, TokensIn};

/// Key in `volume_context`: the pod's name. Present when the CSIDriver object says `podInfoOnMount` (KEP-603).
pub const POD_NAME: &str = "csi.storage.k8s.io/pod.name";

/// Key in `volume_context`: the pod's namespace (KEP-603).
pub const POD_NAMESPACE: &str = "csi.storage.k8s.io/pod.namespace";

/// Key in `volume_context`: the pod's uid (KEP-603).
pub const POD_UID: &str = "csi.storage.k8s.io/pod.uid";

/// Key in `volume_context`: the name of the pod's service account (KEP-603).
pub const SERVICE_ACCOUNT_NAME: &str = "csi.storage.k8s.io/serviceAccount.name";

/// Key in `volume_context`: `true` for a volume written inline in the pod, `false` for a persistent one (KEP-596).
pub const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";

/// Key of the pod's service account tokens, when the CSIDriver object has `tokenRequests` (KEP-1855).
///
/// The value is JSON, `{"<audience>":{"token":"…","expirationTimestamp":"<RFC 3339>"}}`; the audience is empty for the
/// API server's own. It stands in `secrets` if the object says `serviceAccountTokenInSecrets` (KEP-5538, on by default
/// from 1.35), else, and from every older kubelet, in `volume_context`, which is not marked secret: look in both, and
/// let neither be printed.
pub const SERVICE_ACCOUNT_TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// Everything under this prefix is kubelet's: it overwrites what a pod's author wrote there.
pub const RESERVED_PREFIX: &str = "csi.storage.k8s.io/";

/// `PluginInfo.type` of a CSI driver.
pub const PLUGIN_TYPE: &str = "CSIPlugin";

/// `PluginInfo.supported_versions` of a CSI driver: kubelet wants one whose major version is 1.
pub const PLUGIN_VERSION: &str = "1.0.0";

/// How long kubelet waits for one CSI call (`csiTimeout`).
pub const CALL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(120);
