// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A private key in any of the three PEM forms that tools write, as PKCS #8 (RFC 5208), which all of them read.

use zeroize::Zeroizing;

use crate::error::Error;
use crate::render::der::{self, Reader};
use crate::render::pem;

/// 1.2.840.113549.1.1.1
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// 1.2.840.10045.2.1
const ELLIPTIC_CURVE: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];

/// A private key.
pub(super) struct PrivateKey {
    pkcs8: Zeroizing<Vec<u8>>,
}

impl PrivateKey {
    /// What PEM calls it.
    pub(super) const LABEL: &str = "PRIVATE KEY";

    /// Reads the first private key of a PEM text.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) where there is none, or one that cannot be read.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        // `openssl ecparam` writes the curve before the key.
        let Some(block) = pem::blocks(text).find(|block| block.label.ends_with(Self::LABEL)) else {
            return Err(Error::invalid(
                "holds no PEM private key (-----BEGIN PRIVATE KEY-----): a `format` in `from.args` has to be `pem`",
            ));
        };
        if block.is_encrypted() {
            return Err(Error::invalid(
                "holds a private key with a passphrase, which nobody is there to type: store it without one",
            ));
        }
        let pkcs8 = block.decode().and_then(|der| match block.label {
            Self::LABEL => open(&der).is_some().then_some(der),
            "RSA PRIVATE KEY" => wrap_rsa(&der),
            "EC PRIVATE KEY" => wrap_ec(&der),
            _ => None,
        });
        pkcs8.map(|pkcs8| Self { pkcs8 }).ok_or_else(|| {
            Error::invalid(
                "holds a private key that cannot be read: store it whole, as PKCS #8 (-----BEGIN PRIVATE KEY-----)",
            )
        })
    }

    /// It, as PKCS #8 in DER.
    pub(super) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// What it says of its public half, as a certificate has it. Ed25519 says nothing, and a key on a curve need not.
    pub(super) fn public_half(&self) -> Option<Zeroizing<Vec<u8>>> {
        let (algorithm, key) = open(&self.pkcs8)?;
        let mut parts = Reader::within(key, der::SEQUENCE)?;
        let _version = parts.take(der::INTEGER)?;
        match algorithm {
            RSA => {
                let (modulus, exponent) = (parts.take(der::INTEGER)?, parts.take(der::INTEGER)?);
                Some(der::value(der::SEQUENCE, &[modulus.whole, exponent.whole]))
            }
            ELLIPTIC_CURVE => {
                let _private = parts.take(der::OCTET_STRING)?;
                let _curve = parts.take(der::around(0));
                let point = Reader(parts.take(der::around(1))?.body).take(der::BIT_STRING)?;
                Some(Zeroizing::new(point.body.get(1..)?.to_vec()))
            }
            _ => None,
        }
    }
}

/// The algorithm and the key of a PKCS #8 document.
fn open(pkcs8: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = Reader::within(pkcs8, der::SEQUENCE)?;
    let _version = parts.take(der::INTEGER)?;
    let algorithm = Reader(parts.take(der::SEQUENCE)?.body).take(der::OBJECT)?;
    Some((algorithm.body, parts.take(der::OCTET_STRING)?.body))
}

/// PKCS #1 and SEC 1 are the inner part of PKCS #8.
fn wrap(algorithm: &[u8], parameters: &[u8], key: &[u8]) -> Zeroizing<Vec<u8>> {
    let algorithm = der::value(der::OBJECT, &[algorithm]);
    let algorithm = der::value(der::SEQUENCE, &[&algorithm, parameters]);
    let key = der::value(der::OCTET_STRING, &[key]);
    der::value(der::SEQUENCE, &[&der::integer(0), &algorithm, &key])
}

fn wrap_rsa(key: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let _version = Reader::within(key, der::SEQUENCE)?.take(der::INTEGER)?;
    Some(wrap(RSA, &der::value(der::NULL, &[]), key))
}

/// The curve moves from the key to its algorithm.
fn wrap_ec(key: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut parts = Reader::within(key, der::SEQUENCE)?;
    let _version = parts.take(der::INTEGER)?;
    let _private = parts.take(der::OCTET_STRING)?;
    let curve = parts.take(der::around(0))?;
    Some(wrap(ELLIPTIC_CURVE, curve.body, key))
}
