// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Secrets and a spec become files to be. Pure: no clock, no disk, no network.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::Error;
use crate::projection::{File, Mode, Projection};
use crate::secret::{Secret, SecretBytes, Value, ValueKind};
use crate::secret_ref::SecretRef;
use crate::spec::volume::{FileSpec, Select, VolumeSpec};
use crate::yaml::shown;

/// Renders every file of `spec`. `group` is the pod's fsGroup.
///
/// A file belongs to root and the pod's group and is read by both (0440); without an fsGroup only by its owner (0400).
///
/// # Errors
/// [`Kind::Missing`](crate::error::Kind::Missing) where a secret lacks the key a file asks for,
/// [`Kind::Invalid`](crate::error::Kind::Invalid) where a key cannot be a file name or two files share a path.
pub fn render(
    spec: &VolumeSpec,
    group: Option<u32>,
    secrets: &BTreeMap<SecretRef, Arc<Secret>>,
) -> Result<Projection, Error> {
    let mut projection = Projection::default();
    for entry in &spec.files {
        let secret =
            secrets.get(&entry.from).ok_or_else(|| Error::internal(format!("{} was not fetched", entry.from)))?;
        match &entry.select {
            Select::Whole => projection.add(entry.path.clone(), file(entry, group, whole(secret)))?,
            Select::Key(key) => {
                let value = secret.values.get(key).ok_or_else(|| missing_key(entry, key))?;
                projection.add(entry.path.clone(), file(entry, group, SecretBytes::from(value.bytes.expose())))?;
            }
            Select::EachKey => {
                for (key, value) in &secret.values {
                    let path = entry.path.join(key).map_err(|error| error.context(&entry.from))?;
                    projection.add(path, file(entry, group, SecretBytes::from(value.bytes.expose())))?;
                }
            }
        }
    }
    Ok(projection)
}

fn file(entry: &FileSpec, group: Option<u32>, bytes: SecretBytes) -> File {
    let default = if group.is_some() { Mode::GROUP_READS } else { Mode::OWNER_READS };
    File {
        bytes,
        mode: entry.mode.unwrap_or(default),
        uid: entry.uid.unwrap_or(0),
        gid: entry.gid.or(group).unwrap_or(0),
    }
}

fn missing_key(entry: &FileSpec, key: &str) -> Error {
    Error::missing(format!(
        "{} has no key \"{}\", which file {} asks for: check the spelling in the SecretVolume",
        entry.from,
        shown(key),
        entry.path
    ))
}

/// The whole secret as one JSON object, keys in order.
///
/// Written into one buffer of the right size, so that no smaller copy of it is left behind by growth.
fn whole(secret: &Secret) -> SecretBytes {
    let size = |(key, value): (&String, &Value)| 6 * key.len() + 8 + 6 * value.bytes.len();
    let mut json = Vec::with_capacity(2 + secret.values.iter().map(size).sum::<usize>());
    json.push(b'{');
    for (index, (key, value)) in secret.values.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        push_string(&mut json, key);
        json.push(b':');
        match (value.kind, std::str::from_utf8(value.bytes.expose())) {
            (ValueKind::Json, _) => json.extend_from_slice(value.bytes.expose()),
            (ValueKind::Text, Ok(text)) => push_string(&mut json, text),
            (ValueKind::Text, Err(_)) | (ValueKind::Binary, _) => {
                json.push(b'"');
                let start = json.len();
                json.resize(start + value.bytes.len().div_ceil(3) * 4, 0);
                let end = STANDARD.encode_slice(value.bytes.expose(), &mut json[start..]).unwrap_or(0);
                json.truncate(start + end);
                json.push(b'"');
            }
        }
    }
    json.push(b'}');
    SecretBytes::new(json)
}

/// A JSON string (RFC 8259 section 7).
fn push_string(json: &mut Vec<u8>, text: &str) {
    json.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => json.extend_from_slice(b"\\\""),
            b'\\' => json.extend_from_slice(b"\\\\"),
            b'\n' => json.extend_from_slice(b"\\n"),
            b'\r' => json.extend_from_slice(b"\\r"),
            b'\t' => json.extend_from_slice(b"\\t"),
            0..0x20 => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                json.extend_from_slice(b"\\u00");
                json.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            _ => json.push(byte),
        }
    }
    json.push(b'"');
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::names::BackendName;
    use crate::projection::FilePath;
    use crate::secret_ref::SecretPath;
    use crate::spec::volume::Refresh;
    use proptest::prelude::*;
    use std::time::Duration;

    fn reference() -> SecretRef {
        SecretRef {
            backend: BackendName::parse("vault").unwrap(),
            path: SecretPath::parse("kv/db").unwrap(),
            version: None,
            args: BTreeMap::new(),
        }
    }

    fn entry(path: &str, select: Select) -> FileSpec {
        FileSpec { path: FilePath::parse(path).unwrap(), from: reference(), select, mode: None, uid: None, gid: None }
    }

    fn spec(files: Vec<FileSpec>) -> VolumeSpec {
        let refresh = Refresh { every: Duration::from_secs(300), jitter_percent: 10 };
        VolumeSpec {
            refresh,
            keep_previous: Duration::from_secs(10),
            overlap: Duration::ZERO,
            lease_scope: Default::default(),
            max_stale: None,
            size: None,
            files,
        }
    }

    fn secrets(values: &[(&str, &[u8], ValueKind)]) -> BTreeMap<SecretRef, Arc<Secret>> {
        let values = values
            .iter()
            .map(|&(key, bytes, kind)| (key.to_owned(), Value { bytes: SecretBytes::from(bytes), kind }))
            .collect();
        BTreeMap::from([(
            reference(),
            Arc::new(Secret {
                values,
                version: None,
                lease: None,
                expires_at: None,
                rotates_in: None,
                request_id: None,
            }),
        )])
    }

    fn contents(projection: &Projection) -> Vec<(String, Vec<u8>, u16, u32, u32)> {
        let row = |(path, file): (&FilePath, &File)| {
            (path.to_string(), file.bytes.expose().to_vec(), file.mode.bits(), file.uid, file.gid)
        };
        projection.files().map(row).collect()
    }

    #[test]
    fn a_key_becomes_a_file_that_root_and_the_pods_group_read() {
        let secrets = secrets(&[("password", b"s3cret", ValueKind::Text)]);
        let spec = spec(vec![entry("db/password", Select::Key("password".into()))]);
        let with = contents(&render(&spec, Some(2000), &secrets).unwrap());
        assert_eq!(with, [("db/password".into(), b"s3cret".to_vec(), 0o440, 0, 2000)]);
        let without = contents(&render(&spec, None, &secrets).unwrap());
        assert_eq!(without, [("db/password".into(), b"s3cret".to_vec(), 0o400, 0, 0)]);
    }

    #[test]
    fn owner_and_mode_of_a_file_win_over_the_pods() {
        let file = FileSpec {
            mode: Some(Mode::new(0o444).unwrap()),
            uid: Some(70),
            gid: Some(71),
            ..entry("a", Select::Key("k".into()))
        };
        let rendered = render(&spec(vec![file]), Some(2000), &secrets(&[("k", b"v", ValueKind::Text)])).unwrap();
        assert_eq!(contents(&rendered), [("a".into(), b"v".to_vec(), 0o444, 70, 71)]);
    }

    #[test]
    fn each_key_becomes_a_file_below_the_path() {
        let values: &[(&str, &[u8], ValueKind)] = &[("a", b"1", ValueKind::Json), ("b", b"2", ValueKind::Text)];
        let rendered = render(&spec(vec![entry("all", Select::EachKey)]), None, &secrets(values)).unwrap();
        let paths: Vec<_> = rendered.files().map(|(path, _)| path.to_string()).collect();
        assert_eq!(paths, ["all/a", "all/b"]);
    }

    #[test]
    fn a_key_that_cannot_be_a_file_name_is_refused() {
        for key in ["../x", "a/b", "..", ".", "", "a\0b", &"a".repeat(256)] {
            let values: &[(&str, &[u8], ValueKind)] = &[(key, b"1", ValueKind::Text)];
            let error = render(&spec(vec![entry("all", Select::EachKey)]), None, &secrets(values)).err().unwrap();
            assert_eq!(error.kind(), Kind::Invalid, "{key:?}");
        }
    }

    #[test]
    fn a_missing_key_is_named_with_its_file() {
        let spec = spec(vec![entry("a", Select::Key("pasword".into()))]);
        let error = render(&spec, None, &secrets(&[("password", b"CANARY", ValueKind::Text)])).err().unwrap();
        assert_eq!(error.kind(), Kind::Missing);
        assert!(error.message().contains("pasword") && !error.message().contains("CANARY"));
    }

    #[test]
    fn two_files_at_one_path_are_refused() {
        for (a, b) in [("x", "x"), ("x", "x/y"), ("x/y", "x")] {
            let files = vec![entry(a, Select::Whole), entry(b, Select::Whole)];
            assert!(render(&spec(files), None, &secrets(&[])).is_err(), "{a} and {b}");
        }
        let files = vec![entry("x", Select::Whole), entry("xy", Select::Whole)];
        assert!(render(&spec(files), None, &secrets(&[])).is_ok());
    }

    proptest! {
        #[test]
        fn the_whole_secret_reads_back_from_json(
            texts in proptest::collection::btree_map(".*", ".*", 0..8),
            binary in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut secret = Secret { values: BTreeMap::new(), version: None, lease: None, expires_at: None, rotates_in: None, request_id: None };
            for (key, text) in &texts {
                secret.values.insert(key.clone(), Value { bytes: SecretBytes::from(text.as_bytes()), kind: ValueKind::Text });
            }
            secret.values.insert("§binary".into(), Value { bytes: SecretBytes::from(&binary[..]), kind: ValueKind::Binary });
            secret.values.insert("§json".into(), Value { bytes: SecretBytes::from(&b"[1,true]"[..]), kind: ValueKind::Json });
            let json: serde_json::Value = serde_json::from_slice(whole(&secret).expose()).unwrap();
            for (key, text) in &texts {
                if !key.starts_with('§') {
                    prop_assert_eq!(json[key].as_str(), Some(text.as_str()));
                }
            }
            prop_assert_eq!(STANDARD.decode(json["§binary"].as_str().unwrap()).unwrap(), binary);
            prop_assert_eq!(&json["§json"], &serde_json::json!([1, true]));
        }
    }
}
