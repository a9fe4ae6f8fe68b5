// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Files that only the platform may read: an age identity, a token, a private CA.
//!
//! The engine asks by name and never opens such a file by path: in the node plugin the warden opens it and passes the
//! descriptor, elsewhere it is a folder.

use async_trait::async_trait;

use crate::error::Error;
use crate::secret::SecretBytes;

/// Where credentials files come from.
#[async_trait]
pub trait CredentialFiles: Send + Sync {
    /// The file's present contents. Asking again after a change answers the new contents; asking when nothing changed
    /// is cheap.
    ///
    /// # Errors
    /// [`Kind::Missing`](crate::error::Kind::Missing) or [`Kind::Internal`](crate::error::Kind::Internal), with the name
    /// and the folder to look in.
    async fn read(&self, name: &str) -> Result<SecretBytes, Error>;
}
