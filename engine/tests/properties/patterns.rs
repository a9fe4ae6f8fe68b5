// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Paths as they are written and as they are sent, and the patterns that allow them, against a matcher too simple to be
//! wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use evanesce_engine::backend::Backend;
use evanesce_engine::backend::sealed::SealedBackend;
use evanesce_engine::backend::vault::{VaultBackend, testing};
use evanesce_engine::credentials::CredentialFiles;
use evanesce_engine::error::Error;
use evanesce_engine::names::BackendName;
use evanesce_engine::policy::SecretPattern;
use evanesce_engine::secret::SecretBytes;
use evanesce_engine::secret_ref::{SecretPath, SecretRef, WirePath};
use evanesce_engine::spec::backend::{Limits, SealedSpec, VaultAuth, VaultSpec};
use proptest::prelude::*;

/// To compare paths is to open nothing.
struct NoFiles;

#[async_trait]
impl CredentialFiles for NoFiles {
    async fn read(&self, name: &str) -> Result<SecretBytes, Error> {
        Err(Error::missing(name.to_owned()))
    }
}

fn vault() -> VaultBackend {
    let spec = VaultSpec {
        addresses: vec!["http://vault.example".into()],
        ca: None,
        client_certificate: None,
        namespace: None,
        auth: VaultAuth::TokenFile { file: "token".into() },
        kv_mounts: ["a", "b/a", "c/b/a"].map(str::to_owned).into(),
        kv1_mounts: ["b", "c/a"].map(str::to_owned).into(),
    };
    let name = BackendName::parse("store").unwrap();
    VaultBackend::new(&spec, name, Limits::default(), Arc::new(NoFiles), Arc::default()).unwrap()
}

fn sealed() -> SealedBackend {
    let spec = SealedSpec { directory: "/secrets".into(), identity_file: "identity".into() };
    SealedBackend::new(&spec, BackendName::parse("store").unwrap(), Arc::new(NoFiles))
}

fn canonical(backend: &dyn Backend, path: &str) -> Option<WirePath> {
    let path = SecretPath::parse(path).ok()?;
    backend.canonical(&SecretRef { backend: backend.name().clone(), path, version: None, args: BTreeMap::new() }).ok()
}

/// Few letters, so that patterns and paths meet; the names that servers treat as their own among them.
fn path() -> impl Strategy<Value = String> {
    let part = prop_oneof![8 => "[abc]{1,2}", 1 => Just("data".to_owned()), 1 => Just("metadata".to_owned()),
        1 => Just("sys".to_owned()), 1 => Just("..".to_owned()), 1 => Just("a.b".to_owned()), 1 => Just(String::new())];
    proptest::collection::vec(part, 1..6).prop_map(|parts| parts.join("/"))
}

fn pattern() -> impl Strategy<Value = String> {
    let part = prop_oneof![6 => "[abc*]{1,2}", 3 => Just("*".to_owned()), 1 => Just("data".to_owned()),
        1 => Just("sys".to_owned())];
    proptest::collection::vec(part, 1..6).prop_map(|parts| parts.join("/"))
}

/// A pattern and a path that is one of its own, or nearly: random ones seldom meet.
fn pattern_and_path() -> impl Strategy<Value = (String, String)> {
    let near = (pattern(), proptest::collection::vec("[abc]{0,2}", 6), slip()).prop_map(|(pattern, fillings, slip)| {
        let mut fillings = fillings.iter().cycle();
        let filled =
            |letter: char| if letter == '*' { fillings.next().cloned().unwrap_or_default() } else { letter.into() };
        let path: String = pattern.chars().map(filled).collect();
        (pattern, slip.apply(&path))
    });
    prop_oneof![3 => near, 1 => (pattern(), path())]
}

/// A path and one that differs from it a little.
fn two_paths() -> impl Strategy<Value = (String, String)> {
    (path(), slip()).prop_map(|(path, slip)| (slip.apply(&path), path))
}

/// A small change to a path.
fn slip() -> impl Strategy<Value = Slip> {
    let text = prop_oneof![
        3 => Just(String::new()), 2 => "[abc]", 1 => Just("/".to_owned()), 2 => Just("data/".to_owned()),
        1 => Just("/b".to_owned()), 1 => Just("metadata/".to_owned())
    ];
    (any::<prop::sample::Index>(), text).prop_map(|(at, text)| Slip { at, text })
}

#[derive(Clone, Debug)]
struct Slip {
    at: prop::sample::Index,
    text: String,
}

impl Slip {
    fn apply(&self, path: &str) -> String {
        let at = self.at.index(path.len() + 1);
        format!("{}{}{}", &path[..at], self.text, &path[at..])
    }
}

/// Whether the whole of `text` fits, where a star is any run of letters within a segment.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, _) => text.is_empty(),
        (Some((b'*', rest)), _) => {
            fits(rest, text) || text.split_first().is_some_and(|(next, after)| *next != b'/' && fits(pattern, after))
        }
        (Some((one, rest)), Some((other, after))) => one == other && fits(rest, after),
        (Some(_), None) => false,
    }
}

/// What a pattern means for a path as both are written: `/*` at the end is any depth below.
fn means(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix("/*") {
        _ if pattern == "*" => true,
        Some(above) => path.match_indices('/').any(|(at, _)| fits(above.as_bytes(), &path.as_bytes()[..at])),
        None => fits(pattern.as_bytes(), path.as_bytes()),
    }
}

/// One of each kind.
static BACKENDS: LazyLock<[Box<dyn Backend>; 2]> = LazyLock::new(|| [Box::new(vault()), Box::new(sealed())]);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_pattern_means_on_the_wire_what_it_means_as_it_is_written((pattern, path) in pattern_and_path()) {
        for backend in BACKENDS.iter().map(AsRef::as_ref) {
            let (Ok(read), Some(wire)) = (SecretPattern::parse(&pattern, backend), canonical(backend, &path)) else {
                continue;
            };
            // A part of the server is reached only by a pattern that names it.
            let hidden = path.starts_with("sys/") && !pattern.starts_with("sys/");
            prop_assert_eq!(read.matches(&wire), means(&pattern, &path) && !hidden, "{} and {}", pattern, wire.as_str());
        }
    }

    #[test]
    fn a_pattern_never_reaches_a_sibling_of_what_it_names((pattern, path) in pattern_and_path()) {
        for backend in BACKENDS.iter().map(AsRef::as_ref) {
            let (Ok(read), Some(wire)) = (SecretPattern::parse(&pattern, backend), canonical(backend, &path)) else {
                continue;
            };
            if read.matches(&wire) {
                let named = pattern.split('*').next().unwrap();
                prop_assert!(path.starts_with(named), "{} reaches {}", pattern, path);
                prop_assert!(pattern.contains('*') || path == pattern, "{} reaches {}", pattern, path);
            }
        }
    }

    #[test]
    fn no_two_names_are_sent_as_one_path_and_none_as_another((one, other) in two_paths()) {
        for backend in BACKENDS.iter().map(AsRef::as_ref) {
            let (Some(first), Some(second)) = (canonical(backend, &one), canonical(backend, &other)) else { continue };
            prop_assert_eq!(first == second, one == other, "{} and {} are one to the server", one, other);
            prop_assert!(first.as_str().split('/').all(|part| !matches!(part, "" | "." | "..")));
            prop_assert_eq!(testing::sent(first.as_str()), Some(format!("/v1/{}", first.as_str())));
        }
    }
}
