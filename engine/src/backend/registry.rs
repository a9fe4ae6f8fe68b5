// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The only list of backends: from a class to a backend that can be asked, built once for each revision of the class.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::UnboundedSender;

use crate::backend::Backend;
use crate::backend::aws::AwsBackend;
use crate::backend::role::RoleTemplate;
use crate::backend::sealed::SealedBackend;
use crate::backend::vault::{PassedOver, VaultBackend};
use crate::class_source::ClassSource;
use crate::credentials::CredentialFiles;
use crate::error::Error;
use crate::fetch::{BackendHandle, Backends};
use crate::folder_watch::FolderWatch;
use crate::keep::Keep;
use crate::names::BackendName;
use crate::policy::{Allow, Glob, SecretPattern};
use crate::proxy::HttpsProxy;
use crate::reach::Reach;
use crate::spec::backend::{AllowSpec, BackendSpec, Provider};

/// The backends of the classes of one source.
pub struct Registry {
    classes: Arc<dyn ClassSource>,
    credentials: Arc<dyn CredentialFiles>,
    reach: Reach,
    passed_over: Arc<PassedOver>,
    changed: Option<UnboundedSender<BackendName>>,
    keep: Option<Arc<dyn Keep>>,
    built: Mutex<BTreeMap<BackendName, Built>>,
}

/// A backend, and what notices its changes.
struct Built {
    handle: Arc<BackendHandle>,
    _watch: Option<FolderWatch>,
}

impl Registry {
    /// A registry whose backends read their credentials files from `credentials`, and need no more than `reach`.
    pub fn new(classes: Arc<dyn ClassSource>, credentials: Arc<dyn CredentialFiles>, reach: Reach) -> Self {
        let passed_over = Arc::default();
        Self { classes, credentials, reach, passed_over, changed: None, keep: None, built: Mutex::default() }
    }

    /// Tells `changed` of every backend that notices by itself that what it holds may have changed.
    #[must_use]
    pub fn tell(self, changed: UnboundedSender<BackendName>) -> Self {
        Self { changed: Some(changed), ..self }
    }

    /// The same with protected memory for what backends may keep between sessions: temporary credentials.
    #[must_use]
    pub fn keeping(self, keep: Option<Arc<dyn Keep>>) -> Self {
        Self { keep, ..self }
    }

    /// How often addresses of backends were passed over, for a metric.
    pub fn passed_over(&self) -> Arc<PassedOver> {
        Arc::clone(&self.passed_over)
    }
}

impl Backends for Registry {
    fn find(&self, name: &BackendName) -> Result<Arc<BackendHandle>, Error> {
        let class = self.classes.backend(name).found(&format!("SecretBackend {name}"))?;
        // Building opens and sends nothing, and watching starts a thread: both may happen under the lock.
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Built { handle, .. }) = built.get(name).filter(|built| built.handle.revision == class.revision) {
            return Ok(Arc::clone(handle));
        }
        self.reach.check(&class.spec.provider).map_err(|error| error.context(format!("SecretBackend {name}")))?;
        let handle = Arc::new(build(
            &class.spec,
            class.revision,
            &self.credentials,
            &self.passed_over,
            self.reach.proxy.clone(),
            self.keep.clone(),
        )?);
        let tell = |changed: &UnboundedSender<BackendName>| {
            let (changed, name) = (changed.clone(), name.clone());
            // Nobody may listen any more.
            handle.backend.watch(Box::new(move || drop(changed.send(name.clone()))))
        };
        let watch = self.changed.as_ref().and_then(tell);
        built.insert(name.clone(), Built { handle: Arc::clone(&handle), _watch: watch });
        Ok(handle)
    }
}

/// Builds the backend of a class; nothing is opened or sent, so it is also how a class is checked.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid), with the class and the field that is wrong.
pub fn build(
    spec: &BackendSpec,
    revision: u64,
    credentials: &Arc<dyn CredentialFiles>,
    passed_over: &Arc<PassedOver>,
    proxy: Option<HttpsProxy>,
    keep: Option<Arc<dyn Keep>>,
) -> Result<BackendHandle, Error> {
    let context = |error: Error| error.context(format!("SecretBackend {}", spec.name));
    let name = spec.name.clone();
    let backend: Arc<dyn Backend> = match &spec.provider {
        Provider::Aws(aws) => Arc::new(
            AwsBackend::new(aws, name, spec.limits, Arc::clone(credentials))
                .map_err(|error| context(error.context("spec.aws")))?
                .by_way_of(proxy)
                .keeping(keep),
        ),
        Provider::Sealed(sealed) => Arc::new(SealedBackend::new(sealed, name, Arc::clone(credentials))),
        Provider::Vault(vault) => Arc::new(
            VaultBackend::new(vault, name, spec.limits, Arc::clone(credentials), Arc::clone(passed_over))
                .map_err(|error| context(error.context("spec.vault")))?
                .by_way_of(proxy),
        ),
    };
    let allow = spec.allow.iter().enumerate().map(|(index, entry)| {
        read_allow(entry, backend.as_ref()).map_err(|error| context(error.context(format!("spec.allow[{index}]"))))
    });
    let allow = allow.collect::<Result<_, _>>()?;
    Ok(BackendHandle::new(backend, allow, spec.limits, revision))
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::class_source::{Class, Lookup};
    use crate::error::Kind;
    use crate::names::{Namespace, VolumeClassName};
    use crate::secret::SecretBytes;
    use crate::spec::VolumeSpec;
    use crate::spec::backend::{Limits, SealedSpec, VaultAuth, VaultSpec};
    use tokio::sync::watch;

    struct NoFiles;

    #[async_trait::async_trait]
    impl CredentialFiles for NoFiles {
        async fn read(&self, name: &str) -> Result<SecretBytes, Error> {
            Err(Error::missing(name.to_owned()))
        }
    }

    struct OneClass(Mutex<Class<BackendSpec>>);

    impl ClassSource for OneClass {
        fn backend(&self, name: &BackendName) -> Lookup<BackendSpec> {
            let class = self.0.lock().unwrap().clone();
            if class.spec.name == *name { Lookup::Found(class) } else { Lookup::Absent(None) }
        }

        fn volume(&self, _: &Namespace, _: &VolumeClassName) -> Lookup<VolumeSpec> {
            Lookup::Absent(None)
        }

        fn changes(&self) -> watch::Receiver<u64> {
            watch::channel(0).1
        }
    }

    fn kubernetes(role: &str) -> VaultAuth {
        VaultAuth::Kubernetes { mount: "kubernetes".into(), role: role.into(), audience: "vault".into() }
    }

    fn spec(auth: VaultAuth, secrets: &str, role: Option<&str>) -> BackendSpec {
        let vault = VaultSpec {
            addresses: vec!["https://vault.example".into()],
            ca: None,
            client_certificate: None,
            namespace: None,
            auth,
            kv_mounts: vec!["kv".into()],
            kv1_mounts: Vec::new(),
        };
        let allow = AllowSpec {
            namespaces: vec!["*".into()],
            service_accounts: vec!["*".into()],
            secrets: vec![secrets.into()],
            role: role.map(str::to_owned),
        };
        let name = BackendName::parse("vault").unwrap();
        BackendSpec { name, provider: Provider::Vault(Box::new(vault)), allow: vec![allow], limits: Limits::default() }
    }

    fn built(spec: &BackendSpec) -> Result<BackendHandle, Error> {
        let credentials: Arc<dyn CredentialFiles> = Arc::new(NoFiles);
        build(spec, 1, &credentials, &Arc::default(), None, None)
    }

    #[test]
    fn a_backend_is_built_again_when_its_class_changes_and_not_before() {
        let class = |revision| Class { spec: Arc::new(spec(kubernetes("app"), "kv/*", None)), revision };
        let classes = Arc::new(OneClass(Mutex::new(class(1))));
        let reach = Reach { ports: vec![443], sealed: "/sealed".into(), proxy: None };
        let registry = Registry::new(Arc::clone(&classes) as Arc<dyn ClassSource>, Arc::new(NoFiles), reach);
        let name = BackendName::parse("vault").unwrap();
        let first = registry.find(&name).unwrap();
        assert!(Arc::ptr_eq(&first, &registry.find(&name).unwrap()));
        *classes.0.lock().unwrap() = class(2);
        let second = registry.find(&name).unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        assert_eq!(second.revision, 2);
        let other = registry.find(&BackendName::parse("other").unwrap()).err().unwrap();
        assert_eq!(other.kind(), Kind::Missing);
    }

    #[test]
    fn what_the_process_cannot_reach_is_refused_with_the_flag_to_set() {
        let refused = |reach: Reach, spec: BackendSpec| {
            let classes = OneClass(Mutex::new(Class { spec: Arc::new(spec), revision: 1 }));
            let registry = Registry::new(Arc::new(classes), Arc::new(NoFiles), reach);
            registry.find(&BackendName::parse("vault").unwrap()).err().map(|error| error.message().to_owned())
        };
        let reach = |port, sealed: &str| Reach { ports: vec![port], sealed: sealed.into(), proxy: None };
        let vault = || spec(kubernetes("app"), "kv/*", None);
        assert_eq!(refused(reach(443, "/sealed"), vault()), None);
        let error = refused(reach(8200, "/sealed"), vault()).unwrap();
        assert!(error.contains("port 443") && error.contains("--backend-ports"), "{error}");

        let sealed = |directory: &str| {
            let sealed = SealedSpec { directory: directory.into(), identity_file: "id".into() };
            BackendSpec { provider: Provider::Sealed(sealed), ..spec(kubernetes("app"), "app/*", None) }
        };
        assert_eq!(refused(reach(443, "/sealed"), sealed("/sealed/team")), None);
        let error = refused(reach(443, "/sealed"), sealed("/sealed-else")).unwrap();
        assert!(error.contains("/sealed-else") && error.contains("--sealed-dir"), "{error}");
    }

    #[test]
    fn a_pattern_is_put_into_the_form_that_is_sent() {
        let allow = built(&spec(kubernetes("app"), "kv/payments/*", None)).unwrap().allow;
        let matches = |path: &str| allow[0].secrets[0].matches(&crate::backend::WirePath::new(path.into()));
        assert!(matches("kv/data/payments/db"));
        assert!(!matches("kv/payments/db"));
        assert!(!matches("kv/metadata/payments/db"));
    }

    #[test]
    fn a_role_has_only_the_two_placeholders_and_only_where_pods_log_in() {
        assert!(built(&spec(kubernetes("app"), "kv/*", Some("{namespace}-{serviceAccount}"))).is_ok());
        for bad in [
            spec(kubernetes("{pod}"), "kv/*", None),
            spec(kubernetes("app"), "kv/*", Some("{node}")),
            spec(kubernetes("app"), "kv/*", Some("")),
            spec(VaultAuth::TokenFile { file: "token".into() }, "kv/*", Some("app")),
        ] {
            assert_eq!(built(&bad).err().unwrap().kind(), Kind::Invalid);
        }
    }

    #[test]
    fn an_error_names_the_class_and_the_field() {
        let error = built(&spec(kubernetes("app"), "kv/data/*", None)).err().unwrap();
        assert!(error.message().starts_with("SecretBackend vault: spec.allow[0]: "), "{error}");
        let error = built(&spec(kubernetes("{pod}"), "kv/*", None)).err().unwrap();
        assert!(error.message().starts_with("SecretBackend vault: spec.vault: auth.kubernetes.role: "), "{error}");
    }
}
