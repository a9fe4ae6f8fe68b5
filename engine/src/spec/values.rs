// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The small languages inside a class's values: durations, percentages, sizes, modes, names of files, role templates.

use std::time::Duration;

use crate::backend::role::RoleTemplate;
use crate::error::Error;
use crate::projection::Mode;
use crate::secret_ref::SecretPath;
use crate::spec::form::Form;
use crate::spec::section::Field;
use crate::yaml::shown;

// What is said of a value that is wrong, by these readers and by the API server.
pub(super) const ADDRESS: &str = "expected https://host or https://host:port, without a path, a user or a query";
pub(super) const CERTIFICATES: &str = "expected PEM certificates: -----BEGIN CERTIFICATE----- …";
pub(super) const DURATION: &str = "expected a duration such as 10s, 5m, 1h30m or 250ms";
pub(super) const FILE_NAME: &str = "expected the name of a file in the credentials folder: letters, digits, '-', '_' and '.', no folder, no leading '.'";
pub(super) const FIRST_SEGMENT: &str =
    "must name its first segment in full: kv/*, not k*/…; '*' alone stands for everything";
pub(super) const FOLDER: &str = "expected an absolute path without '.', '..', '//' or a '/' at its end";
pub(super) const MODE: &str = "expected three or four octal digits in quotes, such as \"0440\"";
pub(super) const NAME_PATTERN: &str = "expected a name of a-z, 0-9, '-' and '.', with '*' for any run of characters";
pub(super) const PRIVATE_KEY: &str =
    "holds a private key: a class is no place for one, and this one is no longer secret";
pub(super) const SECRET_PATTERN: &str =
    "expected a path as a class names a secret, such as kv/payments/*, with '*' for parts of it";
pub(super) const SERVER_NAMESPACE: &str = "holds a name that a server keeps for itself (root, sys, auth, identity, audit, cubbyhole): for the root namespace leave it out";
pub(super) const SIZE: &str = "expected a size from 16Ki to 1Gi, such as 64Ki, 1Mi or a number of bytes";

/// What is said of a duration out of bounds, which are in milliseconds.
pub(super) fn outside((least, most): (u64, u64)) -> String {
    format!("lies outside {:?} to {:?}", Duration::from_millis(least), Duration::from_millis(most))
}

/// What is said of a percentage that is none, or too large.
pub(super) fn percentage(most: u64) -> String {
    format!("expected a percentage from 0% to {most}%")
}

/// What is said of a word that is none of those.
pub(super) fn one_of_words(words: &[&str]) -> String {
    format!("expected `{}`", words.join("` or `"))
}

/// One of the form's words.
pub fn one_of<'a>(field: &Field<'a>) -> Result<&'a str, Error> {
    let Form::OneOf(words) = field.form else { return Err(field.wrong("is not a word")) };
    let text = field.text()?;
    if words.contains(&text) { Ok(text) } else { Err(field.wrong(&one_of_words(words))) }
}

/// A duration.
pub fn duration(field: &Field<'_>) -> Result<Duration, Error> {
    if let Some(bare) = field.bare() {
        return Err(field.wrong(&format!("{DURATION}: {} has no unit", shown(bare))));
    }
    let parsed = parse_duration(field.text()?).ok_or_else(|| field.wrong(DURATION))?;
    let (least, most) = field.form.bounds();
    if parsed < Duration::from_millis(least) || parsed > Duration::from_millis(most) {
        return Err(field.wrong(&outside((least, most))));
    }
    Ok(parsed)
}

/// As Go writes them, without fractions: the form that Kubernetes' users know.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut largest = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at_checked(digits)?;
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(unit)?;
        let milliseconds: u64 = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            _ => return None,
        };
        if milliseconds >= largest {
            return None; // `30s5m`: a slip rather than a wish
        }
        largest = milliseconds;
        total = total.checked_add(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(milliseconds)?))?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

/// A percentage.
pub(super) fn percent(field: &Field<'_>) -> Result<u8, Error> {
    let (_, most) = field.form.bounds();
    let wrong = || field.wrong(&percentage(most));
    let digits = field.letters()?.strip_suffix('%').ok_or_else(wrong)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    digits.parse().ok().filter(|percent| u64::from(*percent) <= most).ok_or_else(wrong)
}

/// A size in bytes.
pub(super) fn size(field: &Field<'_>) -> Result<u64, Error> {
    let wrong = || field.wrong(SIZE);
    let (least, most) = field.form.bounds();
    let letters = field.letters()?;
    let digits = letters.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match letters.get(digits.len()..) {
        Some("") => 1,
        Some("Ki") => 1 << 10,
        Some("Mi") => 1 << 20,
        Some("Gi") => 1 << 30,
        _ => return Err(wrong()),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes.filter(|bytes| (least..=most).contains(bytes)).ok_or_else(wrong)
}

/// Permission bits: octal, in quotes, because YAML reads a bare `0440` as a number and not every reader as octal.
pub(super) fn mode(field: &Field<'_>) -> Result<Mode, Error> {
    if let Some(bare) = field.bare() {
        let octal = (3..=4).contains(&bare.len()) && bare.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        let example = if octal { bare } else { "0440" };
        return Err(field.wrong(&format!("write the mode in octal and in quotes: \"{example}\"")));
    }
    let text = field.text()?;
    if !(3..=4).contains(&text.len()) || !text.bytes().all(|byte| (b'0'..=b'7').contains(&byte)) {
        return Err(field.wrong(MODE));
    }
    let bits = u32::from_str_radix(text, 8).map_err(|_| field.wrong("is not octal"))?;
    Mode::new(bits).map_err(|error| field.explain(&error))
}

/// The name of a credentials file: one component, because whoever opens it looks in one folder only.
pub(super) fn file_name(field: &Field<'_>) -> Result<String, Error> {
    let text = field.text()?;
    let fits =
        !text.starts_with('.') && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !fits {
        return Err(field.wrong(FILE_NAME));
    }
    Ok(text.to_owned())
}

/// A mount of a server: a path of its own, without slashes at its ends.
pub(super) fn mount(field: &Field<'_>) -> Result<String, Error> {
    field.parse(SecretPath::parse).map(|path| path.to_string())
}

/// A namespace of a server: written as a path, without the names that no namespace has.
pub(super) fn server_namespace(field: &Field<'_>) -> Result<String, Error> {
    let path = mount(field)?;
    let kept = |name: &str| matches!(name, "audit" | "auth" | "cubbyhole" | "identity" | "root" | "sys");
    if path.split('/').any(kept) { Err(field.wrong(SERVER_NAMESPACE)) } else { Ok(path) }
}

/// A pattern over names of namespaces or service accounts.
pub(super) fn name_pattern(field: &Field<'_>) -> Result<String, Error> {
    let text = field.text()?;
    let fits = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.*".contains(&byte));
    if !fits {
        return Err(field.wrong(NAME_PATTERN));
    }
    Ok(text.to_owned())
}

/// A pattern over secrets: with a letter for each star it has to be a path. What the star may do is policy's to say.
pub(super) fn secret_pattern(field: &Field<'_>) -> Result<String, Error> {
    let text = field.text()?;
    SecretPath::parse(&text.replace('*', "x")).map_err(|_| field.wrong(SECRET_PATTERN))?;
    let first = text.split('/').next().unwrap_or_default();
    if first.contains('*') && text != "*" {
        return Err(field.wrong(FIRST_SEGMENT));
    }
    Ok(text.to_owned())
}

/// A role that may hold `{namespace}` and `{serviceAccount}`; the rules are those of whoever fills it in.
pub(super) fn role(field: &Field<'_>) -> Result<String, Error> {
    field.parse(|text| RoleTemplate::parse(text).map(|_| text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_read_as_go_writes_it() {
        for (text, milliseconds) in [
            ("5m", Some(300_000)),
            ("10s", Some(10_000)),
            ("1h30m", Some(5_400_000)),
            ("1m30s250ms", Some(90_250)),
            ("0s", Some(0)),
            ("", None),
            ("5", None),
            ("m", None),
            ("5 m", None),
            ("-5m", None),
            ("1.5h", None),
            ("30s5m", None),
            ("5m5m", None),
            ("1d", None),
            ("18446744073709551615h", None),
            ("99999999999999999999s", None),
            ("5µs", None),
        ] {
            assert_eq!(parse_duration(text).map(|it| it.as_millis()), milliseconds, "{text}");
        }
    }
}
