// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Kubelet's JSON of service-account tokens.

use std::collections::BTreeMap;
use std::time::SystemTime;

use evanesce_engine::error::Error;
use evanesce_engine::keep::HeapKeep;
use evanesce_engine::names::{Namespace, NodeName, PodName, PodUid, ServiceAccountName};
use evanesce_engine::secret::SecretBytes;
use evanesce_engine::token::{Audience, Tokens};
use evanesce_engine::workload::Workload;
use serde::Deserialize;

use super::{CANARY, sober};

/// The second reading: owned, and without our rules.
#[derive(Deserialize)]
struct Plain {
    token: String,
}

/// The value of `csi.storage.k8s.io/serviceAccount.tokens`.
pub fn check(data: &[u8]) {
    match parse(data) {
        Ok(tokens) => accepted(data, &tokens),
        Err(error) => sober(&error),
    }
    // A canary after every quote: in keys, tokens and times alike.
    let mut canary = Vec::with_capacity(data.len() * 2);
    for byte in data {
        canary.push(*byte);
        if *byte == b'"' {
            canary.extend_from_slice(CANARY.as_bytes());
        }
    }
    if let Err(error) = parse(&canary) {
        sober(&error);
    }
}

fn parse(json: &[u8]) -> Result<Tokens, Error> {
    Tokens::parse(&SecretBytes::from(json), &HeapKeep)
}

fn accepted(json: &[u8], tokens: &Tokens) {
    let plain: BTreeMap<String, Plain> = serde_json::from_slice(json).expect("what was read is JSON");
    assert_eq!(plain.is_empty(), tokens.is_empty());
    for (audience, Plain { token }) in plain {
        // One that has ended is refused and not handed out.
        if let Ok(kept) = tokens.get(&Audience::new(&audience), SystemTime::UNIX_EPOCH) {
            assert!(kept.expires_at() > SystemTime::UNIX_EPOCH);
            assert!(kept.expose() == token.as_bytes(), "another token is kept than was sent");
            assert!(token.bytes().all(|byte| byte.is_ascii_graphic()) && !token.is_empty());
        }
    }
    let workload = Workload {
        namespace: Namespace::parse("payments").expect("a name"),
        service_account: ServiceAccountName::parse("app").expect("a name"),
        pod: PodName::parse("web-0").expect("a name"),
        pod_uid: PodUid::parse("pod-1").expect("a name"),
        node: NodeName::parse("node-1").expect("a name"),
    };
    if let Err(error) = tokens.check_holder(&workload) {
        sober(&error);
    }
}
