// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `sealed` files: age around YAML. The first byte says where to begin.

use std::sync::LazyLock;

use evanesce_engine::backend::sealed::{Identities, Recipients, seal, unseal, values};
use evanesce_engine::secret::{SecretBytes, ValueKind};

use super::{CANARY, sober};

/// A key pair of these tests alone; it opens the files in `corpus`.
pub const IDENTITY: &str = "AGE-SECRET-KEY-1Y8HZYHUPMDQ07AEWC9L654G79N7DHK90HMNP0LV994PTV7DSN6MSH37ZYG";
/// Its public half.
pub const RECIPIENT: &str = "age174p2f403cwrzud33nha689ft3fmrhl444aj3gwe4fq64pn72vv0srma09j";

static KEYS: LazyLock<(Identities, Recipients)> = LazyLock::new(|| {
    (
        Identities::parse(IDENTITY.as_bytes()).expect("an identity"),
        Recipients::parse([RECIPIENT], []).expect("a recipient"),
    )
});

/// A sealed file, or the text of one.
pub fn check(data: &[u8]) {
    let Some((how, data)) = data.split_first() else { return };
    match how % 16 {
        0..8 => text(data),
        8..15 => file(data),
        _ => round(data),
    }
}

/// A file from a stranger.
fn file(sealed: &[u8]) {
    match unseal(sealed, &KEYS.0) {
        Ok(text) => assert!(text.len() <= sealed.len(), "a file grows"),
        Err(error) => sober(&error),
    }
    let _ = Identities::parse(sealed).map_err(|error| sober(&error));
}

/// The text of a secret.
fn text(yaml: &[u8]) {
    match values(&SecretBytes::from(yaml)) {
        Ok(values) => {
            assert!(!values.is_empty());
            for (key, value) in &values {
                assert!((1..=255).contains(&key.len()) && !key.chars().any(char::is_control));
                let json = serde_json::from_slice::<&serde_json::value::RawValue>(value.bytes.expose()).is_ok();
                assert!(value.kind != ValueKind::Json || json, "what is called JSON is none");
            }
        }
        Err(error) => sober(&error),
    }
    // Whatever follows a value, no error quotes it.
    let behind = [format!("a: {CANARY}").as_bytes(), yaml].concat();
    if let Err(error) = values(&SecretBytes::new(behind)) {
        sober(&error);
    }
}

/// What is sealed is unsealed to the letter; one bit elsewhere and it is not.
fn round(yaml: &[u8]) {
    let Ok(mut sealed) = seal(&SecretBytes::from(yaml), &KEYS.1).map_err(|error| sober(&error)) else { return };
    let text = unseal(&sealed, &KEYS.0).unwrap_or_else(|error| panic!("sealed and not unsealed: {error}"));
    assert!(text.expose() == yaml, "another text is unsealed than was sealed");
    // Of the base64 in the middle: a letter for its neighbour.
    let middle = sealed.len() / 2;
    if sealed[middle].is_ascii_alphanumeric() {
        sealed[middle] = if sealed[middle] == b'A' { b'B' } else { b'A' };
        assert!(unseal(&sealed, &KEYS.0).is_err(), "a changed file is read");
    }
}
