// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Secrets that have to lie on a disk, sealed with a key that no reboot survives.
//!
//! AES-256-GCM under a key derived from the node's, which is on a tmpfs and new with every boot (decision 0024). Pure:
//! where the sealed bytes lie, and whose key it is, the program knows.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::secret::SecretBytes;

/// What the key is for, so that no other use of the node's key comes to the same one.
const INFO: &[u8] = b"evanesce lease journal v1";

/// The first byte of what this build seals; it stands for all that follows: key derivation, cipher, order.
const VERSION: u8 = 1;

/// Seals and opens. Cannot be printed or copied, and is wiped.
///
/// Nonces are random: safe for 2³² seals under one key (NIST SP 800-38D, 8.3), which is a thousand a second for seven
/// weeks.
pub struct SealingKey(Zeroizing<[u8; 32]>);

/// Why sealed bytes do not open. No cipher tells the first reason from the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsealable {
    /// They were sealed before the node's last boot or under another name, or are not what was written.
    #[error("it was sealed with another key, such as before a reboot, or is damaged")]
    OtherKeyOrDamaged,
    /// A newer build sealed them.
    #[error("it has version {0} and this build knows {VERSION}")]
    Version(u8),
}

impl SealingKey {
    /// Derives the key (HKDF-SHA-256, RFC 5869) from the node's.
    #[must_use]
    pub fn derive(node: &[u8; 32]) -> Self {
        let derived = Salt::new(HKDF_SHA256, &[]).extract(node);
        let mut key = Zeroizing::new([0; 32]);
        let filled = derived.expand(&[INFO], &AES_256_GCM).and_then(|okm| okm.fill(key.as_mut_slice()));
        filled.expect("invariant: HKDF gives as many bytes as the cipher's key has");
        Self(key)
    }

    /// Seals `plain` under `name`: version, nonce, ciphertext, tag.
    ///
    /// # Errors
    /// When the kernel has no randomness.
    pub fn seal(&self, plain: &SecretBytes, name: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = |_| Error::internal("a lease's login cannot be sealed");
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(failed)?;
        // All of it from the start: growth would leave a copy behind. What is plain is overwritten in its place.
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain.expose());
        let (_, body) = sealed.split_at_mut(1 + NONCE_LEN);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.cipher().seal_in_place_separate_tag(nonce, Aad::from(name), body).map_err(failed)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Opens what was sealed under `name` with this key.
    ///
    /// # Errors
    /// [`Unsealable`].
    pub fn open(&self, sealed: &[u8], name: &[u8]) -> Result<SecretBytes, Unsealable> {
        const NOT_OURS: Unsealable = Unsealable::OtherKeyOrDamaged;
        match sealed.split_first() {
            None => Err(NOT_OURS),
            Some((&VERSION, rest)) => {
                let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(NOT_OURS)?;
                let nonce = Nonce::assume_unique_for_key(*nonce);
                let mut body = Zeroizing::new(body.to_vec());
                let opened = self.cipher().open_in_place(nonce, Aad::from(name), &mut body);
                let plain = opened.map_err(|_| NOT_OURS)?;
                Ok(SecretBytes::from(&*plain))
            }
            Some((&version, _)) => Err(Unsealable::Version(version)),
        }
    }

    /// Made anew for each use: ring's own keys are not wiped, so none is kept.
    fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, self.0.as_slice());
        LessSafeKey::new(key.expect("invariant: the key has the cipher's length"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    const NAME: &[u8] = b"000102030405060708090a0b0c0d0eff";

    /// What the first build sealed with a node's key of sevens, written down from another implementation: an update of the
    /// plugin on a node that runs must not make its journal unreadable.
    const FIRST: &str = "01000102030405060708090a0bf629bcfead67be6d7dcee5ac0b3651b271f7dd6aa1f590e1";

    fn key(node: u8) -> SealingKey {
        SealingKey::derive(&[node; 32])
    }

    fn why(opened: Result<SecretBytes, Unsealable>) -> Option<Unsealable> {
        opened.err()
    }

    #[test]
    fn what_the_first_build_sealed_is_opened_for_ever() {
        let sealed: Vec<u8> = FIRST
            .as_bytes()
            .chunks(2)
            .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap())
            .collect();
        assert_eq!(key(7).open(&sealed, NAME).ok().unwrap().expose(), b"s.canary");
    }

    #[test]
    fn what_a_newer_build_sealed_is_told_from_what_is_damaged() {
        let mut sealed = key(7).seal(&SecretBytes::from(&b"s.canary"[..]), NAME).unwrap();
        sealed[0] = 2;
        assert_eq!(why(key(7).open(&sealed, NAME)), Some(Unsealable::Version(2)));
        for cut in [&[][..], &[1], &[1; 13], &[1; 28]] {
            assert_eq!(why(key(7).open(cut, NAME)), Some(Unsealable::OtherKeyOrDamaged));
        }
    }

    #[test]
    fn nothing_is_sealed_alike_twice() {
        let seal = || key(7).seal(&SecretBytes::from(&b"s.canary"[..]), NAME).unwrap();
        let (one, other) = (seal(), seal());
        assert_ne!(one[..13], other[..13], "a nonce");
        assert_ne!(one[13..], other[13..]);
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_with_the_same_key_and_name_alone(
            plain in proptest::collection::vec(any::<u8>(), 0..2048),
            node in any::<[u8; 32]>(),
            other_node in any::<[u8; 32]>(),
            name in any::<[u8; 16]>(),
            other_name in any::<[u8; 16]>(),
        ) {
            let key = SealingKey::derive(&node);
            let sealed = key.seal(&SecretBytes::from(plain.as_slice()), &name).unwrap();
            prop_assert!(key.open(&sealed, &name).ok().unwrap().expose() == plain);
            prop_assert!(plain.len() < 4 || !sealed.windows(plain.len()).any(|window| window == plain));
            if other_name != name {
                prop_assert_eq!(why(key.open(&sealed, &other_name)), Some(Unsealable::OtherKeyOrDamaged));
            }
            if other_node != node {
                let after_a_reboot = SealingKey::derive(&other_node);
                prop_assert_eq!(why(after_a_reboot.open(&sealed, &name)), Some(Unsealable::OtherKeyOrDamaged));
            }
        }

        #[test]
        fn any_bit_that_flips_and_any_byte_that_is_missing_is_noticed(
            plain in proptest::collection::vec(any::<u8>(), 0..256),
            at in any::<prop::sample::Index>(),
            bit in 0..8u8,
        ) {
            let sealed = key(7).seal(&SecretBytes::from(plain.as_slice()), NAME).unwrap();
            let mut flipped = sealed.clone();
            *at.get_mut(&mut flipped) ^= 1 << bit;
            prop_assert!(key(7).open(&flipped, NAME).is_err());
            prop_assert!(key(7).open(&sealed[..at.index(sealed.len())], NAME).is_err());
            prop_assert!(key(7).open(&[&sealed[..], &[0]].concat(), NAME).is_err());
        }
    }
}
