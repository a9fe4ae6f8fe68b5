// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! PKCS #12 (RFC 7292): a private key with its certificates in one file under a password, as Java, .NET and OpenSSL 3 write
//! it today: PBES2 with PBKDF2-HMAC-SHA256 and AES-256-CBC, under an HMAC-SHA256 (decision 0027).
//!
//! The same contents are the same bytes, on every node and after every restart: what has to be random for others is drawn
//! from the private key. So a refresh that brought nothing new writes nothing new.

use std::num::NonZeroU32;

use aes::Aes256;
use aes::cipher::{Block, BlockEncrypt as _, KeyInit as _};
use ring::{digest, hmac, pbkdf2};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::render::der::{self, around, instead, integer, value};
use crate::render::key_pair::KeyPair;
use crate::secret::SecretBytes;

/// The password where the class names none: what the whole world of Java takes for one.
pub(super) const DEFAULT_PASSWORD: &[u8] = b"changeit";
/// What a key store's user calls the one entry.
const ALIAS: &str = "certificate";
/// As many as Java takes: a key of 256 bits would need none, and a password that is not one gains little by more.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(10_000).expect("it is not zero");
const SALT: usize = 16;
const BLOCK: usize = 16;

// Object identifiers, as they are encoded.
const AES_256_CBC: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
const HMAC_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x09];
const PBKDF2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c];
const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
const ENCRYPTED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x06];
const FRIENDLY_NAME: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x14];
const LOCAL_KEY_ID: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x15];
const X509_CERTIFICATE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x16, 0x01];
const SHROUDED_KEY_BAG: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x02];
const CERTIFICATE_BAG: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x03];

type Bytes = Zeroizing<Vec<u8>>;

/// Checks that every reader takes `password` for the same one.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) where one would not.
pub(super) fn check_password(password: &[u8]) -> Result<(), Error> {
    if password.is_empty() {
        return Err(Error::invalid("is empty, and Java opens no key store without a password: store one"));
    }
    if !password.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return Err(Error::invalid(
            "holds something else than the printable characters of ASCII (a line end, perhaps), which Java takes for no \
             password: store it without",
        ));
    }
    Ok(())
}

/// The key store.
pub(super) fn write(pair: &KeyPair, password: &[u8]) -> SecretBytes {
    let drawn = Drawn::of(pair, password);
    let cipher = Pbes2::new(password, drawn.salt);

    let leaf = pair.chain.first().map_or(&[][..], |it| it.der());
    let id = digest::digest(&digest::SHA256, leaf);
    let name = big_endian(ALIAS.as_bytes());
    // In the order of their bytes, as a set is.
    let ours = [
        attribute(FRIENDLY_NAME, &value(der::BMP_STRING, &[&name])),
        attribute(LOCAL_KEY_ID, &value(der::OCTET_STRING, &[id.as_ref()])),
    ];

    let encrypted = cipher.encrypt(pair.key.pkcs8(), drawn.key_iv);
    let key = value(der::SEQUENCE, &[&cipher.algorithm(drawn.key_iv), &value(der::OCTET_STRING, &[&encrypted])]);
    let keys = value(der::SEQUENCE, &[&bag(SHROUDED_KEY_BAG, &key, &ours)]);

    let certificates = pair.chain.iter().enumerate().map(|(place, certificate)| {
        let certificate = value(around(0), &[&value(der::OCTET_STRING, &[certificate.der()])]);
        let certificate = value(der::SEQUENCE, &[&object(X509_CERTIFICATE), &certificate]);
        bag(CERTIFICATE_BAG, &certificate, if place == 0 { &ours } else { &[] })
    });
    let certificates = sequence(&certificates.collect::<Vec<_>>());
    let encrypted = cipher.encrypt(&certificates, drawn.certificates_iv);
    let encrypted = value(
        der::SEQUENCE,
        &[&object(DATA), &cipher.algorithm(drawn.certificates_iv), &value(instead(0), &[&encrypted])],
    );
    let encrypted = value(der::SEQUENCE, &[&integer(0), &encrypted]);
    let encrypted = value(der::SEQUENCE, &[&object(ENCRYPTED_DATA), &value(around(0), &[&encrypted])]);

    let contents = value(der::SEQUENCE, &[&encrypted, &data(&keys)]);
    let mac = mac(&contents, password, drawn.mac_salt);
    SecretBytes::from(value(der::SEQUENCE, &[&integer(3), &data(&contents), &mac]).as_slice())
}

/// What is random elsewhere.
struct Drawn {
    salt: [u8; SALT],
    mac_salt: [u8; SALT],
    key_iv: [u8; BLOCK],
    certificates_iv: [u8; BLOCK],
}

impl Drawn {
    /// By an HMAC under the private key over everything that goes into the file: whoever does not have the key cannot tell it
    /// from random, and whoever has it has no use for what it hides. Another key, certificate or password is another draw.
    fn of(pair: &KeyPair, password: &[u8]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, pair.key.pkcs8());
        let draw = |what: &[u8]| {
            let mut context = hmac::Context::with_key(&key);
            for part in [what, password].into_iter().chain(pair.chain.iter().map(|it| it.der())) {
                context.update(&(part.len() as u64).to_le_bytes());
                context.update(part);
            }
            let mut drawn = [0; 16];
            drawn.copy_from_slice(&context.sign().as_ref()[..16]);
            drawn
        };
        Self {
            salt: draw(b"evanesce pkcs12 salt"),
            mac_salt: draw(b"evanesce pkcs12 mac salt"),
            key_iv: draw(b"evanesce pkcs12 key iv"),
            certificates_iv: draw(b"evanesce pkcs12 certificates iv"),
        }
    }
}

/// Encryption under a password (RFC 8018). Key and certificates share the salt, and so the derived key, and differ in their
/// initialisation vectors: one derivation is half the time of two.
struct Pbes2 {
    salt: [u8; SALT],
    cipher: Aes256,
}

impl Pbes2 {
    fn new(password: &[u8], salt: [u8; SALT]) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, &salt, password, &mut *key);
        Self { salt, cipher: Aes256::new((&*key).into()) }
    }

    /// In one buffer, where what is encrypted takes the place of what was not.
    fn encrypt(&self, plain: &[u8], iv: [u8; BLOCK]) -> Bytes {
        let padding = BLOCK - plain.len() % BLOCK;
        let mut buffer = Zeroizing::new(Vec::with_capacity(plain.len() + padding));
        buffer.extend_from_slice(plain);
        // From 1 to 16.
        buffer.resize(plain.len() + padding, padding as u8);
        let mut before = iv;
        for block in buffer.chunks_exact_mut(BLOCK) {
            block.iter_mut().zip(before).for_each(|(byte, before)| *byte ^= before);
            self.cipher.encrypt_block(Block::<Aes256>::from_mut_slice(block));
            before.copy_from_slice(block);
        }
        buffer
    }

    fn algorithm(&self, iv: [u8; BLOCK]) -> Bytes {
        let salt = value(der::OCTET_STRING, &[&self.salt]);
        let function = algorithm(HMAC_SHA256, &value(der::NULL, &[]));
        let derivation = algorithm(PBKDF2, &value(der::SEQUENCE, &[&salt, &integer(ITERATIONS.get()), &function]));
        let encryption = algorithm(AES_256_CBC, &value(der::OCTET_STRING, &[&iv]));
        algorithm(PBES2, &value(der::SEQUENCE, &[&derivation, &encryption]))
    }
}

/// The seal of the whole: an HMAC whose key is made from the password in the format's own way.
fn mac(contents: &[u8], password: &[u8], salt: [u8; SALT]) -> Bytes {
    let key = mac_key(password, &salt);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &*key), contents);
    let info = [algorithm(SHA256, &value(der::NULL, &[])), value(der::OCTET_STRING, &[tag.as_ref()])];
    let salt = value(der::OCTET_STRING, &[&salt]);
    value(der::SEQUENCE, &[&sequence(&info), &salt, &integer(ITERATIONS.get())])
}

/// RFC 7292, appendix B.2, for 32 bytes with purpose 3 by SHA-256: one round, whose result is the key.
fn mac_key(password: &[u8], salt: &[u8]) -> Zeroizing<[u8; 32]> {
    const PURPOSE: u8 = 3;
    let block = digest::SHA256.block_len();
    let mut password = big_endian(password);
    password.extend([0, 0]);
    let filled = |part: &[u8]| part.len().next_multiple_of(block);
    let mut input = Zeroizing::new(Vec::with_capacity(block + filled(salt) + filled(&password)));
    input.resize(block, PURPOSE);
    for part in [salt, &password] {
        input.extend(part.iter().cycle().take(filled(part)));
    }
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(digest::digest(&digest::SHA256, &input).as_ref());
    for _ in 1..ITERATIONS.get() {
        let next = digest::digest(&digest::SHA256, &*key);
        key.copy_from_slice(next.as_ref());
    }
    key
}

/// ASCII as UTF-16, with room for the two bytes that end it.
fn big_endian(ascii: &[u8]) -> Bytes {
    let mut wide = Zeroizing::new(Vec::with_capacity(2 * ascii.len() + 2));
    ascii.iter().for_each(|byte| wide.extend([0, *byte]));
    wide
}

fn object(identifier: &[u8]) -> Bytes {
    value(der::OBJECT, &[identifier])
}

fn algorithm(identifier: &[u8], parameters: &[u8]) -> Bytes {
    value(der::SEQUENCE, &[&object(identifier), parameters])
}

fn sequence(parts: &[Bytes]) -> Bytes {
    value(der::SEQUENCE, &slices(parts))
}

fn slices(parts: &[Bytes]) -> Vec<&[u8]> {
    parts.iter().map(|part| part.as_slice()).collect()
}

/// Contents that are not encrypted as such.
fn data(contents: &[u8]) -> Bytes {
    let contents = value(around(0), &[&value(der::OCTET_STRING, &[contents])]);
    value(der::SEQUENCE, &[&object(DATA), &contents])
}

fn attribute(identifier: &[u8], of: &[u8]) -> Bytes {
    value(der::SEQUENCE, &[&object(identifier), &value(der::SET, &[of])])
}

/// One thing in the store.
fn bag(kind: &[u8], contents: &[u8], attributes: &[Bytes]) -> Bytes {
    let attributes = match attributes {
        [] => Bytes::default(),
        some => value(der::SET, &slices(some)),
    };
    value(der::SEQUENCE, &[&object(kind), &value(around(0), &[contents]), &attributes])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_seal_is_made_as_the_standard_says() {
        // By `openssl kdf -keylen 32 … PKCS12KDF`, with the same digest, password, salt, purpose and count.
        let key = mac_key(b"changeit", b"0123456789abcdef");
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "890a9b04d27bec935b9c99d4771b66f67197fdd20c650acce315d6596df54293");
    }

    #[test]
    fn a_password_that_java_would_take_for_another_is_refused() {
        for bad in [&b""[..], b"abc\n", b"p\xc3\xa4ss", b"a\0", b"\x7f"] {
            assert!(check_password(bad).is_err(), "{bad:?}");
        }
        for good in [&b"x"[..], b"changeit", b" ~!\"$&'"] {
            assert!(check_password(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn what_is_encrypted_is_padded_by_one_to_sixteen_bytes_and_takes_the_place_of_what_was_not() {
        let cipher = Pbes2::new(b"changeit", [7; SALT]);
        for length in [0, 1, 15, 16, 17] {
            let encrypted = cipher.encrypt(&vec![1; length], [0; BLOCK]);
            assert_eq!((encrypted.len(), encrypted.capacity()), (length / 16 * 16 + 16, encrypted.len()));
        }
    }
}
