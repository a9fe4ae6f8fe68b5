// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Pods of service accounts that can be told apart, because their tokens say whose they are.

use base64::Engine as _;
use evanesce_proto::kubelet::{Pod, Publish, Token, TokensIn};

use crate::ground::{FAR, Node};

/// A token of a service account that exists: its uid tells it from one that is made again.
pub(crate) fn token(account: &str, account_uid: &str, pod: &str, pod_uid: &str) -> String {
    let claims = serde_json::json!({
        "aud": ["fake"], "exp": 5_000_000_000_u64, "sub": format!("system:serviceaccount:payments:{account}"),
        "kubernetes.io": {
            "namespace": "payments",
            "serviceaccount": {"name": account, "uid": account_uid},
            "pod": {"name": pod, "uid": pod_uid},
        },
    });
    let part = |json: &str| base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(json);
    format!("{}.{}.c2ln", part("{\"alg\":\"RS256\"}"), part(&claims.to_string()))
}

pub(crate) fn pod_with(node: &Node, uid: &str, account: &str, token: &str, expires: &str) -> Publish {
    let pod =
        Pod { name: "web-0".into(), namespace: "payments".into(), uid: uid.into(), service_account: account.into() };
    Publish::new(&node.mounts.pods(), pod, "secrets")
        .attribute("secretVolume", "db")
        .tokens(&[Token { audience: "fake", token, expires }], TokensIn::Secrets)
}

/// A pod of the service account `app`.
pub(crate) fn pod(node: &Node, uid: &str) -> Publish {
    pod_with(node, uid, "app", &token("app", "sa-1", "web-0", uid), FAR)
}
