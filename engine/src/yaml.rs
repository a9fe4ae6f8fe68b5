// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! YAML, read into a tree that knows where each thing stands. The only file that knows the parser.
//!
//! A tree and not typed wire structs, for two reasons. An error has to name a field's path *and* position also for what
//! only we can judge (a path that leaves the volume, two files at one place), and the tree has both for every node. And a
//! bare number keeps its own digits: `0440`, `007` and `1.10` reach us as written, not as 440, 7 and 1.1.
//!
//! It quotes keys, never values: the same reader is used for sealed secrets. Nothing here has `Debug`, for the same reason.
//! Copies that the parser makes are wiped by the zero-on-free allocator that every binary installs.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use serde_saphyr::options::MergeKeyPolicy;

/// Longest text that is read, in bytes: a ConfigMap holds at most 1 MiB.
pub(crate) const LONGEST: usize = 1024 * 1024;

/// A place in a text: both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// The line.
    pub(crate) line: u64,
    /// The column, in characters.
    pub(crate) column: u64,
}

impl Position {
    /// Where something stands that was in no text.
    pub(crate) const NOWHERE: Self = Self { line: 0, column: 0 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// One thing in the tree.
pub(crate) struct Node {
    /// Where it begins.
    pub(crate) at: Position,
    /// What it is.
    pub(crate) value: Value,
    span: std::ops::Range<usize>,
}

/// What a node is.
pub(crate) enum Value {
    /// A number or boolean without quotes, to the letter.
    Bare(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order written.
    Map(Vec<Entry>),
    /// Nothing, `null` or `~`.
    Null,
    /// Text, with or without quotes.
    Text(String),
}

impl Value {
    /// What to call it in an error.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Self::Bare(_) => "a bare number or boolean",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Null => "nothing",
            Self::Text(_) => "text",
        }
    }
}

/// One entry of a map.
pub(crate) struct Entry {
    /// The key.
    pub(crate) key: String,
    /// Where the key stands.
    pub(crate) at: Position,
    /// What it stands for.
    pub(crate) value: Node,
}

/// Why a text is not YAML.
#[derive(Debug)]
pub(crate) struct YamlError {
    /// Where; absent for the text as a whole.
    pub(crate) at: Option<Position>,
    /// What is wrong; names a key at most.
    pub(crate) message: String,
    /// The parser's own words, which may hold a letter of the text: not for secrets.
    pub(crate) words: Option<String>,
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.at {
            write!(f, "{at}: ")?;
        }
        f.write_str(&self.message)?;
        self.words.as_ref().map_or(Ok(()), |words| write!(f, ": {words}"))
    }
}

/// Reads every document of `text`; empty ones are left out.
pub(crate) fn read(text: &str) -> Result<Vec<Node>, YamlError> {
    if text.len() > LONGEST {
        return Err(YamlError {
            at: None,
            message: format!("more than {} KiB: split it", LONGEST / 1024),
            words: None,
        });
    }
    // `yes` and `on` stay text. Aliases are bounded; merge keys are not in YAML 1.2 and would hide where a key stands.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: 32, max_nodes: 100_000, max_aliases: 100, max_documents: 1_000 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 10_000 },
        emit_comments: false,
        merge_keys: MergeKeyPolicy::Error,
        reject_unsupported_tags: true,
        strict_booleans: true,
        with_snippet: false,
    };
    let mut documents: Vec<Node> = serde_saphyr::from_multiple_with_options(text, options).map_err(explain)?;
    for document in &mut documents {
        document.take_bare_from(text);
    }
    Ok(documents)
}

impl Node {
    /// The same tree, from what was in no text: an object of the Kubernetes API.
    pub(crate) fn from_json(json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        let entry = |(key, value): (&String, &Json)| Entry {
            key: key.clone(),
            at: Position::NOWHERE,
            value: Self::from_json(value),
        };
        let value = match json {
            Json::Null => Value::Null,
            Json::Bool(bare) => Value::Bare(bare.to_string()),
            Json::Number(bare) => Value::Bare(bare.to_string()),
            Json::String(text) => Value::Text(text.clone()),
            Json::Array(items) => Value::List(items.iter().map(Self::from_json).collect()),
            Json::Object(entries) => Value::Map(entries.iter().map(entry).collect()),
        };
        Self { at: Position::NOWHERE, value, span: 0..0 }
    }

    /// Gives numbers and booleans the letters they were written with; the parser hands over only their value.
    fn take_bare_from(&mut self, text: &str) {
        match &mut self.value {
            Value::Bare(bare) => *bare = text.get(self.span.clone()).unwrap_or_default().trim().to_owned(),
            Value::List(items) => items.iter_mut().for_each(|item| item.take_bare_from(text)),
            Value::Map(entries) => entries.iter_mut().for_each(|entry| entry.value.take_bare_from(text)),
            Value::Null | Value::Text(_) => {}
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // `defined` is the anchor's place for an alias: where the letters are.
        let Spanned { value, referenced, defined } = Spanned::<Value>::deserialize(deserializer)?;
        let at = Position { line: referenced.line(), column: referenced.column() };
        let start = usize::try_from(defined.span().byte_offset().unwrap_or_default()).unwrap_or_default();
        let len = usize::try_from(defined.span().byte_len().unwrap_or_default()).unwrap_or_default();
        Ok(Self { at, value, span: start..start.saturating_add(len) })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a number, a list or a map")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Bare(String::new()))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Bare(String::new()))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Bare(String::new()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Bare(String::new()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let at = Position { line: key.referenced.line(), column: key.referenced.column() };
            entries.push(Entry { key: key.value, at, value: map.next_value()? });
        }
        Ok(Value::Map(entries))
    }
}

/// The parser's error in our words. Only kinds whose text cannot hold a value are passed on.
fn explain(error: serde_saphyr::Error) -> YamlError {
    use serde_saphyr::Error as E;
    let at = error.location().map(|location| Position { line: location.line(), column: location.column() });
    let mut words = None;
    let message = match error {
        E::AliasError { error, .. } | E::WithSnippet { error, .. } => return YamlError { at, ..explain(*error) },
        E::DuplicateMappingKey { key: Some(key), .. } => format!("key `{}` is written twice", shown(&key)),
        E::DuplicateMappingKey { .. } => "a key is written twice".to_owned(),
        E::Budget { .. } | E::AliasExpansionLimitExceeded { .. } | E::AliasReplayLimitExceeded { .. } => {
            "too deep or too large to be one of ours".to_owned()
        }
        E::MergeKeyNotAllowed { .. } => "merge keys (`<<`) are not read: write the keys out".to_owned(),
        E::UnknownAnchor { .. } => "an alias without an anchor; text that begins with `*` needs quotes".to_owned(),
        E::UnsupportedTag { .. } => "tags (`!…`) are not read; text that begins with `!` needs quotes".to_owned(),
        E::Eof { .. } => "ends in the middle of something".to_owned(),
        E::ExternalMessage { msg, .. } => {
            words = Some(shown(&msg));
            "not YAML".to_owned()
        }
        _ => "not YAML that can be read here".to_owned(),
    };
    YamlError { at, message, words }
}

/// Text of unknown origin, short and without control characters.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 80;
    let mut out: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Node {
        let mut documents = read(text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(documents.len(), 1);
        documents.remove(0)
    }

    fn entries(node: &Node) -> &[Entry] {
        let Value::Map(entries) = &node.value else { panic!("not a map: {}", node.value.what()) };
        entries
    }

    #[test]
    fn a_bare_number_keeps_its_digits_and_quoted_text_is_text() {
        for (written, bare) in [
            ("0440", Some("0440")),
            ("007", Some("007")),
            ("1.10", Some("1.10")),
            ("0x1F", Some("0x1F")),
            ("1e3", Some("1e3")),
            ("-5", Some("-5")),
            ("true", Some("true")),
            ("5432 # the port", Some("5432")),
            ("yes", None),
            ("\"0440\"", None),
            ("5m", None),
            ("10%", None),
        ] {
            let root = one(&format!("a: [x, ü]\nkey: {written}\n"));
            match &entries(&root)[1].value.value {
                Value::Bare(text) => assert_eq!(Some(text.as_str()), bare, "{written}"),
                Value::Text(_) => assert_eq!(None, bare, "{written}"),
                other => panic!("{written} became {}", other.what()),
            }
        }
    }

    #[test]
    fn keys_and_values_know_their_line_and_column_in_every_document() {
        let documents = read("a: 1\n---\n# comment\nb:\n  - c: text\n---\n").expect("reads");
        assert_eq!(documents.len(), 2);
        let [b] = entries(&documents[1]) else { panic!() };
        assert_eq!(b.at, Position { line: 4, column: 1 });
        let Value::List(items) = &b.value.value else { panic!() };
        let [c] = entries(&items[0]) else { panic!() };
        assert_eq!(c.at, Position { line: 5, column: 5 });
        assert_eq!(c.value.at, Position { line: 5, column: 8 });
    }

    #[test]
    fn what_is_not_yaml_is_refused_with_its_place_and_without_its_values() {
        for (text, says) in [
            ("a: 1\na: 2\n", "line 2, column 1: key `a` is written twice"),
            ("a: [CANARY\n", "line"),
            ("a: CANARY\n b: CANARY\n", "line"),
            ("a:\n\t- CANARY\n\tb: CANARY\n", "line"),
            ("a: \"CANARY\n", "line"),
            ("a: *CANARY\n", "needs quotes"),
            ("a: !CANARY x\n", "needs quotes"),
            ("a: &x {b: 1}\nc: {<<: *x}\n", "merge keys"),
            ("a: %CANARY\n", "line"),
            ("a: @CANARY\n", "line"),
            ("a: `CANARY\n", "line"),
            ("? [CANARY]\n: 1\n", "line"),
            ("a: .nan\n", "line"),
        ] {
            let Err(error) = read(text) else { panic!("read {text:?}") };
            let error = error.to_string();
            assert!(error.contains(says), "{text:?}: {error}");
            assert!(!error.contains("CANARY"), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_bomb_of_aliases_or_brackets_is_refused() {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..12 {
            let before = level - 1;
            let aliases = vec![format!("*a{before}"); 8].join(",");
            bomb += &format!("a{level}: &a{level} [{aliases}]\n");
        }
        assert!(read(&bomb).is_err());
        assert!(read(&"[".repeat(10_000)).is_err());
        assert!(read(&" ".repeat(LONGEST + 1)).is_err());
    }
}
