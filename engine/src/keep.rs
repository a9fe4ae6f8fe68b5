// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Where values that must live are kept: tokens between republishes, cached answers.
//!
//! The program brings the place (the node plugin an arena of `memfd_secret`); this crate only says what it needs of one.

use std::ops::Range;
use std::time::SystemTime;

use crate::error::Error;
use crate::secret::{Secret, SecretBytes, Value, ValueKind, Version};

/// A place for values that outlive a call.
pub trait Keep: Send + Sync {
    /// Moves the value in; [`Kind::Exhausted`](crate::error::Kind::Exhausted) when the place is full.
    fn keep(&self, value: SecretBytes) -> Result<Box<dyn Kept>, Error>;
}

/// A kept value; dropping it wipes it.
pub trait Kept: Send + Sync {
    /// The value, for as long as one use needs it.
    fn expose(&self) -> &[u8];
}

/// Keeps values on the heap: for the command line and for tests. The zero-on-free allocator wipes them.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeapKeep;

impl Keep for HeapKeep {
    fn keep(&self, value: SecretBytes) -> Result<Box<dyn Kept>, Error> {
        Ok(Box::new(value))
    }
}

impl Kept for SecretBytes {
    fn expose(&self) -> &[u8] {
        Self::expose(self)
    }
}

/// A secret whose values lie in one kept block; names of keys and versions lie on the heap. Its lease is not kept.
pub(crate) struct KeptSecret {
    values: Vec<(String, ValueKind, Range<usize>)>,
    bytes: Box<dyn Kept>,
    version: Option<Version>,
    expires_at: Option<SystemTime>,
    request_id: Option<String>,
}

impl KeptSecret {
    /// Copies the values.
    pub(crate) fn keep(place: &dyn Keep, secret: &Secret) -> Result<Self, Error> {
        let mut block = Vec::with_capacity(size(secret));
        let values = secret.values.iter().map(|(key, value)| {
            let start = block.len();
            block.extend_from_slice(value.bytes.expose());
            (key.clone(), value.kind, start..block.len())
        });
        let values = values.collect();
        Ok(Self {
            values,
            bytes: place.keep(SecretBytes::new(block))?,
            version: secret.version.clone(),
            expires_at: secret.expires_at,
            request_id: secret.request_id.clone(),
        })
    }

    /// How many bytes of values it keeps.
    pub(crate) fn size(&self) -> usize {
        self.bytes.expose().len()
    }

    /// The secret as it was answered, but for its lease.
    pub(crate) fn secret(&self) -> Secret {
        let bytes = self.bytes.expose();
        let value = |(key, kind, place): &(String, ValueKind, Range<usize>)| {
            let bytes = bytes.get(place.clone()).unwrap_or_default();
            (key.clone(), Value { bytes: SecretBytes::from(bytes), kind: *kind })
        };
        Secret {
            values: self.values.iter().map(value).collect(),
            version: self.version.clone(),
            lease: None,
            expires_at: self.expires_at,
            rotates_in: None,
            request_id: self.request_id.clone(),
        }
    }
}

/// How many bytes of values a secret has.
pub(crate) fn size(secret: &Secret) -> usize {
    secret.values.values().map(|value| value.bytes.len()).sum()
}
