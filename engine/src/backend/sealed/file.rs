// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! One sealed file: a YAML map of keys to values, encrypted as a whole.
//!
//! A value without quotes keeps its letters: `007` and `1.10` are delivered as written. In a secret's JSON a number or
//! boolean that JSON has too stays one; everything else is text. Lists and maps become their JSON.
//!
//! The text and the tree of its parts are freed when the values are out; what the parser copied on the way is wiped by
//! the zero-on-free allocator that every binary installs. No error quotes a value.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::{DecryptError, Decryptor, Encryptor};

use crate::backend::sealed::{Identities, Recipients};
use crate::error::Error;
use crate::secret::{SecretBytes, Value, ValueKind};
use crate::yaml::{self, Entry, Node, shown};

/// Longest key, in bytes: a file can be named after it.
const LONGEST_KEY: usize = 255;

/// Encrypts the YAML map `text` for `recipients`, after checking that it is one.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) with line and key of what is wrong, never with a value.
pub fn seal(text: &SecretBytes, recipients: &Recipients) -> Result<Vec<u8>, Error> {
    values(text)?;
    let failed = |_| Error::internal("age could not encrypt");
    let recipients = recipients.0.iter().map(|recipient| recipient as &dyn age::Recipient);
    let encryptor = Encryptor::with_recipients(recipients).map_err(|_| Error::internal("age took no recipient"))?;
    let armor = ArmoredWriter::wrap_output(Vec::new(), Format::AsciiArmor).map_err(failed)?;
    let mut writer = encryptor.wrap_output(armor).map_err(failed)?;
    writer.write_all(text.expose()).map_err(failed)?;
    writer.finish().and_then(ArmoredWriter::finish).map_err(failed)
}

/// Decrypts a sealed file, armored or not, into the YAML text that was sealed.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) with what to do.
pub fn unseal(sealed: &[u8], identities: &Identities) -> Result<SecretBytes, Error> {
    let explain = |error: DecryptError| match error {
        DecryptError::NoMatchingKeys => Error::invalid(
            "was not sealed for this identity: seal it again for its recipient, or add the identity it was sealed for",
        ),
        DecryptError::DecryptionFailed | DecryptError::InvalidMac | DecryptError::KeyDecryptionFailed => {
            Error::invalid("was changed after it was sealed: take it from its source again")
        }
        _ => Error::invalid("is not a sealed file: make one with 'evanesce seal'"),
    };
    let decryptor = Decryptor::new_buffered(ArmoredReader::new(sealed)).map_err(explain)?;
    if decryptor.is_scrypt() {
        return Err(Error::invalid("was encrypted with a passphrase: seal it for a recipient"));
    }
    let identities = identities.0.iter().map(|identity| identity as &dyn age::Identity);
    let mut text = Vec::with_capacity(sealed.len());
    let mut reader = decryptor.decrypt(identities).map_err(explain)?.take(yaml::LONGEST as u64 + 1);
    reader.read_to_end(&mut text).map_err(|_| explain(DecryptError::DecryptionFailed))?;
    Ok(SecretBytes::new(text))
}

/// The values of a secret's YAML text.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) with line and key of what is wrong, never with a value.
pub fn values(text: &SecretBytes) -> Result<BTreeMap<String, Value>, Error> {
    const FORM: &str = "a secret is one YAML map of keys to values";
    let text = std::str::from_utf8(text.expose()).map_err(|_| Error::invalid("a sealed secret is text in UTF-8"))?;
    let mut documents = yaml::read(text).map_err(|error| match error.at {
        Some(at) => Error::invalid(format!("{at}: {}", error.message)),
        None => Error::invalid(error.message),
    })?;
    let (Some(Node { value: yaml::Value::Map(entries), .. }), true) = (documents.pop(), documents.is_empty()) else {
        return Err(Error::invalid(FORM));
    };
    if entries.is_empty() {
        return Err(Error::invalid(format!("{FORM}, and this one is empty")));
    }
    entries.into_iter().map(|Entry { key, at, value }| value_of(&key, value, at).map(|value| (key, value))).collect()
}

fn value_of(key: &str, node: Node, at: yaml::Position) -> Result<Value, Error> {
    if key.is_empty() || key.len() > LONGEST_KEY || key.chars().any(char::is_control) {
        return Err(Error::invalid(format!("{at}: a key has 1 to {LONGEST_KEY} bytes and no control characters")));
    }
    let value = |bytes: Vec<u8>, kind| Value { bytes: SecretBytes::new(bytes), kind };
    Ok(match node.value {
        yaml::Value::Text(text) => value(text.into_bytes(), ValueKind::Text),
        yaml::Value::Bare(bare) => {
            let kind = if is_json(&bare) { ValueKind::Json } else { ValueKind::Text };
            value(bare.into_bytes(), kind)
        }
        yaml::Value::List(_) | yaml::Value::Map(_) => {
            let mut json = Vec::new();
            write_json(&node, &mut json);
            value(json, ValueKind::Json)
        }
        yaml::Value::Null => {
            return Err(Error::invalid(format!("{at}: `{}` has no value: write \"\" for an empty one", shown(key))));
        }
    })
}

/// Whether a bare number or boolean means the same in JSON.
fn is_json(bare: &str) -> bool {
    serde_json::from_str::<&serde_json::value::RawValue>(bare).is_ok()
}

/// Writing to a vector fails never, and a string has always a JSON form.
fn write_json(node: &Node, json: &mut Vec<u8>) {
    fn text(text: &str, json: &mut Vec<u8>) {
        let _ = serde_json::to_writer(json, text);
    }
    match &node.value {
        yaml::Value::Null => json.extend_from_slice(b"null"),
        yaml::Value::Bare(bare) if is_json(bare) => json.extend_from_slice(bare.as_bytes()),
        yaml::Value::Bare(other) | yaml::Value::Text(other) => text(other, json),
        yaml::Value::List(items) => {
            json.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    json.push(b',');
                }
                write_json(item, json);
            }
            json.push(b']');
        }
        yaml::Value::Map(entries) => {
            json.push(b'{');
            for (index, entry) in entries.iter().enumerate() {
                if index > 0 {
                    json.push(b',');
                }
                text(&entry.key, json);
                json.push(b':');
                write_json(&entry.value, json);
            }
            json.push(b'}');
        }
    }
}
