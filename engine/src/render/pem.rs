// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! PEM (RFC 7468): blocks of base64 between lines that say what they hold.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// What a certificate is called.
pub(super) const CERTIFICATE: &str = "CERTIFICATE";

/// What a line of base64 holds: 64 letters.
const LINE: usize = 48;

/// One block.
pub(super) struct Block<'a> {
    /// What it says that it holds.
    pub(super) label: &'a str,
    body: &'a str,
}

/// The blocks of a text, in their order; what stands around them is not looked at.
pub(super) fn blocks(text: &str) -> impl Iterator<Item = Block<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once("-----BEGIN ")?;
        let (label, after) = after.split_once("-----")?;
        let (body, after) = after.split_once("-----END ")?;
        rest = after;
        Some(Block { label, body })
    })
}

impl Block<'_> {
    /// Whether a passphrase is needed to read it.
    pub(super) fn is_encrypted(&self) -> bool {
        self.label.starts_with("ENCRYPTED") || self.body.contains("ENCRYPTED")
    }

    /// What it holds; `None` where it is not base64.
    pub(super) fn decode(&self) -> Option<Zeroizing<Vec<u8>>> {
        let is_letter = |byte: &u8| !byte.is_ascii_whitespace();
        let mut letters = Zeroizing::new(Vec::with_capacity(self.body.len()));
        letters.extend(self.body.bytes().filter(is_letter));
        let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(letters.len())]);
        let length = STANDARD.decode_slice(&letters, &mut bytes).ok()?;
        bytes.truncate(length);
        Some(bytes)
    }
}

/// How long [`push`] makes a text of `bytes` many bytes.
pub(super) fn length(label: &str, bytes: usize) -> usize {
    2 * label.len() + "-----BEGIN -----\n-----END -----\n".len() + bytes.div_ceil(3) * 4 + bytes.div_ceil(LINE)
}

/// Writes a block to the end of `text`, without a byte that the format does not ask for.
pub(super) fn push(text: &mut Vec<u8>, label: &str, der: &[u8]) {
    for part in ["-----BEGIN ", label, "-----\n"] {
        text.extend_from_slice(part.as_bytes());
    }
    for line in der.chunks(LINE) {
        let start = text.len();
        text.resize(start + line.len().div_ceil(3) * 4, b'=');
        // It has the room that it needs.
        let _ = STANDARD.encode_slice(line, &mut text[start..]);
        text.push(b'\n');
    }
    for part in ["-----END ", label, "-----\n"] {
        text.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for bytes in [0, 1, 2, 3, 47, 48, 49, 300] {
            let der: Vec<u8> = (0..bytes).map(|it| it as u8).collect();
            let mut text = Vec::new();
            push(&mut text, CERTIFICATE, &der);
            push(&mut text, "PRIVATE KEY", &der);
            assert_eq!(text.len(), length(CERTIFICATE, bytes) + length("PRIVATE KEY", bytes));
            let text = String::from_utf8(text).unwrap();
            assert!(text.lines().all(|line| line.len() <= 64), "{text}");
            let read: Vec<_> = blocks(&text).map(|it| (it.label.to_owned(), it.decode().unwrap().to_vec())).collect();
            assert_eq!(read, [(CERTIFICATE.to_owned(), der.clone()), ("PRIVATE KEY".to_owned(), der)]);
        }
    }

    #[test]
    fn a_block_is_read_with_what_editors_and_other_systems_do_to_it() {
        let text = "subject=/CN=a\r\n  -----BEGIN CERTIFICATE-----\r\n  AAEC\r\n\tAwQ=\r\n-----END CERTIFICATE-----";
        let read: Vec<_> = blocks(text).map(|it| it.decode().unwrap().to_vec()).collect();
        assert_eq!(read, [[0, 1, 2, 3, 4]]);
    }

    #[test]
    fn a_block_without_an_end_is_none_and_one_that_is_not_base64_holds_nothing() {
        assert_eq!(blocks("-----BEGIN CERTIFICATE-----\nAAEC\n").count(), 0);
        let text = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAEC\n-----END RSA PRIVATE KEY-----";
        let block = blocks(text).next().unwrap();
        assert!(block.is_encrypted() && block.decode().is_none());
    }
}
