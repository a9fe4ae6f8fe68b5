// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Whom the transport trusts.
//!
//! The configuration is built on `ring` by name, not on a process-wide default, and is shared by every session: making a
//! client for one burst then costs microseconds. The system's roots are read with `rustls-native-certs`, which parses
//! files and brings no cryptography of its own: a list compiled in would go stale with the image, and the platform
//! verifier does on Linux the same with one more layer.

use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{SHA256, digest};
use rustls::crypto::{CryptoProvider, ring as ring_provider};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::backend::{BackendError, BackendErrorKind};
use crate::credentials::CredentialFiles;
use crate::error::Error;
use crate::spec::backend::PemSource;

/// Where trust comes from, and the configuration that was last built from it.
pub(super) struct Trust {
    source: Source,
    credentials: Arc<dyn CredentialFiles>,
    provider: Arc<CryptoProvider>,
    built: Mutex<Option<Built>>,
}

enum Source {
    /// The address is `http://`: nobody is authenticated.
    Nobody,
    /// The system's roots.
    System,
    /// These certificates and no others.
    Inline(Vec<CertificateDer<'static>>),
    /// A credentials file, by name.
    File(String),
}

struct Built {
    /// Of the file's contents, to see a change.
    fingerprint: [u8; 32],
    config: Arc<ClientConfig>,
}

impl Trust {
    /// Checks what the class says.
    pub(super) fn new(ca: Option<&PemSource>, tls: bool, credentials: Arc<dyn CredentialFiles>) -> Result<Self, Error> {
        let source = match ca {
            Some(_) if !tls => return Err(Error::invalid("ca has no meaning for an http:// address: use https://")),
            None if !tls => Source::Nobody,
            None => Source::System,
            Some(PemSource::File(name)) => Source::File(name.clone()),
            Some(PemSource::Inline(pem)) => {
                Source::Inline(certificates(pem.as_bytes()).map_err(|wrong| Error::invalid(format!("ca {wrong}")))?)
            }
        };
        Ok(Self { source, credentials, provider: Arc::new(ring_provider::default_provider()), built: Mutex::default() })
    }

    /// The configuration for a new client; the private authority's file is asked for each time, which is cheap when
    /// it did not change.
    pub(super) async fn config(&self) -> Result<Arc<ClientConfig>, BackendError> {
        let unavailable = |message: String| BackendError::new(BackendErrorKind::Unavailable, message);
        let pem = match &self.source {
            Source::File(name) => Some(self.credentials.read(name).await.map_err(|error| {
                unavailable(format!("the certificates to trust cannot be read: {}", error.message()))
            })?),
            _ => None,
        };
        let fingerprint = fingerprint(pem.as_ref().map_or(&[], |pem| pem.expose()));
        if let Some(config) = self.last(&fingerprint) {
            return Ok(config);
        }
        let roots = match (&self.source, &pem) {
            (Source::Nobody, _) => Vec::new(),
            (Source::Inline(roots), _) => roots.clone(),
            (Source::File(name), Some(pem)) => certificates(pem.expose())
                .map_err(|wrong| unavailable(format!("credentials file {name:?}, named by ca, {wrong}")))?,
            (Source::System | Source::File(_), _) => system_roots().await?,
        };
        let config =
            Arc::new(self.build(roots).map_err(|error| unavailable(format!("TLS cannot be set up: {error}")))?);
        *self.built.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Built { fingerprint, config: Arc::clone(&config) });
        Ok(config)
    }

    fn last(&self, fingerprint: &[u8; 32]) -> Option<Arc<ClientConfig>> {
        let built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        built.as_ref().filter(|built| built.fingerprint == *fingerprint).map(|built| Arc::clone(&built.config))
    }

    fn build(&self, certificates: Vec<CertificateDer<'static>>) -> Result<ClientConfig, rustls::Error> {
        let mut roots = RootCertStore::empty();
        // A system's folder often holds one or two that no longer parse; the others still count.
        roots.add_parsable_certificates(certificates);
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

async fn system_roots() -> Result<Vec<CertificateDer<'static>>, BackendError> {
    // Some hundred small files: not on the runtime's threads.
    let roots =
        tokio::task::spawn_blocking(|| rustls_native_certs::load_native_certs().certs).await.unwrap_or_default();
    if roots.is_empty() {
        return Err(BackendError::new(
            BackendErrorKind::Unavailable,
            "this system has no certificate authorities to trust: install ca-certificates, or set spec.vault.caBundle, or caFile",
        ));
    }
    Ok(roots)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| "holds a PEM block that cannot be read")?;
    let mut store = RootCertStore::empty();
    for certificate in &certificates {
        store.add(certificate.clone()).map_err(|_| "holds something that is not an X.509 certificate")?;
    }
    if certificates.is_empty() { Err("holds no PEM certificate") } else { Ok(certificates) }
}

fn fingerprint(bytes: &[u8]) -> [u8; 32] {
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest(&SHA256, bytes).as_ref());
    fingerprint
}
