// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The fields of a JSON object as the values of a secret, for every backend whose answers are JSON.
//!
//! No tree of JSON is built: strings go from the text into bytes that wipe themselves, everything else is cut out as it
//! stands. The parser's errors quote their input, so none of them is passed on.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use serde_json::value::RawValue;

use crate::secret::{SecretBytes, Value, ValueKind};

/// An object's fields, each as its text.
pub(super) type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// The values; `None` where a string is none.
pub(super) fn values(fields: Fields<'_>) -> Option<BTreeMap<String, Value>> {
    fields.into_iter().map(|(key, raw)| Some((key, value(raw)?))).collect()
}

fn value(raw: &RawValue) -> Option<Value> {
    let text = raw.get();
    if text.starts_with('"') {
        let Text(bytes) = serde_json::from_str(text).ok()?;
        return Some(Value { bytes, kind: ValueKind::Text });
    }
    Some(Value { bytes: SecretBytes::from(text.as_bytes()), kind: ValueKind::Json })
}

/// A JSON string without its quotes and escapes.
struct Text(SecretBytes);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(SecretBytes::from(text.as_bytes())))
            }
        }
        deserializer.deserialize_str(Reader)
    }
}
