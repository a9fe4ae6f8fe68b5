// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What the process was left to reach when it was confined. A class that needs more is refused with the flag to change,
//! instead of failing with an error of the kernel's.

use std::path::{Path, PathBuf};

use reqwest::Url;

use crate::backend::aws;
use crate::error::Error;
use crate::proxy::HttpsProxy;
use crate::spec::backend::Provider;

/// The ports and directories that backends may name.
#[derive(Clone)]
pub struct Reach {
    /// TCP ports of backends (`--backend-ports`).
    pub ports: Vec<u16>,
    /// The directory that sealed secrets lie in or beneath (`--sealed-dir`).
    pub sealed: PathBuf,
    /// The way to backends that are not near (`--https-proxy`).
    pub proxy: Option<HttpsProxy>,
}

impl Reach {
    /// Whether a backend is within reach.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid), with the flag.
    pub fn check(&self, provider: &Provider) -> Result<(), Error> {
        match provider {
            Provider::Sealed(sealed) if !Path::new(&sealed.directory).starts_with(&self.sealed) => {
                Err(Error::invalid(format!(
                    "spec.sealed.directory {} does not lie in {}, the one directory with sealed secrets that the node \
                     plugin can read: move it there, or set --sealed-dir",
                    sealed.directory,
                    self.sealed.display()
                )))
            }
            Provider::Sealed(_) => Ok(()),
            Provider::Vault(vault) => {
                vault.addresses.iter().try_for_each(|address| self.check_port("spec.vault", address))
            }
            Provider::Aws(aws) => {
                aws::endpoints(aws).iter().try_for_each(|address| self.check_port("spec.aws", address))
            }
        }
    }

    fn check_port(&self, field: &str, address: &str) -> Result<(), Error> {
        // What is no address is the backend's to refuse.
        match Url::parse(address).ok().and_then(|url| url.port_or_known_default()) {
            Some(port) if !self.ports.contains(&port) => Err(Error::invalid(format!(
                "{field}: {address} has port {port}, which the node plugin may not connect to: add it to --backend-ports"
            ))),
            _ => Ok(()),
        }
    }
}
