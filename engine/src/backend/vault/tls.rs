// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Whom the transport trusts, and what it shows of itself.
//!
//! The configuration is built on `ring` by name, not on a process-wide default, and is shared by every session: making a
//! client for one burst then costs microseconds. The system's roots are read with `rustls-native-certs`, which parses
//! files and brings no cryptography of its own: a list compiled in would go stale with the image, and the platform
//! verifier does on Linux the same with one more layer.
//!
//! A client certificate and its key are two files, and so two reads: a pair of which one is older does not fit, and is
//! read again with the next login.

use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{Context, SHA256};
use rustls::crypto::{CryptoProvider, ring as ring_provider};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::backend::BackendError;
use crate::backend::BackendErrorKind::{Credential, Unavailable};
use crate::credentials::CredentialFiles;
use crate::error::Error;
use crate::secret::SecretBytes;
use crate::spec::backend::{ClientCertificate, PemSource};

/// Where trust comes from, and the configuration that was last built from it.
pub(in crate::backend) struct Trust {
    source: Source,
    client: Option<ClientCertificate>,
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
    /// Of the files' contents, to see a change.
    fingerprint: [u8; 32],
    config: Arc<ClientConfig>,
}

impl Trust {
    /// Checks what the class says.
    pub(in crate::backend) fn new(
        ca: Option<&PemSource>,
        client: Option<ClientCertificate>,
        tls: bool,
        credentials: Arc<dyn CredentialFiles>,
    ) -> Result<Self, Error> {
        if client.is_some() && !tls {
            return Err(Error::invalid("clientCertFile has no meaning for an http:// address: use https://"));
        }
        let source = match ca {
            Some(_) if !tls => return Err(Error::invalid("ca has no meaning for an http:// address: use https://")),
            None if !tls => Source::Nobody,
            None => Source::System,
            Some(PemSource::File(name)) => Source::File(name.clone()),
            Some(PemSource::Inline(pem)) => {
                Source::Inline(certificates(pem.as_bytes()).map_err(|wrong| Error::invalid(format!("ca {wrong}")))?)
            }
        };
        let provider = Arc::new(ring_provider::default_provider());
        Ok(Self { source, client, credentials, provider, built: Mutex::default() })
    }

    /// The configuration for a new client; the files are asked for each time, which is cheap when they did not change.
    pub(in crate::backend) async fn config(&self) -> Result<Arc<ClientConfig>, BackendError> {
        let read = async |kind, what: &str, name: &str| {
            let unreadable =
                |error: Error| BackendError::new(kind, format!("{what} cannot be read: {}", error.message()));
            self.credentials.read(name).await.map_err(unreadable)
        };
        let ca = match &self.source {
            Source::File(name) => Some(read(Unavailable, "the certificates to trust", name).await?),
            _ => None,
        };
        let client = match &self.client {
            Some(ClientCertificate { file, key_file }) => Some((
                read(Credential, "the client certificate", file).await?,
                read(Credential, "the client certificate's key", key_file).await?,
            )),
            None => None,
        };
        let fingerprint = fingerprint(ca.iter().chain(client.iter().flat_map(|(file, key)| [file, key])));
        if let Some(config) = self.last(&fingerprint) {
            return Ok(config);
        }
        let roots = match (&self.source, &ca) {
            (Source::Nobody, _) => Vec::new(),
            (Source::Inline(roots), _) => roots.clone(),
            (Source::File(name), Some(pem)) => certificates(pem.expose()).map_err(|wrong| {
                BackendError::new(Unavailable, format!("credentials file {name:?}, named by ca, {wrong}"))
            })?,
            (Source::System | Source::File(_), _) => system_roots().await?,
        };
        let config = Arc::new(self.build(roots, client.as_ref())?);
        *self.built.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Built { fingerprint, config: Arc::clone(&config) });
        Ok(config)
    }

    fn last(&self, fingerprint: &[u8; 32]) -> Option<Arc<ClientConfig>> {
        let built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        built.as_ref().filter(|built| built.fingerprint == *fingerprint).map(|built| Arc::clone(&built.config))
    }

    fn build(
        &self,
        certificates: Vec<CertificateDer<'static>>,
        client: Option<&(SecretBytes, SecretBytes)>,
    ) -> Result<ClientConfig, BackendError> {
        let mut roots = RootCertStore::empty();
        // A system's folder often holds one or two that no longer parse; the others still count.
        roots.add_parsable_certificates(certificates);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| BackendError::new(Unavailable, format!("TLS cannot be set up: {error}")))?
            .with_root_certificates(roots);
        let mut config = match (client, &self.client) {
            (Some((certificate, key)), Some(files)) => {
                let (chain, key) = client_pair(files, certificate.expose(), key.expose())?;
                builder.with_client_auth_cert(chain, key).map_err(|error| no_pair(files, &error))?
            }
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// A client certificate with those that lead to its authority, and its key.
fn client_pair(
    files: &ClientCertificate,
    certificate: &[u8],
    key: &[u8],
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), BackendError> {
    let wrong = |name: &str, wrong: &str| {
        BackendError::new(Credential, format!("credentials file {name:?}, of the client certificate, {wrong}"))
    };
    let chain = certificates(certificate).map_err(|why| wrong(&files.file, why))?;
    // A parser's error may quote what it read.
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| wrong(&files.key_file, "holds no PEM private key without a passphrase"))?;
    Ok((chain, key))
}

fn no_pair(files: &ClientCertificate, error: &rustls::Error) -> BackendError {
    let ClientCertificate { file, key_file } = files;
    let why = match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("is not the key of the certificate in {file:?}: write both of one issue")
        }
        _ => "holds a key of another kind than RSA, ECDSA on P-256 or P-384, and Ed25519".to_owned(),
    };
    BackendError::new(Credential, format!("credentials file {key_file:?}, of the client certificate, {why}"))
}

async fn system_roots() -> Result<Vec<CertificateDer<'static>>, BackendError> {
    // Some hundred small files: not on the runtime's threads.
    let roots =
        tokio::task::spawn_blocking(|| rustls_native_certs::load_native_certs().certs).await.unwrap_or_default();
    if roots.is_empty() {
        return Err(BackendError::new(
            Unavailable,
            "this system has no certificate authorities to trust: install ca-certificates, or set caFile or caBundle",
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

fn fingerprint<'a>(files: impl Iterator<Item = &'a SecretBytes>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for file in files {
        context.update(&file.len().to_be_bytes());
        context.update(file.expose());
    }
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(context.finish().as_ref());
    fingerprint
}
