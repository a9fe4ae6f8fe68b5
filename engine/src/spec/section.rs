// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Reading a map of a class against its table of keys: every error has a place, a path and a cure.
//!
//! Scalars of a class are quoted in errors only where they were judged (a name, a duration), and shortened.

use std::cell::Cell;

use crate::error::Error;
use crate::spec::form::Form;
use crate::spec::keys::Table;
use crate::spec::rules::Rule;
use crate::yaml::{Entry, Node, Position, Value, shown};

/// A map that holds no key that its table does not know.
pub struct Section<'a> {
    path: String,
    at: Position,
    table: &'static Table,
    fields: Vec<(Field<'a>, Cell<bool>)>,
}

/// One value, with where it stands.
pub struct Field<'a> {
    name: &'a str,
    path: String,
    node: &'a Node,
    pub(super) form: &'static Form,
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
        let mut fields = Vec::with_capacity(entries.len());
        for entry in entries {
            let name = entry.key.as_str();
            if table.later.contains(&name) {
                return Err(at(entry.at, format!("`{name}` comes with a later release: remove it")));
            }
            let Some(key) = table.keys.iter().find(|key| key.name == name) else {
                return Err(at(entry.at, unknown(name, table)));
            };
            let field = Field { name, path: join(path, name), node: &entry.value, form: &key.form };
            fields.push((field, Cell::new(false)));
        }
        Ok(Self { path: path.to_owned(), at: node.at, table, fields })
    }

    /// The value of `name`, where the map has it.
    pub fn get(&self, name: &'static str) -> Option<&Field<'a>> {
        debug_assert!(self.table.keys.iter().any(|key| key.name == name), "{name} is in no table");
        let (field, read) = self.fields.iter().find(|(field, _)| field.name == name)?;
        read.set(true);
        Some(field)
    }

    /// The value of `name`.
    pub fn require(&self, name: &'static str) -> Result<&Field<'a>, Error> {
        self.get(name).ok_or_else(|| self.wrong(&format!("`{name}` is missing")))
    }

    /// That `rule` is broken.
    pub(super) fn breaks(&self, rule: &'static Rule) -> Error {
        debug_assert!(
            self.table.rules.iter().any(|it| std::ptr::eq(*it, rule)),
            "the API server does not judge: {}",
            rule.words
        );
        self.wrong(rule.words)
    }

    /// An error about the map as a whole.
    pub fn wrong(&self, message: &str) -> Error {
        match self.path.as_str() {
            "" => wrong(self.at, message),
            path => wrong(self.at, &format!("{path}: {message}")),
        }
    }
}

impl<'a> Field<'a> {
    /// An error about this value.
    pub fn wrong(&self, message: &str) -> Error {
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
    pub fn map<T>(&self, read: impl FnOnce(&Section<'a>) -> Result<T, Error>) -> Result<T, Error> {
        let Form::Map(table) = self.form else { return Err(self.expected("what has no keys")) };
        self.map_of(table, read)
    }

    /// The same where the table depends on what stands beside.
    pub(super) fn map_of<T>(
        &self,
        table: &'static Table,
        read: impl FnOnce(&Section<'a>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        Section::read(self.node, &self.path, table, read)
    }

    /// Text that is not empty.
    pub fn text(&self) -> Result<&'a str, Error> {
        match &self.node.value {
            Value::Text(text) if text.is_empty() => Err(self.wrong(EMPTY)),
            Value::Text(text) => self.bounded(text),
            Value::Bare(bare) => {
                Err(self
                    .wrong(&format!("YAML reads this as a number or boolean: write it in quotes, \"{}\"", shown(bare))))
            }
            _ => Err(self.expected("text")),
        }
    }

    /// Text, read by `parse`, whose error becomes this field's.
    pub fn parse<T>(&self, parse: impl FnOnce(&str) -> Result<T, Error>) -> Result<T, Error> {
        parse(self.text()?).map_err(|error| self.explain(&error))
    }

    /// A whole number without quotes.
    pub fn number<T: TryFrom<u64>>(&self) -> Result<T, Error> {
        let (least, most) = self.form.bounds();
        let range = || self.wrong(&number_words(least, most));
        let Value::Bare(bare) = &self.node.value else { return Err(range()) };
        let number = bare.parse::<u64>().ok().filter(|number| is_plain(bare) && (least..=most).contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(range)
    }

    /// Text, or a whole number without quotes: what an argument may be.
    pub fn argument(&self) -> Result<&'a str, Error> {
        match &self.node.value {
            Value::Bare(bare) if !is_plain(bare) => {
                Err(self.wrong("expected text or a whole number: write anything else in quotes"))
            }
            _ => self.letters(),
        }
    }

    /// `true` or `false`.
    pub fn boolean(&self) -> Result<bool, Error> {
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
    pub fn items(&self) -> Result<Vec<Field<'a>>, Error> {
        let (Value::List(items), Form::List { of, most, empty }) = (&self.node.value, self.form) else {
            return Err(self.expected("a list"));
        };
        match empty {
            Some(words) if items.is_empty() => return Err(self.wrong(words)),
            _ if items.len() > *most => return Err(self.wrong(&too_many(*most))),
            _ => {}
        }
        let item = |(index, node)| Field { name: self.name, path: format!("{}[{index}]", self.path), node, form: of };
        Ok(items.iter().enumerate().map(item).collect())
    }

    /// The entries of a map whose keys are the user's own.
    pub fn entries(&self) -> Result<Vec<Field<'a>>, Error> {
        let Value::Map(entries) = &self.node.value else { return Err(self.expected("a map")) };
        if entries.len() > Form::MOST_ARGUMENTS {
            return Err(self.wrong(&too_many(Form::MOST_ARGUMENTS)));
        }
        let entry = |Entry { key, value, .. }: &'a Entry| Field {
            name: key,
            path: join(&self.path, key),
            node: value,
            form: self.form,
        };
        Ok(entries.iter().map(entry).collect())
    }

    /// Text that is no longer than its form may be.
    fn bounded(&self, text: &'a str) -> Result<&'a str, Error> {
        let longest = self.form.longest();
        if text.len() > longest {
            return Err(self.wrong(&format!("may not be more than {longest} bytes")));
        }
        Ok(text)
    }

    /// The key this value stands under.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The letters of text or of a bare number or boolean.
    pub fn letters(&self) -> Result<&'a str, Error> {
        match &self.node.value {
            Value::Text(text) | Value::Bare(text) => self.bounded(text),
            _ => Err(self.expected("text")),
        }
    }
}

/// What is said of a text without a letter.
pub(super) const EMPTY: &str = "is empty";

/// What is said of a number that is none, or out of bounds.
pub(super) fn number_words(least: u64, most: u64) -> String {
    format!("expected a whole number from {least} to {most}, without quotes")
}

/// A whole number as JSON has it.
fn is_plain(bare: &str) -> bool {
    bare.bytes().all(|byte| byte.is_ascii_digit()) && (bare == "0" || !bare.starts_with('0'))
}

/// The API server's own words, as those of [`Field::bounded`] are.
fn too_many(most: usize) -> String {
    format!("must have at most {most} items")
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
