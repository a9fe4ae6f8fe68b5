// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! YAML documents: several to a file, each one class.

use crate::error::Error;
use crate::names::{Namespace, VolumeClassName};
use crate::spec::{BackendSpec, VolumeSpec};

/// One class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// A `SecretBackend`.
    Backend(BackendSpec),
    /// A `SecretVolume`.
    Volume {
        /// Its namespace.
        namespace: Namespace,
        /// Its name.
        name: VolumeClassName,
        /// What it says.
        spec: VolumeSpec,
    },
}

/// The classes of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Documents(pub Vec<Document>);

impl Documents {
    /// Reads every document of `text`.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) with field, line and the nearest known key.
    pub fn parse(_text: &str) -> Result<Self, Error> {
        Err(Error::invalid("not built yet"))
    }
}
