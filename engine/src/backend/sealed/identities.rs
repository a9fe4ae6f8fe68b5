// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! age's X25519 keys: identities open, recipients seal. Files of both are as age's own tools write them: one to a line,
//! empty lines and lines that begin with `#` aside.

use age::secrecy::ExposeSecret as _;
use age::x25519;

use crate::error::Error;
use crate::secret::SecretBytes;

/// Keys that open; they wipe themselves and nothing can print them.
pub struct Identities(pub(super) Vec<x25519::Identity>);

impl Identities {
    /// Reads a file of identities.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) with the line that is wrong, never with what is in it.
    pub fn parse(file: &[u8]) -> Result<Self, Error> {
        let identity = |(number, line): (usize, &str)| {
            line.parse::<x25519::Identity>().map_err(|_| {
                Error::invalid(format!("line {number} is not an X25519 identity: expected AGE-SECRET-KEY-1…"))
            })
        };
        let identities = lines(file)?.map(identity).collect::<Result<Vec<_>, _>>()?;
        if identities.is_empty() {
            return Err(Error::invalid("holds no identity: make one with 'evanesce keygen'"));
        }
        Ok(Self(identities))
    }
}

impl FromIterator<Self> for Identities {
    /// All of them together.
    fn from_iter<T: IntoIterator<Item = Self>>(files: T) -> Self {
        Self(files.into_iter().flat_map(|identities| identities.0).collect())
    }
}

/// Keys that seal; whoever has an identity of any of them can open.
pub struct Recipients(pub(super) Vec<x25519::Recipient>);

impl Recipients {
    /// Reads recipients from arguments and from the contents of files.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) with what is wrong; also where there are none.
    pub fn parse<'a>(
        given: impl IntoIterator<Item = &'a str>,
        files: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, Error> {
        const FORM: &str = "is not an X25519 recipient: expected age1…";
        let mut recipients = Vec::new();
        for text in given {
            // Somebody who confuses the two must not find the secret half in a log.
            recipients.push(text.trim().parse().map_err(|_| Error::invalid(format!("a --recipient {FORM}")))?);
        }
        for file in files {
            for (number, line) in lines(file)? {
                recipients.push(line.parse().map_err(|_| Error::invalid(format!("line {number} {FORM}")))?);
            }
        }
        if recipients.is_empty() {
            return Err(Error::invalid("no recipient: whose identity is to open the file?"));
        }
        Ok(Self(recipients))
    }
}

/// A new identity, as its text, and the recipient that belongs to it.
pub fn new_identity() -> (SecretBytes, String) {
    let identity = x25519::Identity::generate();
    let text = identity.to_string();
    (SecretBytes::from(text.expose_secret().as_bytes()), identity.to_public().to_string())
}

/// The lines that say something, with their numbers.
fn lines(file: &[u8]) -> Result<impl Iterator<Item = (usize, &str)>, Error> {
    let text = std::str::from_utf8(file).map_err(|_| Error::invalid("is not text"))?;
    let says = |(_, line): &(usize, &str)| !line.is_empty() && !line.starts_with('#');
    Ok(text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())).filter(says))
}
