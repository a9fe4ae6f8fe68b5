// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What is asked of a backend, parsed so that no reference can leave the place it names.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::names::BackendName;
use crate::yaml::shown;

/// Characters besides letters and digits that a path may have. Left out on purpose: `%`, `?` and `#` change what a
/// server reads, `*` and `{}` are patterns of ours, `\` is a separator to some, spaces and quotes confuse logs.
const ALSO: &[u8] = b"-._~@+=:,!/";

/// A path below a backend, as its users write it: `kv/payments/db`.
///
/// No empty, `.` or `..` segment, no leading or trailing slash, none of the characters that make a server read
/// another path than the one written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretPath(Arc<str>);

impl SecretPath {
    /// Longest path, in bytes.
    pub(crate) const LONGEST: usize = 1024;
    pub(crate) const CHARACTERS: &str = "use letters, digits and any of -._~@+=:,!/";
    pub(crate) const DATA: &str = "may not hold 'data/' twice in a row";
    pub(crate) const DOTS: &str = "may not hold '.' or '..' as a segment";
    pub(crate) const ENDS: &str = "may not begin or end with '/'";
    pub(crate) const NO_SEGMENT: &str = "may not hold '//'";

    /// Checks the form.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) with the rule that is broken; the path itself is not secret.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |rule: &str| Err(Error::invalid(format!("secret path \"{}\" {rule}", shown(text))));
        if text.is_empty() || text.len() > Self::LONGEST {
            return Err(Error::invalid(format!("a secret path has 1 to {} bytes", Self::LONGEST)));
        }
        if let Some(byte) = text.bytes().find(|byte| !byte.is_ascii_alphanumeric() && !ALSO.contains(byte)) {
            let shown = char::from(byte).escape_default();
            return wrong(&format!("may not hold '{shown}': {}", Self::CHARACTERS));
        }
        if text.starts_with('/') || text.ends_with('/') {
            return wrong(Self::ENDS);
        }
        let mut before = "";
        for segment in text.split('/') {
            match segment {
                "" => return wrong(Self::NO_SEGMENT),
                "." | ".." => return wrong(Self::DOTS),
                "data" if before == "data" => return wrong(Self::DATA),
                _ => before = segment,
            }
        }
        Ok(Self(text.into()))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The exact path that a backend is sent; only a backend makes one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WirePath(String);

impl WirePath {
    /// Wraps what [`Backend::canonical`](crate::backend::Backend::canonical) made.
    pub fn new(path: String) -> Self {
        Self(path)
    }

    /// The path as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One question to one backend. Two files that ask the same question are answered by one read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretRef {
    /// Which backend.
    pub backend: BackendName,
    /// Where in it.
    pub path: SecretPath,
    /// A fixed version; the newest where absent.
    pub version: Option<u64>,
    /// Arguments of the read (a certificate's common name); part of the question.
    pub args: BTreeMap<String, String>,
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.backend, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_a_server_could_read_as_another_is_refused() {
        for bad in [
            "",
            "/",
            "/kv/a",
            "kv/a/",
            "kv//a",
            "kv/../sys/raw",
            "kv/./a",
            "..",
            "kv/..",
            "kv/a%2fb",
            "kv/a?version=1",
            "kv/a#b",
            "kv/a\0",
            "kv/a\n",
            "kv/a b",
            "kv/a\\b",
            "kv/*",
            "kv/{namespace}",
            "kv/data/data/a",
            "kv/ä",
            "kv/a\u{7f}",
        ] {
            assert!(SecretPath::parse(bad).is_err(), "accepted {bad:?}");
        }
        assert!(SecretPath::parse(&"a".repeat(SecretPath::LONGEST + 1)).is_err());
    }

    #[test]
    fn an_ordinary_path_is_kept_to_the_letter() {
        for good in [
            "kv/payments/db",
            "database/creds/app",
            "kv/data/payments/db",
            "kv/a..b",
            "kv/...",
            "pki/issue/web.example",
        ] {
            assert_eq!(SecretPath::parse(good).map(|path| path.to_string()).ok().as_deref(), Some(good));
        }
    }
}
