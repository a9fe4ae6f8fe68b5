// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What a backend answers: values that wipe themselves.
//!
//! [`SecretBytes`] has no `Debug`, `Display`, `Clone`, `Serialize` or `PartialEq`: it can be moved, read through
//! [`SecretBytes::expose`] and dropped, nothing else. Copies that parsers and TLS make are wiped by the zero-on-free
//! allocator that every binary installs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

/// Bytes that are wiped when dropped and that nothing can print.
pub struct SecretBytes(Zeroizing<Box<[u8]>>);

impl SecretBytes {
    /// Takes the bytes over. A vector with spare capacity is copied once; the old block is wiped by the allocator.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes.into_boxed_slice()))
    }

    /// The bytes, for as long as one use needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&[u8]> for SecretBytes {
    fn from(bytes: &[u8]) -> Self {
        Self::new(bytes.to_vec())
    }
}

/// One value of a secret, with what it is when the whole secret is written as JSON.
pub struct Value {
    /// The value as a file holds it: text without quotes, other JSON as its text, binary as it is.
    pub bytes: SecretBytes,
    /// How the value reads in JSON.
    pub kind: ValueKind,
}

/// How a value reads in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// Not text: base64 in JSON.
    Binary,
    /// A number, boolean, null, list or object: its own JSON text.
    Json,
    /// A string.
    Text,
}

/// What a backend answers for one [`SecretRef`](crate::secret_ref::SecretRef).
pub struct Secret {
    /// The values by key, in the keys' order.
    pub values: BTreeMap<String, Value>,
    /// The backend's version of these values; absent where the backend has none.
    pub version: Option<Version>,
    /// The backend's promise with an end; absent for static secrets.
    pub lease: Option<Lease>,
    /// When the values stop being valid without a lease (certificates, cloud tokens).
    pub expires_at: Option<SystemTime>,
    /// When the backend replaces the values by itself (a static role); absent where nobody does, or nobody says when.
    pub rotates_in: Option<Duration>,
    /// The backend's own name for the request, to join its log with ours; never a secret.
    pub request_id: Option<String>,
}

/// A backend's version of a secret: opaque, printable, comparable. Never derived from a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Version(Arc<str>);

impl Version {
    /// Wraps the backend's own text or number.
    pub fn new(version: impl fmt::Display) -> Self {
        Self(version.to_string().into())
    }

    /// The version as the backend writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A backend's promise with an end. The id lets its holder renew or revoke, so it is a secret.
pub struct Lease {
    /// Opaque id, to renew or revoke with.
    pub id: SecretBytes,
    /// How long the promise lasts from the answer on.
    pub duration: Duration,
    /// Whether the backend renews it.
    pub renewable: bool,
}
