// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What of an X.509 certificate (RFC 5280) says to whom and to what it belongs: its issuer, its subject, its public key.

use zeroize::Zeroizing;

use crate::render::der::{self, Reader};

/// A certificate: no secret, but it came with one.
pub(super) struct Certificate {
    der: Zeroizing<Vec<u8>>,
    /// Who issued it.
    pub(super) issuer: Vec<u8>,
    /// Whose it is.
    pub(super) subject: Vec<u8>,
    /// The key in it, without what kind of key that is.
    pub(super) public_key: Vec<u8>,
}

impl Certificate {
    /// Takes one apart; `None` where it is none.
    pub(super) fn parse(der: Zeroizing<Vec<u8>>) -> Option<Self> {
        let mut signed = Reader(Reader::within(&der, der::SEQUENCE)?.take(der::SEQUENCE)?.body);
        let _version = signed.take(der::around(0));
        let _serial = signed.take(der::INTEGER)?;
        let _signature = signed.take(der::SEQUENCE)?;
        let issuer = signed.take(der::SEQUENCE)?.whole.to_vec();
        let _validity = signed.take(der::SEQUENCE)?;
        let subject = signed.take(der::SEQUENCE)?.whole.to_vec();
        let mut public = Reader(signed.take(der::SEQUENCE)?.body);
        let _algorithm = public.take(der::SEQUENCE)?;
        // Before the bits stands how many of the last byte are none.
        let public_key = public.take(der::BIT_STRING)?.body.get(1..)?.to_vec();
        Some(Self { issuer, subject, public_key, der })
    }

    /// All of it.
    pub(super) fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whether nobody stands above it.
    pub(super) fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }
}
