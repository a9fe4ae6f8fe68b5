// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Many texts in much memory, in one pass.
//!
//! A text is cut into short pieces, all pieces are looked for at once, and around each that is found as much is taken as
//! agrees. So a half-overwritten copy is found too: whatever is left of a text, [`FRAGMENT`] bytes of it in a row hold
//! at least one whole piece.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, MatchKind};
use anyhow::Context as _;

use super::forms::{self, Form, Text};

/// The shortest part of a text that is told of.
pub(super) const FRAGMENT: usize = 24;
const PIECE: usize = FRAGMENT / 2;

/// A text, or a part of one, in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Which secret, in the order in which they were given.
    pub(super) secret: usize,
    pub(super) form: Form,
    pub(super) address: usize,
    /// In bytes of the form.
    pub(super) length: usize,
    /// Whether it is all of it.
    pub(super) whole: bool,
}

/// Every text to look for.
pub(super) struct Search {
    pieces: AhoCorasick,
    /// Of each piece: its text, and where in it.
    owners: Vec<(usize, usize)>,
    texts: Vec<(usize, Form, Text)>,
}

impl Search {
    pub(super) fn new<'a>(secrets: impl Iterator<Item = &'a [u8]>) -> anyhow::Result<Self> {
        let texts: Vec<_> = secrets
            .enumerate()
            .flat_map(|(secret, bytes)| forms::all(bytes).into_iter().map(move |(form, text)| (secret, form, text)))
            .collect();
        let mut owners = Vec::new();
        let mut pieces = Vec::new();
        for (index, (_, _, text)) in texts.iter().enumerate() {
            // A text that can have no fragment is one piece.
            let size = if text.len() < FRAGMENT { text.len() } else { PIECE };
            for (number, piece) in text.chunks_exact(size).enumerate() {
                owners.push((index, number * size));
                pieces.push(piece);
            }
        }
        let pieces = AhoCorasick::builder().match_kind(MatchKind::Standard).build(pieces);
        Ok(Self { pieces: pieces.context("the secrets are too many or too long")?, owners, texts })
    }

    /// What is in `memory`, which begins at `address`.
    pub(super) fn run(&self, address: usize, memory: &[u8]) -> Vec<Found> {
        let mut found = BTreeMap::new();
        for hit in self.pieces.find_overlapping_iter(memory) {
            let (index, offset) = self.owners[hit.pattern().as_usize()];
            let (secret, form, text) = &self.texts[index];
            let before = text[..offset].iter().rev().zip(memory[..hit.start()].iter().rev());
            let start = hit.start() - before.take_while(|(ours, theirs)| ours == theirs).count();
            let after = text[offset + hit.len()..].iter().zip(&memory[hit.end()..]);
            let length = hit.end() - start + after.take_while(|(ours, theirs)| ours == theirs).count();
            let whole = length == text.len();
            if whole || length >= FRAGMENT {
                let (secret, form) = (*secret, *form);
                found.insert((index, start), Found { secret, form, address: address + start, length, whole });
            }
        }
        without_parts_of_others(found.into_values().collect())
    }
}

/// The forms of a secret have parts in common: what lies within something longer is told once.
fn without_parts_of_others(mut found: Vec<Found>) -> Vec<Found> {
    found.sort_by_key(|found| (found.secret, found.address, Reverse(found.length)));
    let mut end = (0, 0);
    found.retain(|found| {
        let own = (found.secret, found.address + found.length);
        let news = own > end;
        end = end.max(own);
        news
    });
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

    fn found(memory: &[u8]) -> Vec<(usize, usize, bool)> {
        let search = Search::new([SECRET].into_iter()).unwrap();
        search.run(0x1000, memory).into_iter().map(|found| (found.address, found.length, found.whole)).collect()
    }

    #[test]
    fn whole_copies_are_counted_once_each() {
        let memory = [b"xx", SECRET, SECRET, b"yy"].concat();
        let length = SECRET.len();
        assert_eq!(found(&memory), [(0x1002, length, true), (0x1002 + length, length, true)]);
    }

    #[test]
    fn every_part_of_24_bytes_is_a_fragment_and_none_of_23_surely() {
        for start in 0..=SECRET.len() - FRAGMENT {
            let memory = [b"??", &SECRET[start..start + FRAGMENT], b"??"].concat();
            assert_eq!(found(&memory), [(0x1002, FRAGMENT, false)], "from {start}");
            assert_eq!(found(&SECRET[start..start + FRAGMENT - 1]), []);
        }
    }

    #[test]
    fn a_short_secret_has_no_fragments() {
        let search = Search::new([&b"hunter22"[..]].into_iter()).unwrap();
        assert_eq!(search.run(0, b"hunter22 hunter2").len(), 1);
    }
}
