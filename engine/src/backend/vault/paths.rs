// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The two forms of a path: as its users write it, and as the server is sent it.
//!
//! Below a declared KV mount of version 2 the wire path has `data/` after the mount; anywhere else both are the same.
//! A path that is written in the wire form below such a mount is refused with the cure, so that every secret has one
//! name, and so that nobody reaches the mount's other ends (`metadata`, `delete`, …) under the name of a secret.

use crate::error::Error;
use crate::policy::Glob;
use crate::secret_ref::{SecretPath, SecretRef, WirePath};

/// Ends of a KV mount that a path could name instead of a secret. `config` is not among them: a secret may well have
/// that name, and `kv/config` is sent as `kv/data/config`.
const ENDS: [&str; 7] = ["data", "delete", "destroy", "detailed-metadata", "metadata", "subkeys", "undelete"];

/// The declared mounts of KV version 2.
#[derive(Debug)]
pub(super) struct KvMounts(Vec<String>);

impl KvMounts {
    /// Checks the mounts' form.
    pub(super) fn parse(mounts: &[String]) -> Result<Self, Error> {
        let mut known = Vec::with_capacity(mounts.len());
        for mount in mounts {
            let path = SecretPath::parse(mount).map_err(|error| error.context("kvMounts"))?;
            if matches!(path.as_str().split('/').next(), Some("auth" | "identity" | "sys")) {
                return Err(Error::invalid(format!("kvMounts: {mount:?} is a part of the server, not a KV mount")));
            }
            known.push(path.as_str().to_owned());
        }
        // The longest mount that fits is the one the server finds.
        known.sort_by_key(|mount| std::cmp::Reverse(mount.len()));
        Ok(Self(known))
    }

    /// The wire path of a reference.
    pub(super) fn canonical(&self, reference: &SecretRef) -> Result<WirePath, Error> {
        let path = reference.path.as_str();
        if self.0.iter().any(|mount| mount == path) {
            return Err(Error::invalid(format!("{path} is a whole KV mount: name a secret in it, as in {path}/app")));
        }
        let wire = self.canonical_prefix(path)?;
        let is_kv = wire.len() != path.len();
        if is_kv && !reference.args.is_empty() {
            // Arguments make a request a POST, which below `data/` writes.
            return Err(Error::invalid(format!("{path} is a KV secret, which takes no args: leave them out")));
        }
        if !is_kv && reference.version.is_some() {
            return Err(Error::invalid(format!(
                "{path} is not below a KV mount of version 2, so it has no versions: leave version out, or add its mount to kvMounts"
            )));
        }
        Ok(WirePath::new(wire))
    }

    /// The same for an allow pattern.
    ///
    /// Its mount has to stand before its first star: elsewhere no `data/` could be put after it, and it would match nothing
    /// below the mount.
    pub(super) fn canonical_pattern(&self, pattern: &str) -> Result<String, Error> {
        if self.0.iter().any(|mount| mount == pattern) {
            return Err(Error::invalid(format!(
                "{pattern} is a whole KV mount: name what is in it, as in {pattern}/*"
            )));
        }
        let fixed = pattern.split('*').next().unwrap_or(pattern);
        if self.split(fixed).is_none()
            && let Some((mount, rest)) = self.0.iter().find_map(|mount| Some((mount, below(pattern, mount)?)))
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
        let Some((mount, rest)) = self.split(prefix) else { return Ok(prefix.to_owned()) };
        let end = rest.split('/').next().unwrap_or(rest);
        if ENDS.contains(&end) {
            let below = rest.get(end.len() + 1..).filter(|below| !below.is_empty()).unwrap_or("app");
            return Err(Error::invalid(format!(
                "{prefix:?} names an end of the KV mount {mount:?}: write the secret without '{end}/', as in {mount}/{below}"
            )));
        }
        Ok(format!("{mount}/data/{rest}"))
    }

    /// Where the versions of a KV secret are listed; nothing for what is not a KV secret.
    pub(super) fn metadata(&self, wire: &WirePath) -> Option<String> {
        let (mount, rest) = self.split(wire.as_str())?;
        Some(format!("{mount}/metadata/{}", rest.strip_prefix("data/")?))
    }

    fn split<'a>(&'a self, path: &'a str) -> Option<(&'a str, &'a str)> {
        self.0.iter().find_map(|mount| Some((mount.as_str(), path.strip_prefix(mount.as_str())?.strip_prefix('/')?)))
    }
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
        KvMounts::parse(&["kv".into(), "secret".into(), "team/kv".into(), "team".into()]).unwrap()
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
        for bad in ["kv", "team/kv", "team"] {
            assert!(canonical(bad, None, &[]).is_err(), "accepted {bad}");
        }
        assert!(mounts().canonical_pattern("kv/data/*").is_err(), "in a pattern");
        assert_eq!(mounts().canonical_pattern("kv/*").unwrap(), "kv/data/*");
        assert_eq!(mounts().canonical_pattern("kv/da*").unwrap(), "kv/data/da*");
        assert_eq!(mounts().canonical_pattern("database/*").unwrap(), "database/*");
    }

    #[test]
    fn a_pattern_with_a_star_in_a_mounts_name_is_refused_with_the_way_to_write_it() {
        let mounts = KvMounts::parse(&["kv".into(), "apps/team/kv".into()]).unwrap();
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
        for good in ["apps/*", "apps/team/*", "apps/*/kv/*", "apps/*/db/x", "apps/team/db*/x", "other/*/kv/db"] {
            assert_eq!(mounts.canonical_pattern(good).unwrap(), good);
        }
    }

    #[test]
    fn a_kv_read_takes_no_arguments_because_they_would_make_it_a_write() {
        assert!(canonical("kv/payments/db", None, &[("password", "x")]).is_err());
        assert!(canonical("pki/issue/web", None, &[("common_name", "x")]).is_ok());
    }

    #[test]
    fn only_a_kv_secret_has_versions() {
        assert!(canonical("kv/payments/db", Some(3), &[]).is_ok());
        assert!(canonical("database/creds/app", Some(3), &[]).is_err());
    }

    #[test]
    fn the_versions_of_a_kv_secret_are_listed_beside_it() {
        let metadata = |wire: &str| mounts().metadata(&WirePath::new(wire.to_owned()));
        assert_eq!(metadata("kv/data/payments/db").unwrap(), "kv/metadata/payments/db");
        assert_eq!(metadata("team/kv/data/data").unwrap(), "team/kv/metadata/data");
        assert!(metadata("database/creds/app").is_none());
    }

    #[test]
    fn a_mount_that_is_not_a_path_or_is_a_part_of_the_server_is_refused() {
        for bad in ["", "/kv", "kv/", "k%v", "sys", "sys/x", "auth", "identity"] {
            assert!(KvMounts::parse(&[bad.to_owned()]).is_err(), "accepted {bad:?}");
        }
    }
}
