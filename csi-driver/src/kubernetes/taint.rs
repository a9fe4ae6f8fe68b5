// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The startup taint: a node that is new keeps pods away until this plugin serves it.
//!
//! Whoever makes nodes gives them the taint; here it is only ever removed, from this node alone, once kubelet knows the
//! driver. On Kubernetes 1.37 and later the CSIDriver's `preventPodSchedulingIfMissing` does without.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tracing::{info, warn};

/// Between tries; the API server may be as new as the node.
const RETRY: Duration = Duration::from_secs(5);

/// Removes the taint of this key from the node, trying until it is gone.
pub async fn remove(client: Client, node: String, key: String) {
    let nodes = Api::<Node>::all(client);
    let mut said = false;
    loop {
        match try_to(&nodes, &node, &key).await {
            Ok(true) => return info!(taint = key, "the startup taint is removed: pods may come"),
            Ok(false) => return,
            Err(error) if said => tracing::debug!(taint = key, %error, "the startup taint stays"),
            Err(error) => {
                warn!(taint = key, %error, "the startup taint cannot be removed yet: the chart's Helm value `startupTaint.enabled` grants it");
                said = true;
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Whether there was one to remove.
async fn try_to(nodes: &Api<Node>, node: &str, key: &str) -> kube::Result<bool> {
    let found = nodes.get(node).await?;
    match without(&found, key) {
        Some(patch) => nodes.patch(node, &PatchParams::default(), &Patch::<Value>::Merge(patch)).await.map(|_| true),
        None => Ok(false),
    }
}

/// The change that takes the taint away. A merge patch replaces the list, so it names the version of the node that the list
/// was read from: a taint that somebody adds meanwhile makes it fail, and the next try keeps it.
fn without(node: &Node, key: &str) -> Option<Value> {
    let taints = node.spec.as_ref()?.taints.as_ref()?;
    let left: Vec<_> = taints.iter().filter(|taint| taint.key != key).collect();
    if left.len() == taints.len() {
        return None;
    }
    Some(json!({ "metadata": { "resourceVersion": node.metadata.resource_version }, "spec": { "taints": left } }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn node(taints: Value) -> Node {
        serde_json::from_value(
            json!({ "metadata": { "name": "n", "resourceVersion": "7" }, "spec": { "taints": taints } }),
        )
        .unwrap()
    }

    #[test]
    fn only_the_named_taint_goes_and_only_from_the_version_that_was_read() {
        let other = json!({ "key": "node.kubernetes.io/unreachable", "effect": "NoExecute" });
        let ours = json!({ "key": "evanesce.dev/not-ready", "effect": "NoSchedule" });
        let patch = without(&node(json!([ours, other])), "evanesce.dev/not-ready").unwrap();
        assert_eq!(patch, json!({ "metadata": { "resourceVersion": "7" }, "spec": { "taints": [other] } }));
        assert!(without(&node(json!([other])), "evanesce.dev/not-ready").is_none());
        assert!(without(&node(json!([])), "evanesce.dev/not-ready").is_none());
    }
}
