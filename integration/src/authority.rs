// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A private certificate authority, as every test server here has its own.

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};

/// One authority; lives as long as the test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// When a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// Today.
    Now,
    /// No more.
    Past,
}

/// A certificate for a server or a client with its key, both in PEM.
pub struct ServerIdentity {
    /// The certificate, without the authority's.
    pub certificate: String,
    /// The private key, PKCS #8.
    pub key: String,
}

impl Authority {
    /// Makes a new authority named `name`.
    ///
    /// # Errors
    /// When the key or the certificate cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate().context("no key for the authority")?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// The authority's certificate in PEM: what a client must trust.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Issues a certificate for a server on loopback.
    ///
    /// # Errors
    /// When the key or the certificate cannot be made.
    pub fn server_identity(&self) -> Result<ServerIdentity> {
        self.issue(&["127.0.0.1", "localhost"], Validity::Now)
    }

    /// The same for a server or a client of other names, or of another time.
    ///
    /// # Errors
    /// When the key or the certificate cannot be made.
    pub fn issue(&self, names: &[&str], validity: Validity) -> Result<ServerIdentity> {
        let key = KeyPair::generate().context("no key for the server")?;
        let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())?;
        if validity == Validity::Past {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        params.distinguished_name.push(DnType::CommonName, "localhost");
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(ServerIdentity { certificate, key: key.serialize_pem() })
    }
}
