// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The little of DER (ITU-T X.690) that keys, certificates and key stores are taken apart and put together with.
//!
//! Nothing is judged here but lengths: whoever reads a certificate trusts it or not.

use zeroize::Zeroizing;

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const NULL: u8 = 0x05;
pub(super) const OBJECT: u8 = 0x06;
pub(super) const BMP_STRING: u8 = 0x1e;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// `[number]`, around values.
pub(super) const fn around(number: u8) -> u8 {
    0xa0 | number
}

/// `[number]`, in the place of a plain value's own tag.
pub(super) const fn instead(number: u8) -> u8 {
    0x80 | number
}

/// A value that holds `parts`, in a buffer of its size: it may hold a key.
pub(super) fn value(tag: u8, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let bytes = length.to_be_bytes();
    let digits = if length < 0x80 { &[] } else { &bytes[length.leading_zeros() as usize / 8..] };
    let mut whole = Zeroizing::new(Vec::with_capacity(2 + digits.len() + length));
    // No more than eight digits.
    let first = if digits.is_empty() { length as u8 } else { 0x80 | digits.len() as u8 };
    whole.extend([tag, first]);
    whole.extend_from_slice(digits);
    parts.iter().for_each(|part| whole.extend_from_slice(part));
    whole
}

/// A whole number that is not negative.
pub(super) fn integer(number: u32) -> Zeroizing<Vec<u8>> {
    let number = u64::from(number);
    let bytes = number.to_be_bytes();
    // A zero stays before a first bit that would be a sign.
    let skip = number.leading_zeros() as usize - 1;
    value(INTEGER, &[&bytes[skip / 8..]])
}

/// One value as it was read.
#[derive(Clone, Copy)]
pub(super) struct Element<'a> {
    /// What it holds.
    pub(super) body: &'a [u8],
    /// All of it.
    pub(super) whole: &'a [u8],
}

/// Values, one after the other.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// What `der` holds, which is one value of `tag` and nothing more.
    pub(super) fn within(der: &'a [u8], tag: u8) -> Option<Self> {
        let mut reader = Self(der);
        let outer = reader.take(tag)?;
        reader.0.is_empty().then_some(Self(outer.body))
    }

    /// The next value, where it is of `tag`; otherwise it stays the next.
    pub(super) fn take(&mut self, tag: u8) -> Option<Element<'a>> {
        if *self.0.first()? != tag {
            return None;
        }
        let (header, length) = match usize::from(*self.0.get(1)?) {
            short @ 0..=0x7f => (2, short),
            long @ 0x81..=0x84 => {
                let header = 2 + (long & 0x7f);
                let digits = self.0.get(2..header)?;
                (header, digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)))
            }
            _ => return None,
        };
        let (whole, rest) = self.0.split_at_checked(header.checked_add(length)?)?;
        self.0 = rest;
        Some(Element { body: &whole[header..], whole })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_the_same_at_every_length() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x10000] {
            let body = vec![7; length];
            let written = value(OCTET_STRING, &[&body[..length / 2], &body[length / 2..]]);
            assert_eq!(written.len(), written.capacity());
            let read = Reader(&written).take(OCTET_STRING).unwrap();
            assert_eq!((read.body, read.whole), (&body[..], &written[..]), "{length}");
            assert!(Reader::within(&written[..written.len() - 1], OCTET_STRING).is_none());
        }
    }

    #[test]
    fn a_number_has_no_sign_and_no_zero_to_spare() {
        for (number, body) in [
            (0, &[0][..]),
            (1, &[1]),
            (127, &[127]),
            (128, &[0, 128]),
            (10_000, &[0x27, 0x10]),
            (u32::MAX, &[0, 255, 255, 255, 255]),
        ] {
            assert_eq!(Reader(&integer(number)).take(INTEGER).unwrap().body, body, "{number}");
        }
    }

    #[test]
    fn what_is_cut_short_or_has_no_end_is_not_read() {
        for bad in [
            &[][..],
            &[0x30],
            &[0x31, 0],
            &[0x30, 0x80],
            &[0x30, 0x85, 1, 1, 1, 1, 1],
            &[0x30, 0x82, 1],
            &[0x30, 0x05, 1],
        ] {
            assert!(Reader(bad).take(SEQUENCE).is_none(), "{bad:?}");
        }
    }
}
