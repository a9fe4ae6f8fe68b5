// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Paths: what a class names, what policy compares, what is sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use evanesce_csi::protocol::{CredentialName, TargetPath, VolumeId};
use evanesce_engine::backend::Backend;
use evanesce_engine::backend::sealed::SealedBackend;
use evanesce_engine::backend::vault::{VaultBackend, testing};
use evanesce_engine::credentials::CredentialFiles;
use evanesce_engine::error::Error;
use evanesce_engine::names::{BackendName, Namespace, NodeName, PodName, PodUid, ServiceAccountName};
use evanesce_engine::policy::{Allow, Glob, SecretPattern, authorise};
use evanesce_engine::projection::FilePath;
use evanesce_engine::secret::SecretBytes;
use evanesce_engine::secret_ref::{SecretPath, SecretRef};
use evanesce_engine::spec::backend::{Limits, SealedSpec, VaultAuth, VaultSpec};
use evanesce_engine::workload::Workload;

use super::sober;

/// Three lines: KV mounts with commas between them, those of version 1 after a semicolon; a pattern; a path.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (mounts, pattern, path) = (line(), line(), line());
    names(path);
    let name = BackendName::parse("store").expect("a name");
    let sealed = SealedSpec { directory: "/secrets".into(), identity_file: "identity".into() };
    reach(&SealedBackend::new(&sealed, name.clone(), Arc::new(NoFiles)), pattern, path, |_| None);
    let (version_2, version_1) = mounts.split_once(';').unwrap_or((mounts, ""));
    let list = |mounts: &str| mounts.split(',').filter(|mount| !mount.is_empty()).map(str::to_owned).collect();
    let spec = VaultSpec {
        // Without TLS no certificates are looked for.
        addresses: vec!["http://vault.example".into()],
        ca: None,
        client_certificate: None,
        namespace: None,
        auth: VaultAuth::TokenFile { file: "token".into() },
        kv_mounts: list(version_2),
        kv1_mounts: list(version_1),
    };
    match VaultBackend::new(&spec, name, Limits::default(), Arc::new(NoFiles), Arc::default()) {
        Ok(vault) => reach(&vault, pattern, path, testing::sent),
        Err(error) => sober(&error),
    }
}

/// What `pattern` lets a workload read of `backend` under the name `path`.
fn reach(backend: &dyn Backend, pattern: &str, path: &str, sent: impl Fn(&str) -> Option<String>) {
    let allow = SecretPattern::parse(pattern, backend).map_err(|error| sober(&error));
    let Ok(path) = SecretPath::parse(path).map_err(|error| sober(&error)) else { return };
    let reference = SecretRef { backend: backend.name().clone(), path, version: None, args: BTreeMap::new() };
    let Ok(wire) = backend.canonical(&reference).map_err(|error| sober(&error)) else { return };
    assert!(wire.as_str().split('/').all(|part| !matches!(part, "" | "." | "..")), "{}", wire.as_str());
    if backend.kind() == "vault" {
        assert_eq!(
            sent(wire.as_str()),
            Some(format!("/v1/{}", wire.as_str())),
            "another path is sent than is compared"
        );
    }
    let Ok(allow) = allow else { return };
    let granted = allow.matches(&wire);
    let entry = Allow {
        namespaces: vec![Glob::parse("payments")],
        service_accounts: vec![Glob::parse("*")],
        secrets: vec![allow],
        role: None,
    };
    match authorise(backend, &[entry], &workload(), &reference) {
        Ok(grant) => {
            assert!(granted);
            assert_eq!((grant.path(), grant.reference()), (&wire, &reference), "the grant is for something else");
            // Up to its first star a pattern is the name itself: no sibling, no other mount, no other end of a mount.
            let fixed = pattern.split('*').next().unwrap_or_default();
            assert!(reference.path.as_str().starts_with(fixed), "{pattern:?} reaches {}", reference.path);
            assert!(
                pattern.contains('*') || reference.path.as_str() == pattern,
                "{pattern:?} reaches {}",
                reference.path
            );
        }
        Err(error) => {
            assert!(!granted);
            sober(&error);
        }
    }
}

/// Names that are used as parts of paths are what they print, and lead nowhere.
fn names(text: &str) {
    let beneath = |name: &str| !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != "..";
    if let Ok(volume) = text.parse::<VolumeId>() {
        assert!(beneath(volume.as_str()) && volume.to_string().parse() == Ok(volume));
    }
    if let Ok(name) = text.parse::<CredentialName>() {
        assert!(beneath(name.as_str()) && name.to_string().parse() == Ok(name));
    }
    if let Ok(target) = text.parse::<TargetPath>() {
        assert!(target.as_str().split('/').skip(1).all(beneath) && target.to_string().parse() == Ok(target));
    }
    match FilePath::parse(text) {
        Ok(path) => {
            assert!(path.as_str().split('/').all(beneath) && !path.root().starts_with(".."));
            assert_eq!(FilePath::parse(path.as_str()).ok(), Some(path));
        }
        Err(error) => sober(&error),
    }
}

fn workload() -> Workload {
    Workload {
        namespace: Namespace::parse("payments").expect("a name"),
        service_account: ServiceAccountName::parse("app").expect("a name"),
        pod: PodName::parse("web-0").expect("a name"),
        pod_uid: PodUid::parse("pod-1").expect("a name"),
        node: NodeName::parse("node-1").expect("a name"),
    }
}

struct NoFiles;

#[async_trait]
impl CredentialFiles for NoFiles {
    async fn read(&self, _: &str) -> Result<SecretBytes, Error> {
        panic!("to compare paths is to open nothing")
    }
}
