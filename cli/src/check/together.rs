// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Classes held against each other: what a volume asks for against the backend that is to answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use evanesce_engine::backend::registry;
use evanesce_engine::credentials::CredentialFiles;
use evanesce_engine::error::Error;
use evanesce_engine::fetch::BackendHandle;
use evanesce_engine::names::{BackendName, Namespace};
use evanesce_engine::secret::SecretBytes;
use evanesce_engine::secret_ref::SecretRef;
use evanesce_engine::spec::backend::{BackendSpec, Provider};
use evanesce_engine::spec::volume::FileSpec;
use evanesce_engine::spec::{Document, VolumeSpec};

use crate::check::classes::{Findings, Level};

type Found = Vec<(Level, usize, String)>;

/// A backend of the files; `None` where it could not be built, which is said already.
type Backends = BTreeMap<BackendName, Option<BackendHandle>>;

/// Adds what is wrong between the classes.
pub(super) fn check(findings: &mut Findings) {
    let mut found = Found::new();
    let backends = build(findings, &mut found);
    for (index, class) in findings.classes.iter().enumerate() {
        if let Some(Document::Volume { namespace, spec, .. }) = &class.document {
            volume(index, namespace, spec, &backends, &mut found);
        }
    }
    for (level, index, message) in found {
        findings.add(level, index, &message);
    }
}

fn build(findings: &Findings, found: &mut Found) -> Backends {
    let credentials: Arc<dyn CredentialFiles> = Arc::new(NoCredentials);
    let mut backends = Backends::new();
    for (index, class) in findings.classes.iter().enumerate() {
        let Some(Document::Backend(spec)) = &class.document else { continue };
        if let Some(field) = in_the_clear(spec) {
            found.push((Level::Warning, index, format!("{field}: http:// sends tokens and secrets in the clear")));
        }
        let built = registry::build(spec, 0, &credentials, &Default::default(), None, None)
            .map_err(|error| found.push((Level::Error, index, error.message().to_owned())));
        backends.insert(spec.name.clone(), built.ok());
    }
    // One that could not be read exists all the same.
    for class in &findings.classes {
        if let (Some(evanesce_engine::spec::ClassName::Backend(name)), None) = (&class.name, &class.document) {
            backends.entry(name.clone()).or_insert(None);
        }
    }
    backends
}

/// The field with an address that is, where there is one.
fn in_the_clear(spec: &BackendSpec) -> Option<&'static str> {
    let clear = |address: &String| address.starts_with("http://");
    match &spec.provider {
        Provider::Vault(vault) if vault.addresses.iter().any(clear) => Some("spec.vault.address"),
        Provider::Aws(aws) if aws.endpoint.as_ref().is_some_and(clear) => Some("spec.aws.endpoint"),
        Provider::Aws(aws) if aws.sts_endpoint.as_ref().is_some_and(clear) => Some("spec.aws.stsEndpoint"),
        _ => None,
    }
}

fn volume(index: usize, namespace: &Namespace, spec: &VolumeSpec, backends: &Backends, found: &mut Found) {
    let asked = |(number, file): (usize, _)| FileSpec::references(file).map(move |(key, it)| (number, key, it));
    for (number, key, reference) in spec.files.iter().enumerate().flat_map(asked) {
        let mut add = |level, message: String| {
            let message = format!("spec.files[{number}].{key}: {message}");
            // Files that ask the same hear the same; once is enough.
            let said = |(_, at, before): &(Level, usize, String)| {
                *at == index && before.split_once(": ").map(|it| it.1) == message.split_once(": ").map(|it| it.1)
            };
            if !found.iter().any(said) {
                found.push((level, index, message));
            }
        };
        match backends.get(&reference.backend) {
            None => {
                add(Level::Warning, format!("SecretBackend {} is in none of these files", reference.backend));
            }
            Some(None) => {}
            Some(Some(handle)) => match permits(handle, namespace, reference) {
                Ok(true) => {}
                Ok(false) => add(
                    Level::Note,
                    format!(
                        "no entry in spec.allow of SecretBackend {} lets a pod in namespace {namespace} read {}",
                        reference.backend, reference.path
                    ),
                ),
                Err(error) => add(Level::Error, error.message().to_owned()),
            },
        }
    }
}

/// Whether an entry lets some service account of the namespace read it; which one a pod has is not in a class.
fn permits(handle: &BackendHandle, namespace: &Namespace, reference: &SecretRef) -> Result<bool, Error> {
    let path = handle.backend.canonical(reference)?;
    Ok(handle.allow.iter().any(|entry| {
        entry.namespaces.iter().any(|pattern| pattern.matches(namespace.as_str()))
            && entry.secrets.iter().any(|pattern| pattern.matches(&path))
    }))
}

/// To build a backend is to ask nobody; were it otherwise, this would say so.
struct NoCredentials;

#[async_trait]
impl CredentialFiles for NoCredentials {
    async fn read(&self, name: &str) -> Result<SecretBytes, Error> {
        Err(Error::missing(format!("a check opens no credentials file, and none named {name}")))
    }
}
