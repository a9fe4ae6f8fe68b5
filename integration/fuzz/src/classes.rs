// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Classes: YAML that the platform team writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use evanesce_engine::backend::registry;
use evanesce_engine::credentials::CredentialFiles;
use evanesce_engine::error::Error;
use evanesce_engine::projection::{File, FilePath, Mode, Projection};
use evanesce_engine::secret::SecretBytes;
use evanesce_engine::secret_ref::{SecretPath, SecretRef};
use evanesce_engine::spec::backend::BackendSpec;
use evanesce_engine::spec::volume::Select;
use evanesce_engine::spec::{Document, Documents, VolumeSpec};

use super::sober;

/// A file of classes.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let readings = match Documents::read(text) {
        Ok(readings) => readings,
        Err(error) => return sober(&error),
    };
    for reading in readings {
        match reading.document {
            Err(error) => sober(&error),
            Ok(document) => {
                assert_eq!(reading.name, Some(document.name()), "the class is known under another name");
                match document {
                    Document::Backend(spec) => backend(&spec),
                    Document::Volume { spec, .. } => volume(&spec),
                }
            }
        }
    }
}

/// A backend that can be built has no pattern that reaches nothing.
fn backend(spec: &BackendSpec) {
    let credentials: Arc<dyn CredentialFiles> = Arc::new(NoFiles);
    let handle = match registry::build(spec, 0, &credentials, &Arc::default(), None, None) {
        Ok(handle) => handle,
        Err(error) => return sober(&error),
    };
    for (written, read) in spec.allow.iter().zip(&handle.allow) {
        for (text, pattern) in written.secrets.iter().zip(&read.secrets) {
            // As the name of a secret ends in an ARN of AWS, and as good a name as any elsewhere.
            let Ok(path) = SecretPath::parse(&text.replace('*', "x-AbCdEf")) else { continue };
            let reference = SecretRef { backend: spec.name.clone(), path, version: None, args: BTreeMap::new() };
            let wire = handle.backend.canonical(&reference);
            let wire = wire.unwrap_or_else(|error| panic!("{text:?} lets nobody read anything: {error}"));
            let administers = ["auth/", "identity/", "sys/"].iter().any(|system| wire.as_str().starts_with(system));
            assert!(pattern.matches(&wire) || administers, "{text:?} does not reach {}", wire.as_str());
        }
    }
}

/// Files that a class may have together can be made together, each below the volume's root.
fn volume(spec: &VolumeSpec) {
    let mut projection = Projection::default();
    for file in &spec.files {
        let path = file.path.as_str();
        assert!(!path.starts_with('/') && path.split('/').all(|part| !matches!(part, "" | "." | "..")), "{path:?}");
        assert_eq!(FilePath::parse(path).expect("read once, read twice"), file.path);
        assert_eq!(SecretPath::parse(file.from.path.as_str()).expect("read once, read twice"), file.from.path);
        if file.select != Select::EachKey {
            let empty = File { bytes: SecretBytes::new(Vec::new()), mode: Mode::OWNER_READS, uid: 0, gid: 0 };
            projection.add(file.path.clone(), empty).unwrap_or_else(|error| panic!("accepted and not made: {error}"));
        }
    }
    assert!(!spec.files.is_empty() && spec.refresh.jitter_percent <= 50 && !spec.refresh.every.is_zero());
}

struct NoFiles;

#[async_trait]
impl CredentialFiles for NoFiles {
    async fn read(&self, _: &str) -> Result<SecretBytes, Error> {
        panic!("to build a backend is to open nothing")
    }
}
