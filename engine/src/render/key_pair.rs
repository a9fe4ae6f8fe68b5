// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A secret that is a private key with its certificate: which of its values are which, and what belongs to what.
//!
//! Nothing is trusted or refused by what a certificate promises (names, dates, signatures): that is for whoever is shown
//! it. But a certificate of another key would stop the application that reads it, so a pair is a pair or an error.

use std::str;

use crate::error::Error;
use crate::render::certificate::Certificate;
use crate::render::pem;
use crate::render::private_key::PrivateKey;
use crate::secret::{Secret, SecretBytes, Value, ValueKind};

/// What the values of such a secret are called.
struct Names {
    certificate: &'static str,
    key: &'static str,
    /// Certificates of authorities, in the order in which they are looked through.
    authorities: &'static [&'static str],
    /// Where a key is that is not there.
    cure: &'static str,
}

/// Those of OpenBao's and HashiCorp Vault's PKI engine, then those of Kubernetes.
const NAMES: [Names; 2] = [
    Names {
        certificate: "certificate",
        key: "private_key",
        authorities: &["ca_chain", "issuing_ca"],
        cure: "pki/issue answers both, pki/sign and pki/cert do not",
    },
    Names {
        certificate: "tls.crt",
        key: "tls.key",
        authorities: &["ca.crt"],
        cure: "store both in one secret, as a Kubernetes TLS Secret has them",
    },
];

/// A private key, its certificate, and those that lead from it to its authority.
pub(super) struct KeyPair {
    /// The key.
    pub(super) key: PrivateKey,
    /// Its certificate, then that of its issuer, and so on; without the authority's own, which whoever trusts it has.
    pub(super) chain: Vec<Certificate>,
}

impl KeyPair {
    /// Finds it.
    ///
    /// # Errors
    /// [`Kind::Missing`](crate::error::Kind::Missing) with the key of the secret that is not there,
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) with the one that holds something else.
    pub(super) fn of(secret: &Secret) -> Result<Self, Error> {
        let has = |key: &str| secret.values.contains_key(key);
        let Some(names) = NAMES.iter().find(|names| has(names.certificate) || has(names.key)) else {
            let [bao, kubernetes] = &NAMES;
            return Err(Error::missing(format!(
                "there is neither \"{}\" with \"{}\" nor \"{}\" with \"{}\": only a certificate with its key has this format",
                bao.certificate, bao.key, kubernetes.certificate, kubernetes.key
            )));
        };
        let find = |key: &'static str, other: &str| {
            secret
                .values
                .get(key)
                .ok_or_else(|| Error::missing(format!("there is no key \"{key}\" beside \"{other}\": {}", names.cure)))
        };
        let certificate = find(names.certificate, names.key)?;
        let key = find(names.key, names.certificate)?;
        let key = PrivateKey::parse(text(key, names.key)?).map_err(|error| error.context(quoted(names.key)))?;
        let mut given = Vec::new();
        certificates(text(certificate, names.certificate)?, names.certificate, &mut given)?;
        for &name in names.authorities {
            let Some(value) = secret.values.get(name) else { continue };
            match value.kind {
                ValueKind::Json => {
                    let list = serde_json::from_slice::<Option<Vec<String>>>(value.bytes.expose());
                    let list = list.map_err(|_| wrong(name, "is no list of PEM certificates"))?;
                    for one in list.unwrap_or_default() {
                        certificates(&one, name, &mut given)?;
                    }
                }
                _ if value.bytes.is_empty() => {}
                _ => certificates(text(value, name)?, name, &mut given)?,
            }
        }
        let chain = chain(given);
        let belongs = |leaf: &Certificate| key.public_half().is_none_or(|public| *public == leaf.public_key);
        if !chain.first().is_some_and(belongs) {
            return Err(wrong(
                names.certificate,
                &format!(
                    "is the certificate of another key than \"{}\": store the two that belong together",
                    names.key
                ),
            ));
        }
        Ok(Self { key, chain })
    }

    /// As one PEM file: the certificate, those that lead to its authority, the key.
    pub(super) fn pem_bundle(&self) -> SecretBytes {
        let certificates = self.chain.iter().map(|it| (pem::CERTIFICATE, it.der()));
        let blocks: Vec<_> = certificates.chain([(PrivateKey::LABEL, self.key.pkcs8())]).collect();
        let length = blocks.iter().map(|(label, der)| pem::length(label, der.len())).sum();
        let mut file = Vec::with_capacity(length);
        blocks.iter().for_each(|(label, der)| pem::push(&mut file, label, der));
        SecretBytes::new(file)
    }
}

/// The first, whoever issued it, whoever issued that, and so on.
fn chain(given: Vec<Certificate>) -> Vec<Certificate> {
    let mut given = given.into_iter();
    let mut chain: Vec<_> = given.next().into_iter().collect();
    let mut left: Vec<_> = given.filter(|it| !it.is_self_issued()).collect();
    while let Some(last) = chain.last()
        && let Some(next) = left.iter().position(|it| it.subject == last.issuer)
    {
        chain.push(left.remove(next));
    }
    chain
}

/// Adds the certificates of a PEM text.
fn certificates(pem: &str, name: &str, to: &mut Vec<Certificate>) -> Result<(), Error> {
    let before = to.len();
    for block in pem::blocks(pem).filter(|block| block.label == pem::CERTIFICATE) {
        let certificate = block.decode().and_then(Certificate::parse);
        to.push(
            certificate.ok_or_else(|| wrong(name, "holds a certificate that cannot be read: store it again, whole"))?,
        );
    }
    if to.len() == before {
        let words = "holds no PEM certificate (-----BEGIN CERTIFICATE-----): a `format` in `from.args` has to be `pem`";
        return Err(wrong(name, words));
    }
    Ok(())
}

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str, Error> {
    str::from_utf8(value.bytes.expose()).map_err(|_| wrong(name, "is not text, and PEM is"))
}

fn wrong(name: &str, what: &str) -> Error {
    Error::invalid(format!("{} {what}", quoted(name)))
}

fn quoted(name: &str) -> String {
    format!("key \"{name}\"")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::error::Kind;
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair as Key};

    /// A root, an authority below it, a leaf, and the leaf's key.
    struct Made {
        root: String,
        authority: String,
        leaf: String,
        key: String,
    }

    fn made() -> Made {
        let named = |name: &str, is_ca: bool| {
            let mut params = CertificateParams::new([]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = if is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::NoCa };
            params
        };
        let [root_key, authority_key, key] = [(); 3].map(|()| Key::generate().unwrap());
        let root = Issuer::new(named("root", true), &root_key);
        let authority = Issuer::new(named("authority", true), &authority_key);
        Made {
            root: named("root", true).self_signed(&root_key).unwrap().pem(),
            authority: named("authority", true).signed_by(&authority_key, &root).unwrap().pem(),
            leaf: named("leaf", false).signed_by(&key, &authority).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn secret<'a>(values: impl IntoIterator<Item = (&'a str, String)>) -> Secret {
        let values = values.into_iter().map(|(key, text)| {
            let kind = if text.starts_with('[') || text == "null" { ValueKind::Json } else { ValueKind::Text };
            (key.to_owned(), Value { bytes: SecretBytes::new(text.into_bytes()), kind })
        });
        Secret {
            values: values.collect(),
            version: None,
            lease: None,
            expires_at: None,
            rotates_in: None,
            request_id: None,
        }
    }

    fn bundle<'a>(values: impl IntoIterator<Item = (&'a str, String)>) -> Result<String, Error> {
        let pair = KeyPair::of(&secret(values))?;
        Ok(String::from_utf8(pair.pem_bundle().expose().to_vec()).unwrap())
    }

    fn lines(text: &str) -> Vec<&str> {
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
    }

    #[test]
    fn the_certificate_comes_first_then_who_issued_it_then_the_key_whatever_the_values_are_called() {
        let Made { root, authority, leaf, key } = made();
        let expected = format!("{leaf}{authority}{key}");
        let list = |of: &[&String]| serde_json::to_string(of).unwrap();
        let bao = [("certificate", leaf.clone()), ("private_key", key.clone())];
        let kubernetes =
            |crt: String, ca: &str| [("tls.crt", crt), ("tls.key", key.clone()), ("ca.crt", ca.to_owned())];
        for written in [
            bundle(bao.clone().into_iter().chain([("ca_chain", list(&[&authority, &root]))])),
            bundle(
                bao.clone()
                    .into_iter()
                    .chain([("ca_chain", list(&[&root, &authority])), ("issuing_ca", authority.clone())]),
            ),
            bundle(bao.clone().into_iter().chain([("ca_chain", "null".to_owned()), ("issuing_ca", authority.clone())])),
            bundle(bao.clone().into_iter().chain([("issuing_ca", authority.replace('\n', "\r\n "))])),
            bundle(kubernetes(format!("{leaf}\n{authority}"), &root)),
            bundle(kubernetes(format!("{leaf}{root}{authority}{authority}"), "")),
            bundle(kubernetes(leaf.clone(), &format!("{root}{authority}"))),
            // With `format: pem_bundle` OpenBao puts all of it into one value too.
            bundle([("certificate", format!("{key}{leaf}{authority}")), ("private_key", key.clone())]),
        ] {
            assert_eq!(lines(&written.unwrap()), lines(&expected));
        }
        assert_eq!(lines(&bundle(bao).unwrap()), lines(&format!("{leaf}{key}")));
    }

    #[test]
    fn a_certificate_that_nobody_issued_stands_alone() {
        let key = Key::generate().unwrap();
        let leaf = CertificateParams::new([]).unwrap().self_signed(&key).unwrap().pem();
        let written = bundle([("tls.crt", leaf.clone()), ("tls.key", key.serialize_pem()), ("ca.crt", leaf.clone())]);
        assert_eq!(lines(&written.unwrap()), lines(&format!("{leaf}{}", key.serialize_pem())));
    }

    #[test]
    fn what_is_missing_or_something_else_is_named_with_its_cure() {
        let Made { leaf, key, .. } = made();
        let other = Key::generate().unwrap().serialize_pem();
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let cut = key.replacen("\n", "\nAAAA", 1);
        type Case<'a> = (&'a [(&'a str, &'a str)], Kind, &'a str);
        let cases: [Case<'_>; 10] = [
            (
                &[("password", "x")],
                Kind::Missing,
                "neither \"certificate\" with \"private_key\" nor \"tls.crt\" with \"tls.key\"",
            ),
            (
                &[("certificate", &leaf)],
                Kind::Missing,
                "no key \"private_key\" beside \"certificate\": pki/issue answers both",
            ),
            (&[("tls.key", &key)], Kind::Missing, "no key \"tls.crt\" beside \"tls.key\""),
            (
                &[("tls.crt", &leaf), ("tls.key", &other)],
                Kind::Invalid,
                "key \"tls.crt\" is the certificate of another key than \"tls.key\"",
            ),
            (
                &[("tls.crt", &leaf), ("tls.key", &encrypted)],
                Kind::Invalid,
                "key \"tls.key\": holds a private key with a passphrase",
            ),
            (&[("tls.crt", &leaf), ("tls.key", &leaf)], Kind::Invalid, "key \"tls.key\": holds no PEM private key"),
            (
                &[("tls.crt", &leaf), ("tls.key", &cut)],
                Kind::Invalid,
                "key \"tls.key\": holds a private key that cannot be read",
            ),
            (&[("tls.crt", &key), ("tls.key", &key)], Kind::Invalid, "key \"tls.crt\" holds no PEM certificate"),
            (&[("tls.crt", "MIIB"), ("tls.key", &key)], Kind::Invalid, "a `format` in `from.args` has to be `pem`"),
            (
                &[("certificate", &leaf), ("private_key", &key), ("ca_chain", "[1]")],
                Kind::Invalid,
                "key \"ca_chain\" is no list",
            ),
        ];
        for (values, kind, words) in cases {
            let error = bundle(values.iter().map(|&(key, text)| (key, text.to_owned()))).unwrap_err();
            assert!(error.kind() == kind && error.message().contains(words), "{words}: {error}");
            assert!(!error.message().contains("MII"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_at_all_stops_it(der in proptest::collection::vec(any::<u8>(), 0..80), at in 0..200usize, with: u8) {
            let pem = |label: &str, der: &[u8]| {
                let mut text = Vec::new();
                pem::push(&mut text, label, der);
                String::from_utf8(text).unwrap()
            };
            let Made { leaf, key, .. } = made();
            for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"] {
                let _ = bundle([("tls.crt", leaf.clone()), ("tls.key", pem(label, &der))]);
                let mut whole = pem::blocks(&key).next().unwrap().decode().unwrap();
                if let Some(byte) = whole.get_mut(at) { *byte = with; }
                let _ = bundle([("tls.crt", leaf.clone()), ("tls.key", pem(label, &whole))]);
            }
            let mut whole = pem::blocks(&leaf).next().unwrap().decode().unwrap();
            if let Some(byte) = whole.get_mut(at) { *byte = with; }
            let _ = bundle([("tls.crt", pem("CERTIFICATE", &whole)), ("tls.key", key.clone())]);
            let _ = bundle([("tls.crt", pem("CERTIFICATE", &der)), ("tls.key", key)]);
        }
    }
}
