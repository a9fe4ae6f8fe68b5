// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A whole secret as one JSON object.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::secret::{Secret, SecretBytes, Value, ValueKind};

/// The object, keys in order.
///
/// Written into one buffer of the right size, so that no smaller copy of it is left behind by growth.
pub(super) fn write(secret: &Secret) -> SecretBytes {
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
    use proptest::prelude::*;
    use std::collections::BTreeMap;

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
            let json: serde_json::Value = serde_json::from_slice(write(&secret).expose()).unwrap();
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
