// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What a backend answers: the first byte says to which question.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use evanesce_engine::backend::vault::testing;
use evanesce_engine::names::BackendName;
use evanesce_engine::projection::FilePath;
use evanesce_engine::render::render;
use evanesce_engine::secret::{Secret, ValueKind};
use evanesce_engine::secret_ref::{SecretPath, SecretRef};
use evanesce_engine::spec::VolumeSpec;
use evanesce_engine::spec::volume::{FileSpec, Format, Refresh, Select};
use serde_json::Value;

/// The kind of answer, and its body.
pub fn check(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    match kind % 5 {
        0 => secret(testing::kv(body), body, "/data/data"),
        1 => secret(testing::raw(body), body, "/data"),
        2 => metadata(body),
        3 => login(body),
        _ => retry_after(body),
    }
}

/// A secret that was read holds what an independent reader finds in the same body, and can be written out whole.
fn secret(read: Option<Secret>, body: &[u8], at: &str) {
    let Some(secret) = read else { return };
    assert!(secret.request_id.as_deref().is_none_or(is_id));
    assert!(secret.values.values().map(|value| value.bytes.len()).sum::<usize>() <= body.len());
    assert!(secret.lease.as_ref().is_none_or(|lease| !lease.id.is_empty() && !lease.duration.is_zero()));
    // Numbers that do not fit into a float are none to this reader, and their own letters to ours.
    let Ok(plain) = serde_json::from_slice::<Value>(body) else { return };
    let plain = plain.pointer(at).expect("what was read is there");
    assert_eq!(plain.as_object().map(serde_json::Map::len), Some(secret.values.len()));
    for (key, value) in &secret.values {
        match value.kind {
            ValueKind::Text => assert_eq!(plain[key].as_str().map(str::as_bytes), Some(value.bytes.expose())),
            ValueKind::Json => assert_eq!(plain[key], json(value.bytes.expose())),
            ValueKind::Binary => panic!("JSON holds no bytes"),
        }
    }
    let reference = SecretRef {
        backend: BackendName::parse("vault").expect("a name"),
        path: SecretPath::parse("kv/db").expect("a path"),
        version: None,
        args: BTreeMap::new(),
    };
    let path = FilePath::parse("all").expect("a path");
    let whole = FileSpec {
        path,
        from: reference.clone(),
        select: Select::Whole(Format::Json),
        mode: None,
        uid: None,
        gid: None,
    };
    let spec = VolumeSpec {
        refresh: Refresh::default(),
        keep_previous: VolumeSpec::DEFAULT_KEEP_PREVIOUS,
        overlap: VolumeSpec::DEFAULT_OVERLAP,
        lease_scope: Default::default(),
        max_stale: None,
        size: None,
        files: vec![whole],
    };
    let files =
        render(&spec, None, &BTreeMap::from([(reference, Arc::new(secret))])).expect("a whole secret is one file");
    for (_, file) in files.files() {
        assert_eq!(json(file.bytes.expose()), *plain, "the whole secret is another one");
    }
}

fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).expect("JSON is written as JSON")
}

fn metadata(body: &[u8]) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    for wanted in [None, Some(1), Some(u64::MAX)] {
        if let Some(Some(found)) = testing::metadata(body, wanted, now) {
            assert!(wanted.is_none_or(|wanted| wanted == found), "version {found} was not asked for");
        }
    }
}

fn login(body: &[u8]) {
    let Some((token, request_id)) = testing::login(body) else { return };
    assert!(request_id.as_deref().is_none_or(is_id));
    if let Some(token) = token {
        assert!(token.as_bytes().iter().all(u8::is_ascii_graphic) && !token.is_empty());
        assert_eq!(format!("{token:?}"), "Sensitive", "a token is shown");
    }
}

fn retry_after(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let wait = testing::retry_after(text, SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    assert!(wait.is_none_or(|wait| wait <= Duration::from_secs(3600)), "{wait:?}");
}

fn is_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
