// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What cannot be avoided: the same login and the same reads, by a client that does nothing else.
//!
//! It is built as the plugin's: reqwest on rustls on `ring`, HTTP/2, trust set up once, TLS sessions resumed. After the
//! login all reads are under way at once, because one after the other takes longer.

use std::sync::Arc;

use anyhow::{Context, Result};
use evanesce_integration::openbao::OpenBao;
use reqwest::Client;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};

use crate::site::paths;

/// Makes clients and knows the server.
pub(crate) struct Bare {
    tls: ClientConfig,
    address: String,
}

impl Bare {
    /// For this server.
    pub(crate) fn new(server: &OpenBao) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(server.authority_pem().as_bytes())?)?;
        let mut tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { tls, address: server.address().to_owned() })
    }

    /// One that has dialled nobody yet.
    pub(crate) fn client(&self) -> Result<Client> {
        Ok(Client::builder().tls_backend_preconfigured(self.tls.clone()).https_only(true).no_proxy().build()?)
    }

    /// Logs in and reads so many secrets.
    pub(crate) async fn fetch(&self, client: &Client, token: &str, secrets: usize) -> Result<()> {
        let login = client
            .post(format!("{}/v1/auth/kubernetes/login", self.address))
            .header("X-Vault-Request", "true")
            .json(&json!({"role": "app", "jwt": token}))
            .send()
            .await?
            .error_for_status()?;
        let login: Value = serde_json::from_slice(&login.bytes().await?)?;
        let token = login["auth"]["client_token"].as_str().context("a login without a token")?;
        let reads = paths(secrets).map(async |path| {
            let answer = client
                .get(format!("{}/v1/kv/data/{path}", self.address))
                .header("X-Vault-Request", "true")
                .header("X-Vault-Token", token)
                .send()
                .await?
                .error_for_status()?;
            anyhow::Ok(answer.bytes().await?)
        });
        futures_util::future::try_join_all(reads).await?;
        Ok(())
    }
}
