// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Where values that must live are kept: tokens between republishes, cached answers.
//!
//! The program brings the place (the node plugin an arena of `memfd_secret`); this crate only says what it needs of one.

use crate::error::Error;
use crate::secret::SecretBytes;

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
