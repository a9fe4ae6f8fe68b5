// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The ways in which a secret may be written in memory.

use std::fmt::Write as _;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

/// A way to write bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    Raw,
    Base64,
    Base64Url,
    Json,
    Hex,
    HexUpper,
    Percent,
}

impl Form {
    /// Its name in reports.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Base64 => "base64",
            Self::Base64Url => "base64url",
            Self::Json => "json",
            Self::Hex => "hex",
            Self::HexUpper => "hex-upper",
            Self::Percent => "percent",
        }
    }
}

/// Text that is wiped, also where it is no secret's own.
pub(super) type Text = Zeroizing<Vec<u8>>;

/// The secret in every form; a form that is written as an earlier one is left out.
pub(super) fn all(secret: &[u8]) -> Vec<(Form, Text)> {
    let mut forms: Vec<(Form, Text)> = Vec::new();
    let mut add = |form, text: Vec<u8>| {
        let text = Zeroizing::new(text);
        if !forms.iter().any(|(_, other)| *other == text) {
            forms.push((form, text));
        }
    };
    add(Form::Raw, secret.to_vec());
    for before in 0..3 {
        add(Form::Base64, base64(&BASE64_STANDARD_NO_PAD, before, secret));
        add(Form::Base64Url, base64(&BASE64_URL_SAFE_NO_PAD, before, secret));
    }
    // As serializers write strings that are text; the second one is Go's, which is careful with HTML.
    if let Ok(text) = std::str::from_utf8(secret)
        && let Ok(quoted) = serde_json::to_string(text)
    {
        let inside = quoted[1..quoted.len() - 1].to_owned();
        add(Form::Json, inside.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e").into_bytes());
        add(Form::Json, inside.replace('/', "\\/").into_bytes());
        add(Form::Json, inside.into_bytes());
    }
    add(Form::Hex, secret.iter().fold(String::new(), |text, byte| written(text, format_args!("{byte:02x}"))).into());
    add(
        Form::HexUpper,
        secret.iter().fold(String::new(), |text, byte| written(text, format_args!("{byte:02X}"))).into(),
    );
    add(Form::Percent, percent(secret, |text, byte| written(text, format_args!("%{byte:02X}"))));
    add(Form::Percent, percent(secret, |text, byte| written(text, format_args!("%{byte:02x}"))));
    forms
}

/// The characters that follow from the secret alone, whatever `before` bytes come before it and any after it.
fn base64(alphabet: &impl Engine, before: usize, secret: &[u8]) -> Vec<u8> {
    let text = alphabet.encode([&[0; 3][..before], secret].concat()).into_bytes();
    // Each character has six bits: those of the first bytes are not ours, and the last may have bits that are not.
    text[(before * 8).div_ceil(6)..(before + secret.len()) * 8 / 6].to_vec()
}

fn percent(secret: &[u8], escape: impl Fn(String, u8) -> String) -> Vec<u8> {
    let text = secret.iter().fold(String::new(), |mut text, byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            text.push(char::from(*byte));
            text
        }
        _ => escape(text, *byte),
    });
    text.into_bytes()
}

fn written(mut text: String, what: std::fmt::Arguments<'_>) -> String {
    // A string takes everything.
    let _ = text.write_fmt(what);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(form: Form, secret: &str) -> Vec<String> {
        let all = all(secret.as_bytes()).into_iter().filter(|(other, _)| *other == form);
        all.map(|(_, text)| String::from_utf8_lossy(&text).into_owned()).collect()
    }

    #[test]
    fn base64_is_found_wherever_the_secret_begins_and_whatever_follows_it() {
        let secret = b"~~?secret>>value~";
        for (alphabet, form) in [(BASE64_STANDARD_NO_PAD, Form::Base64), (BASE64_URL_SAFE_NO_PAD, Form::Base64Url)] {
            for before in 0..7 {
                for after in 0..4 {
                    let text = alphabet.encode([&[0xab; 7][..before], secret, &[0xcd; 4][..after]].concat());
                    // A form that both alphabets write the same way is there once.
                    let found = all(secret).into_iter().any(|(other, part)| {
                        [form, Form::Base64].contains(&other) && text.contains(&*String::from_utf8_lossy(&part))
                    });
                    assert!(found, "{form:?}, {before} bytes before, {after} after");
                }
            }
        }
    }

    #[test]
    fn a_secret_is_written_as_others_would_write_it() {
        assert_eq!(of(Form::Raw, "a\"b&/c d"), ["a\"b&/c d"]);
        assert_eq!(of(Form::Json, "a\"b&/c d"), ["a\\\"b\\u0026/c d", "a\\\"b&\\/c d", "a\\\"b&/c d"]);
        assert_eq!(of(Form::Hex, "a\"b/"), ["6122622f"]);
        assert_eq!(of(Form::HexUpper, "a\"b/"), ["6122622F"]);
        assert_eq!(of(Form::Percent, "a\"b/"), ["a%22b%2F", "a%22b%2f"]);
    }

    #[test]
    fn a_form_that_changes_nothing_is_not_counted_twice() {
        assert_eq!(of(Form::Json, "plain-value"), [""; 0]);
        assert_eq!(of(Form::Percent, "plain-value"), [""; 0]);
    }
}
