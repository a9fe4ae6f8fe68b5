// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Reading a map of a class against its table of keys: every error has a place, a path and a cure.
//!
//! Scalars of a class are quoted in errors only where they were judged (a name, a duration), and shortened.

use std::cell::Cell;

use crate::error::Error;
use crate::spec::keys::Table;
use crate::yaml::{Entry, Node, Position, Value, shown};

/// A map that holds no key that its table does not know.
pub(super) struct Section<'a> {
    path: String,
    at: Position,
    table: &'static Table,
    fields: Vec<(Field<'a>, Cell<bool>)>,
}

/// One value, with where it stands.
pub(super) struct Field<'a> {
    name: &'a str,
    path: String,
    node: &'a Node,
}

impl<'a> Section<'a> {
    /// Reads the map `node` at `path` with `read`, which has to look at every key: one that is accepted and never read
    /// would be a promise without a deed.
    pub(super) fn read<T>(
        node: &'a Node,
        path: &str,
        table: &'static Table,
        read: impl FnOnce(&Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let section = Self::open(node, path, table)?;
        let value = read(&section)?;
        let unread = section.fields.iter().find(|(_, read)| !read.get());
        debug_assert!(unread.is_none(), "{:?} is accepted and not read", unread.map(|(field, _)| &field.path));
        Ok(value)
    }

    fn open(node: &'a Node, path: &str, table: &'static Table) -> Result<Self, Error> {
        let at = |at: Position, message: String| match path {
            "" => wrong(at, &message),
            path => wrong(at, &format!("{path}: {message}")),
        };
        let Value::Map(entries) = &node.value else {
            return Err(at(node.at, format!("expected a map of keys, found {}", node.value.what())));
        };
        for entry in entries {
            let name = entry.key.as_str();
            if table.later.contains(&name) {
                return Err(at(entry.at, format!("`{name}` comes with a later release: remove it")));
            }
            if !table.keys.iter().any(|key| key.name == name) {
                return Err(at(entry.at, unknown(name, table)));
            }
        }
        let field = |Entry { key, value, .. }: &'a Entry| Field { name: key, path: join(path, key), node: value };
        let fields = entries.iter().map(|entry| (field(entry), Cell::new(false))).collect();
        Ok(Self { path: path.to_owned(), at: node.at, table, fields })
    }

    /// The value of `name`, where the map has it.
    pub(super) fn get(&self, name: &'static str) -> Option<&Field<'a>> {
        debug_assert!(self.table.keys.iter().any(|key| key.name == name), "{name} is in no table");
        let (field, read) = self.fields.iter().find(|(field, _)| field.name == name)?;
        read.set(true);
        Some(field)
    }

    /// The value of `name`.
    pub(super) fn require(&self, name: &'static str) -> Result<&Field<'a>, Error> {
        self.get(name).ok_or_else(|| self.wrong(&format!("`{name}` is missing")))
    }

    /// An error about the map as a whole.
    pub(super) fn wrong(&self, message: &str) -> Error {
        match self.path.as_str() {
            "" => wrong(self.at, message),
            path => wrong(self.at, &format!("{path}: {message}")),
        }
    }
}

impl<'a> Field<'a> {
    /// An error about this value.
    pub(super) fn wrong(&self, message: &str) -> Error {
        wrong(self.node.at, &format!("{}: {message}", self.path))
    }

    /// The same for an error that another parser made.
    pub(super) fn explain(&self, error: &Error) -> Error {
        self.wrong(error.message())
    }

    /// An error that names what was found instead.
    fn expected(&self, what: &str) -> Error {
        self.wrong(&format!("expected {what}, found {}", self.node.value.what()))
    }

    /// Reads the map with `read`, as [`Section::read`] does.
    pub(super) fn map<T>(
        &self,
        table: &'static Table,
        read: impl FnOnce(&Section<'a>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        Section::read(self.node, &self.path, table, read)
    }

    /// Text that is not empty.
    pub(super) fn text(&self) -> Result<&'a str, Error> {
        match &self.node.value {
            Value::Text(text) if text.is_empty() => Err(self.wrong("is empty")),
            Value::Text(text) => Ok(text),
            Value::Bare(bare) => {
                Err(self
                    .wrong(&format!("YAML reads this as a number or boolean: write it in quotes, \"{}\"", shown(bare))))
            }
            _ => Err(self.expected("text")),
        }
    }

    /// Text, read by `parse`, whose error becomes this field's.
    pub(super) fn parse<T>(&self, parse: impl FnOnce(&str) -> Result<T, Error>) -> Result<T, Error> {
        parse(self.text()?).map_err(|error| self.explain(&error))
    }

    /// A whole number without quotes, at least `least`.
    pub(super) fn number<T: TryFrom<u64>>(&self, least: u64, most: u64) -> Result<T, Error> {
        let range = || self.wrong(&format!("expected a whole number from {least} to {most}, without quotes"));
        let Value::Bare(bare) = &self.node.value else { return Err(range()) };
        let digits = bare.bytes().all(|byte| byte.is_ascii_digit()) && (bare == "0" || !bare.starts_with('0'));
        let number = bare.parse::<u64>().ok().filter(|number| digits && (least..=most).contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(range)
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Result<bool, Error> {
        match &self.node.value {
            Value::Bare(bare) if bare == "true" => Ok(true),
            Value::Bare(bare) if bare == "false" => Ok(false),
            _ => Err(self.wrong("expected true or false")),
        }
    }

    /// What a bare number was written as; `None` for anything else.
    pub(super) fn bare(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Bare(bare) => Some(bare),
            _ => None,
        }
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Result<Vec<Field<'a>>, Error> {
        let Value::List(items) = &self.node.value else { return Err(self.expected("a list")) };
        let item = |(index, node)| Field { name: self.name, path: format!("{}[{index}]", self.path), node };
        Ok(items.iter().enumerate().map(item).collect())
    }

    /// The items of a list that has some.
    pub(super) fn some_items(&self, why: &str) -> Result<Vec<Field<'a>>, Error> {
        let items = self.items()?;
        if items.is_empty() { Err(self.wrong(why)) } else { Ok(items) }
    }

    /// The entries of a map whose keys are the user's own.
    pub(super) fn entries(&self) -> Result<Vec<Field<'a>>, Error> {
        let Value::Map(entries) = &self.node.value else { return Err(self.expected("a map")) };
        let entry = |Entry { key, value, .. }: &'a Entry| Field { name: key, path: join(&self.path, key), node: value };
        Ok(entries.iter().map(entry).collect())
    }

    /// The key this value stands under.
    pub(super) fn name(&self) -> &'a str {
        self.name
    }

    /// The letters of text or of a bare number or boolean.
    pub(super) fn letters(&self) -> Result<&'a str, Error> {
        match &self.node.value {
            Value::Text(text) | Value::Bare(text) => Ok(text),
            _ => Err(self.expected("text")),
        }
    }
}

fn wrong(at: Position, message: &str) -> Error {
    match at {
        Position::NOWHERE => Error::invalid(message.to_owned()),
        at => Error::invalid(format!("{at}: {message}")),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { shown(key) } else { format!("{path}.{}", shown(key)) }
}

/// What to say of a key that is not in `table`.
fn unknown(name: &str, table: &Table) -> String {
    let known = table.keys.iter().map(|key| key.name);
    let nearest = known.clone().map(|key| (distance(name, key), key)).min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((distance, key)) if distance <= key.len().div_ceil(3) => {
            format!("unknown key `{}`: did you mean `{key}`?", shown(name))
        }
        _ => format!("unknown key `{}`: known here are `{}`", shown(name), known.collect::<Vec<_>>().join("`, `")),
    }
}

/// How many letters to insert, drop, change or swap with their neighbour to get from one to the other; case costs
/// nothing (restricted Damerau–Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let lower = |text: &str| text.chars().take(64).flat_map(char::to_lowercase).collect::<Vec<_>>();
    let (from, to) = (lower(from), lower(to));
    let mut rows = vec![(0..=to.len()).collect::<Vec<_>>()];
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let change = rows[i][j] + usize::from(a != b);
            let mut best = change.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_slips_of_the_pen() {
        for (from, to, slips) in [
            ("files", "files", 0),
            ("Files", "files", 0),
            ("fils", "files", 1),
            ("fiels", "files", 1),
            ("serviceAcounts", "serviceAccounts", 1),
            ("", "uid", 3),
            ("xyz", "uid", 3),
        ] {
            assert_eq!(distance(from, to), slips, "{from} to {to}");
        }
    }
}
