// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The only list of backends: from a class to a backend that can be asked, built once for each revision of the class.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::backend::Backend;
use crate::backend::role::RoleTemplate;
use crate::backend::vault::VaultBackend;
use crate::class_source::Class;
use crate::credentials::CredentialFiles;
use crate::error::Error;
use crate::names::BackendName;
use crate::policy::{Allow, Glob, SecretPattern};
use crate::spec::backend::{AllowSpec, BackendSpec, Limits, Provider};

/// A backend with who may ask it for what, and how hard it may be asked.
pub struct BackendHandle {
    /// The backend.
    pub backend: Arc<dyn Backend>,
    /// Who may ask for what, in the form that the backend is sent.
    pub allow: Vec<Allow>,
    /// Bounds on what is asked of it.
    pub limits: Limits,
}

/// Builds backends and remembers them.
pub struct Registry {
    credentials: Arc<dyn CredentialFiles>,
    built: Mutex<BTreeMap<BackendName, (u64, Arc<BackendHandle>)>>,
}

impl Registry {
    /// A registry whose backends read their credentials files from `credentials`.
    pub fn new(credentials: Arc<dyn CredentialFiles>) -> Self {
        Self { credentials, built: Mutex::default() }
    }

    /// The backend of a class; the same one as long as the class does not change.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid), with the field that is wrong.
    pub fn get(&self, class: &Class<BackendSpec>) -> Result<Arc<BackendHandle>, Error> {
        let name = &class.spec.name;
        // Building opens and sends nothing, so it may happen under the lock.
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((revision, handle)) = built.get(name)
            && *revision == class.revision
        {
            return Ok(Arc::clone(handle));
        }
        let handle = Arc::new(self.build(&class.spec)?);
        built.insert(name.clone(), (class.revision, Arc::clone(&handle)));
        Ok(handle)
    }

    /// Builds a backend without remembering it: what `check` does with a class.
    ///
    /// # Errors
    /// As [`Registry::get`].
    pub fn build(&self, spec: &BackendSpec) -> Result<BackendHandle, Error> {
        let context = |error: Error| error.context(format!("SecretBackend {}", spec.name));
        let name = spec.name.clone();
        let backend: Arc<dyn Backend> = match &spec.provider {
            Provider::Sealed(_) => {
                return Err(context(Error::invalid("this program was built without sealed backends")));
            }
            Provider::Vault(vault) => Arc::new(
                VaultBackend::new(vault, name, spec.limits, Arc::clone(&self.credentials))
                    .map_err(|error| context(error.context("spec.vault")))?,
            ),
        };
        let allow = spec.allow.iter().enumerate().map(|(index, entry)| {
            read_allow(entry, backend.as_ref()).map_err(|error| context(error.context(format!("spec.allow[{index}]"))))
        });
        let allow = allow.collect::<Result<_, _>>()?;
        Ok(BackendHandle { backend, allow, limits: spec.limits })
    }
}

fn read_allow(entry: &AllowSpec, backend: &dyn Backend) -> Result<Allow, Error> {
    let globs = |patterns: &[String]| patterns.iter().map(|pattern| Glob::parse(pattern)).collect();
    if let Some(role) = &entry.role {
        if backend.audience().is_none() {
            return Err(Error::invalid("role has no meaning: this backend logs no pod in"));
        }
        RoleTemplate::parse(role)?;
    }
    let secrets = entry.secrets.iter().map(|pattern| SecretPattern::parse(pattern, backend));
    Ok(Allow {
        namespaces: globs(&entry.namespaces),
        service_accounts: globs(&entry.service_accounts),
        secrets: secrets.collect::<Result<_, _>>()?,
        role: entry.role.clone(),
    })
}
