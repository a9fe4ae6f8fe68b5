// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `NodePublishVolume` as its bytes arrive.

use evanesce_csi::engine_half::publish_request::PublishRequest;
use evanesce_engine::error::Error;
use evanesce_engine::keep::HeapKeep;
use evanesce_engine::names::NodeName;
use evanesce_proto::csi::NodePublishVolumeRequest;
use evanesce_proto::kubelet;
use prost::Message as _;

use super::{CANARY, sober};

/// The bytes of a message.
pub fn check(data: &[u8]) {
    let Ok(mut request) = NodePublishVolumeRequest::decode(data) else { return };
    match parse(request.clone()) {
        Ok(parsed) => accepted(&request, parsed),
        Err(error) => sober(&error),
    }
    // Once more with a canary in whatever may be secret; it can have come from nowhere else.
    if !data.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()) {
        let tokens = request.volume_context.get_mut(kubelet::SERVICE_ACCOUNT_TOKENS);
        request.secrets.values_mut().chain(tokens).for_each(hide);
        assert!(!format!("{request:?}").contains(CANARY), "a message prints a value");
        if let Err(error) = parse(request) {
            sober(&error);
        }
    }
}

fn parse(request: NodePublishVolumeRequest) -> Result<PublishRequest, Error> {
    PublishRequest::parse(request, &NodeName::parse("node-1").expect("a name"), &HeapKeep)
}

fn accepted(request: &NodePublishVolumeRequest, parsed: PublishRequest) {
    let said = |key: &str| request.volume_context.get(key).map(String::as_str);
    assert!(request.readonly && request.secrets.len() <= 1);
    assert!(!parsed.volume.as_str().contains('/') && parsed.volume.as_str() == request.volume_id);
    assert!(parsed.target.as_str().split('/').skip(1).all(|part| !matches!(part, "" | "." | "..")));
    assert_eq!(parsed.target.as_str(), request.target_path);
    // The audit's subject is what kubelet said, and the class what the pod chose: nothing is taken from elsewhere.
    let workload = &parsed.subject.workload;
    assert_eq!(Some(workload.namespace.as_str()), said(kubelet::POD_NAMESPACE));
    assert_eq!(Some(workload.pod.as_str()), said(kubelet::POD_NAME));
    assert_eq!(Some(workload.pod_uid.as_str()), said(kubelet::POD_UID));
    assert_eq!(Some(workload.service_account.as_str()), said(kubelet::SERVICE_ACCOUNT_NAME));
    assert_eq!(Some(parsed.subject.class.as_str()), said("secretVolume"));
    assert_eq!(parsed.subject.volume, request.volume_id);
    // What was written, read and written again is the same request.
    let again = NodePublishVolumeRequest::decode(request.encode_to_vec().as_slice()).expect("our own bytes");
    let again = parse(again).unwrap_or_else(|error| panic!("refused the second time: {error}"));
    assert_eq!((again.volume, again.target, again.subject), (parsed.volume, parsed.target, parsed.subject));
    assert_eq!((again.group, again.tokens.is_empty()), (parsed.group, parsed.tokens.is_empty()));
}

/// Puts the canary into the middle.
fn hide(value: &mut String) {
    let middle = (0..=value.len() / 2).rev().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
    value.insert_str(middle, CANARY);
}
