// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Who may ask for what. [`authorise`] is the only maker of a [`Grant`], and a fetch needs one: forgetting to ask does
//! not compile.
//!
//! Policy is asked about the exact path that the backend will be sent ([`Backend::canonical`]), and the patterns of an
//! allow entry went through the same function when the class was read.

pub mod grant;

use crate::backend::Backend;
use crate::error::Error;
use crate::secret_ref::{SecretRef, WirePath};
use crate::workload::Workload;
use crate::yaml::shown;

pub use grant::Grant;

/// Parts of a backend that administer it or log in to it. `*` does not reach them: an allow entry has to name them.
const SYSTEM: [&str; 3] = ["auth/", "identity/", "sys/"];

/// One entry of a backend's allow list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// Namespaces; any of them.
    pub namespaces: Vec<Glob>,
    /// Service accounts; any of them.
    pub service_accounts: Vec<Glob>,
    /// Secrets; any of them.
    pub secrets: Vec<SecretPattern>,
    /// The role to log in with, instead of the backend's own; already checked.
    pub role: Option<String>,
}

/// A name pattern: `*` stands for any run of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Vec<String>);

impl Glob {
    /// Splits the pattern at its stars.
    pub fn parse(pattern: &str) -> Self {
        Self(pattern.split('*').map(str::to_owned).collect())
    }

    /// Whether the whole of `text` fits.
    pub fn matches(&self, text: &str) -> bool {
        let [first, middle @ .., last] = self.0.as_slice() else {
            return self.0.first().is_some_and(|only| only == text);
        };
        let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
        for part in middle {
            let Some(at) = rest.find(part.as_str()) else { return false };
            rest = rest.get(at + part.len()..).unwrap_or_default();
        }
        rest.ends_with(last.as_str())
    }
}

/// A pattern over wire paths. `*` stands for any run of characters within a segment; as the last character, after `/`
/// or alone, for any depth below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretPattern {
    segments: Vec<Glob>,
    any_depth: bool,
    names_system: bool,
}

impl SecretPattern {
    /// Reads a pattern as a class has it, and puts its fixed part into the form the backend is sent.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid), with the rule that is broken.
    pub fn parse(pattern: &str, backend: &dyn Backend) -> Result<Self, Error> {
        let wrong = |rule: &str| Error::invalid(format!("secret pattern \"{}\" {rule}", shown(pattern)));
        if pattern == "*" {
            return Ok(Self { segments: Vec::new(), any_depth: true, names_system: false });
        }
        let bad = |byte: u8| !byte.is_ascii_graphic() || b"%?#\\{}".contains(&byte);
        if pattern.is_empty()
            || pattern.bytes().any(bad)
            || pattern.split('/').any(|part| matches!(part, "" | "." | ".."))
        {
            return Err(wrong("must be a path as a class names a secret, with '*' for parts of it"));
        }
        let fixed = pattern.find('*').map_or(pattern, |star| &pattern[..star]);
        if fixed.len() < pattern.len() && !fixed.contains('/') {
            return Err(wrong(
                "must name its first segment in full: 'kv/*', not 'k*/…'; '*' alone stands for everything",
            ));
        }
        let wire = backend.canonical_pattern(pattern)?;
        let any_depth = wire.ends_with("/*");
        let path = wire.strip_suffix("/*").unwrap_or(&wire);
        Ok(Self {
            segments: path.split('/').map(Glob::parse).collect(),
            any_depth,
            names_system: SYSTEM.iter().any(|system| wire.starts_with(system)),
        })
    }

    /// Whether the whole of `path` fits.
    pub fn matches(&self, path: &WirePath) -> bool {
        let path = path.as_str();
        if SYSTEM.iter().any(|system| path.starts_with(system)) && !self.names_system {
            return false;
        }
        let mut parts = path.split('/');
        let head = self.segments.iter().all(|segment| parts.next().is_some_and(|part| segment.matches(part)));
        // `kv/*` lets one ask for what is below kv, not for kv itself.
        head && if self.any_depth { parts.next().is_some() } else { parts.next().is_none() }
    }
}

/// Lets `workload` ask `backend` for `reference`, or says no.
///
/// # Errors
/// [`Kind::Refused`](crate::error::Kind::Refused) where no entry fits: the message names what the workload itself
/// asked for and who it is, nothing of what others may do.
pub fn authorise(
    backend: &dyn Backend,
    allow: &[Allow],
    workload: &Workload,
    reference: &SecretRef,
) -> Result<Grant, Error> {
    let path = backend.canonical(reference)?;
    let any = |globs: &[Glob], name: &str| globs.iter().any(|glob| glob.matches(name));
    let entry = allow.iter().find(|entry| {
        any(&entry.namespaces, workload.namespace.as_str())
            && any(&entry.service_accounts, workload.service_account.as_str())
            && entry.secrets.iter().any(|pattern| pattern.matches(&path))
    });
    match entry {
        Some(entry) => Ok(Grant::new(reference.clone(), path, entry.role.clone())),
        None => Err(Error::refused(format!(
            "service account {}/{} may not read {} from backend {}: ask for an entry in spec.allow of SecretBackend {}",
            workload.namespace, workload.service_account, reference.path, reference.backend, reference.backend
        ))
        .with_detail(format!("no allow entry matches the path {}", path.as_str()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_matches_the_whole_name_and_nothing_more() {
        for (pattern, text, fits) in [
            ("payments", "payments", true),
            ("payments", "payments2", false),
            ("*", "", true),
            ("*", "a", true),
            ("team-*", "team-a", true),
            ("team-*", "steam-a", false),
            ("*-prod", "a-prod", true),
            ("*-prod", "a-prod2", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(Glob::parse(pattern).matches(text), fits, "{pattern} against {text}");
        }
    }
}
