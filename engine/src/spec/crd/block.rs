// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! YAML in block style, as people review it. Text that is not a plain word is written as JSON, which YAML reads.

use serde_json::Value;

/// Writes `value`, a map.
pub(super) fn write(value: &Value) -> String {
    let mut out = String::new();
    put(value, 0, &mut out);
    out.trim_start_matches('\n').to_owned() + "\n"
}

/// Writes what follows `key:` or `-`.
fn put(value: &Value, indent: usize, out: &mut String) {
    let line = |out: &mut String| *out += &format!("\n{}", " ".repeat(indent));
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                line(out);
                *out += &format!("{key}:");
                put(value, indent + 2, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut one = String::new();
                put(item, indent + 2, &mut one);
                line(out);
                *out += &format!("- {}", one.trim_start());
            }
        }
        Value::String(text) if is_word(text) => *out += &format!(" {text}"),
        scalar => *out += &format!(" {scalar}"),
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "./-".contains(c))
        && !matches!(text, "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let value = json!({
            "list": [{ "a": 1, "b": ["x", "yes", ""] }, { "c": "it's: \"{ }\" … # -" }],
            "map": { "deep": { "true": true, "text": "true", "none": {}, "empty": [] } },
        });
        let read: Value = serde_saphyr::from_str(&write(&value)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(read, value);
    }
}
