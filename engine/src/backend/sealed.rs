// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! age-encrypted YAML files in a folder: secrets that live in git, on an edge node, in a demonstration.
//!
//! # The files
//! The secret `payments/db` is the file `payments/db.yaml.age` below the backend's `directory`: a YAML map of keys to
//! values, encrypted as a whole into an armored age file (<https://age-encryption.org/v1>) by `evanesce seal`.
//!
//! As a whole and not value by value, because one authenticated file cannot be put together from old and new values,
//! shows not even the names of its keys, and needs no tool of ours to be read: `age -d -i identity payments/db.yaml.age`.
//! Armored, because a text file survives git, ConfigMaps and mail. Named `.yaml.age` and not `.yaml`, because tools that
//! apply every `*.yaml` of a folder would take it for a manifest. One file for each secret, because then a change to one
//! is a change to one file, and access to the file is access to the secret.
//!
//! # What it does not do
//! There are no numbered versions and no leases: the version is a digest of the encrypted file, the same on every node,
//! and asking for it decrypts nothing. Nobody logs in: whoever policy lets through gets the secret, because the identity
//! is the platform's own. Values are text; what is not is written in base64 by its owner.

mod file;
mod folder;
mod identities;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::backend::{Backend, BackendError, BackendErrorKind, Caller, Identity, Login, Session};
use crate::credentials::CredentialFiles;
use crate::error::Error;
use crate::folder_watch::{Depth, FolderWatch, Watched, Why};
use crate::names::BackendName;
use crate::policy::Grant;
use crate::secret::{Secret, Version};
use crate::secret_ref::{SecretRef, WirePath};
use crate::spec::backend::SealedSpec;
use crate::token::Audience;

pub use file::{seal, unseal, values};
pub use folder::SUFFIX;
pub use identities::{Identities, Recipients, new_identity};

use folder::Folder;

/// How often the folder is found again where another has taken its name.
const RESCAN: Duration = Duration::from_secs(60);

/// A folder of sealed secrets.
pub struct SealedBackend {
    name: BackendName,
    folder: Arc<Folder>,
    identity_file: String,
    credentials: Arc<dyn CredentialFiles>,
}

impl SealedBackend {
    /// The backend of a class. Nothing is opened before somebody asks.
    pub fn new(spec: &SealedSpec, name: BackendName, credentials: Arc<dyn CredentialFiles>) -> Self {
        let folder = Arc::new(Folder::new(&spec.directory));
        Self { name, folder, identity_file: spec.identity_file.clone(), credentials }
    }
}

#[async_trait]
impl Backend for SealedBackend {
    fn name(&self) -> &BackendName {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "sealed"
    }

    fn canonical(&self, reference: &SecretRef) -> Result<WirePath, Error> {
        let SecretRef { backend: _, path, version, args } = reference;
        if version.is_some() {
            return Err(Error::invalid(format!(
                "sealed secrets have no numbered versions: remove 'version' from {path}, or keep two files"
            )));
        }
        if !args.is_empty() {
            return Err(Error::invalid(format!("sealed secrets take no arguments: remove 'args' from {path}")));
        }
        plain(path.as_str())?;
        Ok(WirePath::new(path.to_string()))
    }

    fn canonical_pattern(&self, pattern: &str) -> Result<String, Error> {
        plain(pattern)?;
        Ok(pattern.to_owned())
    }

    fn audience(&self) -> Option<&Audience> {
        None
    }

    /// One for all callers: the files cannot tell them apart, policy did.
    fn identity(&self, _caller: &Caller<'_>, _role: Option<&str>) -> Result<Identity, Error> {
        Ok(Identity {
            backend: self.name.clone(),
            mount: String::new(),
            role: String::new(),
            audience: String::new(),
            caller: None,
        })
    }

    fn shareable(&self, _grant: &Grant) -> bool {
        true
    }

    /// A file that changed is asked for soon, by whoever shows it; that one no longer opens is theirs to say, and what they
    /// show stays.
    fn watch(&self, changed: Box<dyn Fn() + Send>) -> Option<FolderWatch> {
        let folder = self.folder.path();
        let watched = Watched { what: "sealed secrets", folder, depth: Depth::Recursive, rescan: RESCAN };
        let look = move |why| {
            if why == Why::Changed {
                changed();
            }
            true
        };
        FolderWatch::start(&watched, look)
            .inspect_err(|error| tracing::warn!(backend = %self.name, %error, "sealed secrets are not watched"))
            .ok()
    }

    async fn open(&self, _caller: &Caller<'_>, _identity: &Identity) -> Result<Box<dyn Session>, BackendError> {
        let unavailable = |error: &Error| BackendError::new(BackendErrorKind::Unavailable, error.message().to_owned());
        let file = self.credentials.read(&self.identity_file).await.map_err(|error| unavailable(&error))?;
        let identities = Identities::parse(file.expose())
            .map_err(|error| unavailable(&error.context(format!("credentials file {}", self.identity_file))))?;
        let login = Login { method: "none", ..Login::default() };
        Ok(Box::new(Sealed { folder: Arc::clone(&self.folder), identities: Arc::new(identities), login }))
    }

    async fn probe(&self) -> Result<(), BackendError> {
        let folder = Arc::clone(&self.folder);
        blocking(move || folder.probe()).await
    }
}

/// The folder and the identity that opens its files.
struct Sealed {
    folder: Arc<Folder>,
    identities: Arc<Identities>,
    login: Login,
}

#[async_trait]
impl Session for Sealed {
    async fn fetch(&self, grant: &Grant) -> Result<Secret, BackendError> {
        let (folder, identities) = (Arc::clone(&self.folder), Arc::clone(&self.identities));
        let path = grant.path().clone();
        blocking(move || {
            let sealed = folder.read(&path)?;
            let version = Some(version_of(&sealed));
            let malformed = |error: Error| {
                BackendError::new(BackendErrorKind::Malformed, format!("{}: {}", folder.place(&path), error.message()))
            };
            let values = unseal(&sealed, &identities).and_then(|text| values(&text)).map_err(malformed)?;
            Ok(Secret { values, version, lease: None, expires_at: None, rotates_in: None, request_id: None })
        })
        .await
    }

    async fn version(&self, grant: &Grant) -> Result<Option<Version>, BackendError> {
        let folder = Arc::clone(&self.folder);
        let path = grant.path().clone();
        blocking(move || folder.read(&path).map(|sealed| Some(version_of(&sealed)))).await
    }

    fn login(&self) -> &Login {
        &self.login
    }
}

/// Digest of what is encrypted, which says nothing about what is in it: age takes a new key for every file. Unlike a
/// file's times it is the same on every node and after every checkout.
fn version_of(sealed: &[u8]) -> Version {
    use std::fmt::Write as _;
    let digest = ring::digest::digest(&ring::digest::SHA256, sealed);
    let mut version = String::with_capacity(32);
    for byte in digest.as_ref().iter().take(16) {
        let _ = write!(version, "{byte:02x}");
    }
    Version::new(version)
}

/// Names that begin with '.' are not secrets: a mounted ConfigMap shows every file a second time below `..data`, where
/// no allow entry was meant to reach.
fn plain(path: &str) -> Result<(), Error> {
    if path.split('/').any(|segment| segment.starts_with('.')) {
        return Err(Error::invalid("a sealed secret's path has no segment that begins with '.'"));
    }
    Ok(())
}

/// Files and cryptography off the runtime's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackendError> + Send + 'static,
) -> Result<T, BackendError> {
    let failed = |_| BackendError::new(BackendErrorKind::Unavailable, "the reading of a sealed file was cut short");
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
