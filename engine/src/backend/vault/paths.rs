// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The two forms of a path: as its users write it, and as the server is sent it.
//!
//! Below a declared KV mount of version 2 the wire path has `data/` after the mount; anywhere else, also below one of
//! version 1, both are the same. Which version a mount is has to be declared: to ask the server takes a login, and policy
//! is asked before there is one.
//!
//! A path that is written in the wire form below such a mount is refused with the cure, so that every secret has one
//! name, and so that nobody reaches the mount's other ends (`metadata`, `delete`, …) under the name of a secret.

use crate::error::Error;
use crate::policy::Glob;
use crate::secret_ref::{SecretPath, SecretRef, WirePath};

/// Ends of a KV mount that a path could name instead of a secret. `config` is not among them: a secret may well have
/// that name, and `kv/config` is sent as `kv/data/config`.
const ENDS: [&str; 7] = ["data", "delete", "destroy", "detailed-metadata", "metadata", "subkeys", "undelete"];

/// The declared KV mounts.
#[derive(Debug)]
pub(super) struct KvMounts(Vec<Mount>);

#[derive(Debug)]
struct Mount {
    path: String,
    version: KvVersion,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KvVersion {
    One,
    Two,
}

/// What a wire path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A secret of KV version 1.
    Kv1,
    /// A secret of KV version 2.
    Kv2 {
        /// Where its versions are listed.
        metadata: String,
    },
    /// Anything else: a read of it may make something.
    Other,
}

impl KvMounts {
    /// Checks the form of the mounts of both versions.
    pub(super) fn parse(version_2: &[String], version_1: &[String]) -> Result<Self, Error> {
        let mut known: Vec<Mount> = Vec::with_capacity(version_2.len() + version_1.len());
        let keys = [("kvMounts", KvVersion::Two, version_2), ("kv1Mounts", KvVersion::One, version_1)];
        for (key, version, mounts) in keys {
            for mount in mounts {
                let wrong = |why: String| Err(Error::invalid(format!("{key}: {mount:?} {why}")));
                let path = SecretPath::parse(mount).map_err(|error| error.context(key))?;
                if matches!(path.as_str().split('/').next(), Some("auth" | "identity" | "sys")) {
                    return wrong("is a part of the server, not a KV mount".to_owned());
                }
                // One within the other would be a second name for its secrets.
                let around = |other: &&Mount| {
                    version != other.version && (*mount == other.path || beneath(mount, &other.path).is_some())
                };
                if let Some(Mount { path, .. }) = known.iter().find(around) {
                    return wrong(format!("is or lies in the mount {path:?} of kvMounts: name one of them"));
                }
                known.push(Mount { path: path.as_str().to_owned(), version });
            }
        }
        // The longest mount that fits is the one the server finds.
        known.sort_by_key(|mount| std::cmp::Reverse(mount.path.len()));
        Ok(Self(known))
    }

    /// The wire path of a reference.
    pub(super) fn canonical(&self, reference: &SecretRef) -> Result<WirePath, Error> {
        let path = reference.path.as_str();
        if self.is_mount(path) {
            return Err(Error::invalid(format!("{path} is a whole KV mount: name a secret in it, as in {path}/app")));
        }
        let wire = self.canonical_prefix(path)?;
        let version = self.split(path).map(|(mount, _)| mount.version);
        if version.is_some() && !reference.args.is_empty() {
            // Arguments make a request a POST, which writes there.
            return Err(Error::invalid(format!("{path} is a KV secret, which takes no args: leave them out")));
        }
        if reference.version.is_some() && version != Some(KvVersion::Two) {
            let cure = match version {
                Some(_) => "is below a KV mount of version 1, which keeps no versions: leave version out",
                None => {
                    "is not below a KV mount of version 2, so it has no versions: leave version out, or add its mount to kvMounts"
                }
            };
            return Err(Error::invalid(format!("{path} {cure}")));
        }
        Ok(WirePath::new(wire))
    }

    /// The same for an allow pattern.
    ///
    /// A mount of version 2 has to stand before its first star: elsewhere no `data/` could be put after it, and it would
    /// match nothing below the mount.
    pub(super) fn canonical_pattern(&self, pattern: &str) -> Result<String, Error> {
        if self.is_mount(pattern) {
            return Err(Error::invalid(format!(
                "{pattern} is a whole KV mount: name what is in it, as in {pattern}/*"
            )));
        }
        let fixed = pattern.split('*').next().unwrap_or(pattern);
        let mut starred = self.0.iter().filter(|mount| mount.version == KvVersion::Two);
        if !matches!(self.split(fixed), Some((Mount { version: KvVersion::Two, .. }, _)))
            && let Some((mount, rest)) = starred.find_map(|Mount { path, .. }| Some((path, below(pattern, path)?)))
        {
            return Err(Error::invalid(format!(
                "{pattern:?} has a '*' where the KV mount {mount:?} has its name, and would match nothing in it: \
                 write the mount in full, as in {mount}/{rest}"
            )));
        }
        Ok(self.canonical_prefix(fixed)? + &pattern[fixed.len()..])
    }

    /// The same for the beginning of a path.
    fn canonical_prefix(&self, prefix: &str) -> Result<String, Error> {
        let Some((Mount { path: mount, version: KvVersion::Two }, rest)) = self.split(prefix) else {
            return Ok(prefix.to_owned());
        };
        let end = rest.split('/').next().unwrap_or(rest);
        if ENDS.contains(&end) {
            let below = rest.get(end.len() + 1..).filter(|below| !below.is_empty()).unwrap_or("app");
            return Err(Error::invalid(format!(
                "{prefix:?} names an end of the KV mount {mount:?}: write the secret without '{end}/', as in {mount}/{below}"
            )));
        }
        Ok(format!("{mount}/data/{rest}"))
    }

    /// What a wire path leads to.
    pub(super) fn place(&self, wire: &WirePath) -> Place {
        match self.split(wire.as_str()) {
            Some((Mount { version: KvVersion::One, .. }, _)) => Place::Kv1,
            Some((Mount { path, version: KvVersion::Two }, rest)) => match rest.strip_prefix("data/") {
                Some(secret) => Place::Kv2 { metadata: format!("{path}/metadata/{secret}") },
                None => Place::Other,
            },
            None => Place::Other,
        }
    }

    fn is_mount(&self, path: &str) -> bool {
        self.0.iter().any(|mount| mount.path == path)
    }

    /// The mount that a path is below, and the rest.
    fn split<'a>(&'a self, path: &'a str) -> Option<(&'a Mount, &'a str)> {
        self.0.iter().find_map(|mount| Some((mount, beneath(path, &mount.path)?)))
    }
}

/// What follows a mount in a path.
fn beneath<'a>(path: &'a str, mount: &str) -> Option<&'a str> {
    path.strip_prefix(mount)?.strip_prefix('/')
}

/// What a pattern asks for below a mount whose name it has a star in; nothing where it asks for all of it.
fn below<'a>(pattern: &'a str, mount: &str) -> Option<&'a str> {
    let depth = mount.split('/').count();
    let mut parts = pattern.splitn(depth + 1, '/');
    let stands = mount.split('/').all(|name| parts.next().is_some_and(|part| Glob::parse(part).matches(name)));
    parts.next().filter(|rest| stands && *rest != "*")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::names::BackendName;
    use std::collections::BTreeMap;

    fn mounts() -> KvMounts {
        let version_2 = ["kv", "secret", "team/kv", "team"].map(str::to_owned);
        KvMounts::parse(&version_2, &["old".to_owned(), "other/old".to_owned()]).unwrap()
    }

    fn canonical(path: &str, version: Option<u64>, args: &[(&str, &str)]) -> Result<String, Error> {
        let args: BTreeMap<_, _> = args.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let backend = BackendName::parse("vault").unwrap();
        let reference = SecretRef { backend, path: SecretPath::parse(path).unwrap(), version, args };
        mounts().canonical(&reference).map(|wire| wire.as_str().to_owned())
    }

    #[test]
    fn a_kv_secret_gets_data_after_its_mount_and_anything_else_stays_as_it_is() {
        for (path, wire) in [
            ("kv/payments/db", "kv/data/payments/db"),
            ("kv/config", "kv/data/config"),
            ("kv/payments/data", "kv/data/payments/data"),
            ("team/kv/db", "team/kv/data/db"),
            ("team/kvx/db", "team/data/kvx/db"),
            ("kvx/payments/db", "kvx/payments/db"),
            ("database/creds/app", "database/creds/app"),
            ("sys/mounts", "sys/mounts"),
            ("old/payments/db", "old/payments/db"),
            // In version 1 these are names like any other.
            ("old/data/db", "old/data/db"),
            ("other/old/metadata", "other/old/metadata"),
        ] {
            assert_eq!(canonical(path, None, &[]).unwrap(), wire);
        }
    }

    #[test]
    fn a_path_in_the_wire_form_is_refused_with_the_way_to_write_it() {
        let error = canonical("kv/data/payments/db", None, &[]).unwrap_err();
        assert!(error.message().contains("kv/payments/db"), "{error}");
        for bad in ["kv/metadata/payments/db", "kv/delete/a", "kv/data", "secret/destroy/a/b", "team/kv/subkeys/a"] {
            assert!(canonical(bad, None, &[]).is_err(), "accepted {bad}");
        }
        for bad in ["kv", "team/kv", "team", "old", "other/old"] {
            assert!(canonical(bad, None, &[]).is_err(), "accepted {bad}");
        }
        assert!(mounts().canonical_pattern("kv/data/*").is_err(), "in a pattern");
        assert_eq!(mounts().canonical_pattern("kv/*").unwrap(), "kv/data/*");
        assert_eq!(mounts().canonical_pattern("kv/da*").unwrap(), "kv/data/da*");
        assert_eq!(mounts().canonical_pattern("database/*").unwrap(), "database/*");
        assert_eq!(mounts().canonical_pattern("old/data/*").unwrap(), "old/data/*");
    }

    #[test]
    fn a_pattern_with_a_star_in_a_mounts_name_is_refused_with_the_way_to_write_it() {
        let mounts = KvMounts::parse(&["kv".into(), "apps/team/kv".into()], &["apps/team/old".into()]).unwrap();
        for (pattern, cure) in [
            ("apps/*/kv/db", "apps/team/kv/db"),
            ("apps/t*/kv/payments/*", "apps/team/kv/payments/*"),
            ("apps/team/*/db", "apps/team/kv/db"),
            ("apps/*/*/*/db", "apps/team/kv/*/db"),
            ("apps/team/kv*/a/*", "apps/team/kv/a/*"),
        ] {
            let error = mounts.canonical_pattern(pattern).unwrap_err();
            assert!(error.message().ends_with(&format!("as in {cure}")), "{pattern}: {error}");
        }
        for whole in ["kv", "apps/team/kv"] {
            assert!(mounts.canonical_pattern(whole).unwrap_err().message().ends_with(&format!("as in {whole}/*")));
        }
        // All below is meant, or another mount.
        for good in
            ["apps/*", "apps/team/*", "apps/*/kv/*", "apps/*/db/x", "apps/team/db*/x", "other/*/kv/db", "apps/*/old/x"]
        {
            assert_eq!(mounts.canonical_pattern(good).unwrap(), good);
        }
    }

    #[test]
    fn a_kv_read_takes_no_arguments_because_they_would_make_it_a_write() {
        for path in ["kv/payments/db", "old/payments/db"] {
            assert!(canonical(path, None, &[("password", "x")]).is_err(), "{path}");
        }
        assert!(canonical("pki/issue/web", None, &[("common_name", "x")]).is_ok());
    }

    #[test]
    fn only_a_secret_of_kv_version_2_has_versions() {
        assert!(canonical("kv/payments/db", Some(3), &[]).is_ok());
        for (path, cure) in [("database/creds/app", "add its mount to kvMounts"), ("old/db", "of version 1")] {
            let error = canonical(path, Some(3), &[]).unwrap_err();
            assert!(error.message().contains(cure), "{error}");
        }
    }

    #[test]
    fn the_versions_of_a_kv_secret_are_listed_beside_it() {
        let place = |wire: &str| mounts().place(&WirePath::new(wire.to_owned()));
        let kv2 = |metadata: &str| Place::Kv2 { metadata: metadata.to_owned() };
        assert_eq!(place("kv/data/payments/db"), kv2("kv/metadata/payments/db"));
        assert_eq!(place("team/kv/data/data"), kv2("team/kv/metadata/data"));
        assert_eq!(place("old/data/db"), Place::Kv1);
        assert_eq!(place("database/creds/app"), Place::Other);
    }

    #[test]
    fn a_mount_that_is_not_a_path_or_is_a_part_of_the_server_is_refused() {
        for bad in ["", "/kv", "kv/", "k%v", "sys", "sys/x", "auth", "identity"] {
            assert!(KvMounts::parse(&[bad.to_owned()], &[]).is_err(), "accepted {bad:?}");
            assert!(KvMounts::parse(&[], &[bad.to_owned()]).is_err(), "accepted {bad:?}");
        }
    }

    #[test]
    fn a_secret_has_one_name_whichever_mounts_are_declared() {
        for within in ["kv", "kv/data", "kv/data/old"] {
            let error = KvMounts::parse(&["kv".to_owned()], &[within.to_owned()]).unwrap_err();
            assert!(
                error.message().starts_with("kv1Mounts: ") && error.message().contains("name one of them"),
                "{error}"
            );
        }
        assert!(KvMounts::parse(&["kv".to_owned()], &["kv1".to_owned()]).is_ok());
    }
}
