// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The reader of classes, for a program's own file of settings: the program brings its tables of keys, and gets the same
//! errors, with line, column, field and nearest known key.

use crate::error::Error;
use crate::spec::keys::Table;
use crate::yaml;

pub use crate::spec::section::{Field, Section};
pub use crate::spec::values::{duration, one_of};

/// Reads the one document of `text` against `table` with `read`, which has to look at every key.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) with line, column, field and cure.
pub fn read<T>(
    text: &str,
    table: &'static Table,
    read: impl FnOnce(&Section<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let documents = yaml::read(text).map_err(|error| Error::invalid(error.to_string()))?;
    match documents.as_slice() {
        [document] => Section::read(document, "", table, read),
        [] => Err(Error::invalid("there is nothing in it")),
        [_, second, ..] => Err(Error::invalid(format!("{}: a second document: this file has one", second.at))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::spec::form::Form;
    use crate::spec::keys::Key;

    static TABLE: Table = Table {
        path: "",
        about: "A program's settings.",
        keys: &[Key { name: "path", form: Form::Folder, default: "required", meaning: "Where." }],
        later: &["socket"],
        rules: &[],
    };

    fn heard(text: &str) -> Result<String, String> {
        read(text, &TABLE, |top| Ok(top.require("path")?.text()?.to_owned())).map_err(|error| error.to_string())
    }

    #[test]
    fn a_programs_file_is_read_as_a_class_is() {
        assert_eq!(heard("path: /secrets").unwrap(), "/secrets");
        for (text, says) in [
            ("pth: /secrets", "line 1, column 1: unknown key `pth`: did you mean `path`?"),
            ("\n{}", "line 2, column 1: `path` is missing"),
            ("socket: /s", "line 1, column 1: `socket` comes with a later release: remove it"),
            ("", "there is nothing in it"),
            ("path: /a\n---\npath: /b", "line 3, column 1: a second document: this file has one"),
        ] {
            assert_eq!(heard(text).unwrap_err(), says, "{text}");
        }
    }
}
