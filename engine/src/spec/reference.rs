// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The reference page of classes, written from the tables.

use std::fmt::Write as _;

use crate::spec::keys::TABLES;

/// The reference page, in Markdown.
pub fn reference() -> String {
    let mut page = String::from(
        "# Classes: every key\n\n\
         Written from `engine/src/spec/keys.rs` by its test; change it there. Unknown keys are errors, and so are the keys \
         listed as *later*: nothing is accepted and ignored.\n\n\
         Durations are written `10s`, `5m`, `1h30m` or `250ms`; sizes `64Ki`, `1Mi` or a number of bytes. Text that YAML \
         would read as a number or a boolean has to be in quotes.\n",
    );
    for table in TABLES {
        let title = if table.path.is_empty() { "document" } else { table.path };
        let kind = match table.about.split_once(": ") {
            Some((kind @ ("`SecretBackend`" | "`SecretVolume`"), _)) => format!(" of {kind}"),
            _ => String::new(),
        };
        let _ = write!(
            page,
            "\n## `{title}`{kind}\n\n{}\n\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n",
            table.about
        );
        for key in table.keys {
            let _ = writeln!(page, "| `{}` | {} | {} | {} |", key.name, key.form.kind(), key.default, key.meaning);
        }
        if !table.later.is_empty() {
            let _ = writeln!(page, "\nLater: `{}`.", table.later.join("`, `"));
        }
    }
    page
}
