// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A whole secret as lines `KEY='value'`, read alike by a POSIX shell (`set -a; . file`), by systemd (`EnvironmentFile=`)
//! and by docker compose (`env_file`).
//!
//! What the three have in common is small. Systemd and compose know no value of several quoted parts, so there is one pair
//! of quotes. In single quotes nothing is special, but compose takes a `\` before the last quote for an escape. In double
//! quotes all three take `\\`, `\"` and `\$` for the letter itself; but a shell wants a backquote escaped, and compose keeps
//! that escape. What fits neither pair is refused, rather than read by one of them as something else.

use crate::error::Error;
use crate::secret::{Secret, SecretBytes};
use crate::yaml::shown;

/// The lines, in the keys' order. Each value is what a file of that key alone would hold.
pub(super) fn write(secret: &Secret) -> Result<SecretBytes, Error> {
    let lines = secret.values.iter().map(|(key, value)| Line::of(key, value.bytes.expose()));
    let lines = lines.collect::<Result<Vec<_>, _>>()?;
    let mut file = Vec::with_capacity(lines.iter().map(Line::len).sum());
    for line in lines {
        line.push(&mut file);
    }
    Ok(SecretBytes::new(file))
}

/// One variable.
struct Line<'a> {
    key: &'a str,
    value: &'a [u8],
    quote: u8,
}

impl<'a> Line<'a> {
    fn of(key: &'a str, value: &'a [u8]) -> Result<Self, Error> {
        if !is_name(key) {
            return Err(Error::invalid(format!(
                "key \"{}\" is no name of an environment variable (letters, digits and '_', no digit first): rename it, \
                 or take it into a file of its own with `from.key`",
                shown(key)
            )));
        }
        let refused = |what: &str| {
            Err(Error::invalid(format!(
                "the value of key \"{}\" {what}: take it into a file of its own with `from.key`",
                shown(key)
            )))
        };
        // Systemd drops what is not UTF-8, and a variable ends at its first zero byte.
        if std::str::from_utf8(value).is_err() || value.contains(&0) {
            return refused("is not text, and an environment variable is");
        }
        let single = !value.contains(&b'\'') && !value.ends_with(b"\\");
        let double = !value.contains(&b'`');
        let quote = match (single, double) {
            // Systemd before 240 has escapes in single quotes too.
            (true, true) if value.contains(&b'\\') => b'"',
            (true, _) => b'\'',
            (false, true) => b'"',
            (false, false) => {
                return refused(
                    "holds a backquote, and an apostrophe or a backslash at its end, which shells, systemd and docker \
                     compose read differently in every quoting",
                );
            }
        };
        Ok(Self { key, value, quote })
    }

    fn escapes(&self, byte: u8) -> bool {
        self.quote == b'"' && matches!(byte, b'"' | b'\\' | b'$')
    }

    fn len(&self) -> usize {
        let escapes = self.value.iter().filter(|byte| self.escapes(**byte)).count();
        self.key.len() + "=''\n".len() + self.value.len() + escapes
    }

    fn push(&self, file: &mut Vec<u8>) {
        file.extend_from_slice(self.key.as_bytes());
        file.extend([b'=', self.quote]);
        for &byte in self.value {
            if self.escapes(byte) {
                file.push(b'\\');
            }
            file.push(byte);
        }
        file.extend([self.quote, b'\n']);
    }
}

/// As POSIX has names of variables.
fn is_name(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn line(key: &str, value: &[u8]) -> Result<String, Error> {
        let line = Line::of(key, value)?;
        let mut file = Vec::new();
        line.push(&mut file);
        assert_eq!(file.len(), line.len());
        Ok(String::from_utf8(file).unwrap())
    }

    #[test]
    fn quotes_are_chosen_by_what_stands_in_them() {
        for (value, quoted) in [
            ("", "''"),
            ("plain", "'plain'"),
            ("a b\n\tc#d", "'a b\n\tc#d'"),
            ("$HOME `id` \"x\"", "'$HOME `id` \"x\"'"),
            ("it's $5", r#""it's \$5""#),
            (r"C:\n", r#""C:\\n""#),
            (r#"'\"$"#, r#""'\\\"\$""#),
            (r"`\n`", r"'`\n`'"),
            ("end\\", r#""end\\""#),
        ] {
            assert_eq!(line("K", value.as_bytes()).unwrap(), format!("K={quoted}\n"));
        }
    }

    #[test]
    fn what_no_quoting_carries_is_refused_and_not_shown() {
        for value in ["`CANARY'", "`CANARY\\", "CANARY\0"] {
            let error = line("token", value.as_bytes()).unwrap_err();
            assert!(error.message().contains("\"token\"") && error.message().contains("`from.key`"), "{error}");
            assert!(!error.message().contains("CANARY"));
        }
        assert!(line("token", b"\xff").is_err());
    }

    #[test]
    fn a_key_that_is_no_name_of_a_variable_is_refused_by_name() {
        for key in ["", "1st", "tls.crt", "a-b", "a b", "a=b", "ä", "a\n"] {
            let error = line(key, b"x").unwrap_err();
            assert!(error.message().contains(&format!("key \"{}\" is no name", shown(key))), "{error}");
        }
        for key in ["a", "_", "DB_PASSWORD_2"] {
            assert!(line(key, b"x").is_ok(), "{key}");
        }
    }
}
