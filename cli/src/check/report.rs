// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What was found, for people and for programs.

use serde_json::json;

use crate::check::classes::{Class, Findings, Level, Problem};
use crate::output::{ERROR, FAINT, GOOD, NOTE, WARNING, say, say_json, styled};

/// A table: each file, its classes, and below each what is wrong with it.
pub(super) fn text(findings: &Findings) -> std::io::Result<()> {
    let width = findings.classes.iter().map(|class| class.title().chars().count()).max().unwrap_or_default();
    for file in &findings.files {
        say(file)?;
        for problem in findings.problems.iter().filter(|it| it.class.is_none() && it.file == *file) {
            say(line(problem, 2))?;
        }
        for (index, class) in findings.classes.iter().enumerate().filter(|(_, class)| class.file == *file) {
            let problems: Vec<_> = findings.problems.iter().filter(|it| it.class == Some(index)).collect();
            let mark = match problems.iter().map(|problem| problem.level).min() {
                Some(Level::Error) => styled(ERROR, "✗"),
                Some(Level::Warning) => styled(WARNING, "!"),
                Some(Level::Note) | None => styled(GOOD, "✓"),
            };
            let place = styled(FAINT, format_args!("line {}", class.line));
            say(format_args!("  {mark} {:width$}  {place}", class.title()))?;
            for problem in problems {
                say(line(problem, 6))?;
            }
        }
    }
    let count = |number: usize, one: &str, many: &str| format!("{number} {}", if number == 1 { one } else { many });
    say(format_args!(
        "{}, {}, {}, {}",
        count(findings.classes.len(), "class", "classes"),
        count(findings.count(Level::Error), "error", "errors"),
        count(findings.count(Level::Warning), "warning", "warnings"),
        count(findings.count(Level::Note), "note", "notes"),
    ))
}

fn line(problem: &Problem, indent: usize) -> String {
    let level = match problem.level {
        Level::Error => styled(ERROR, "error:"),
        Level::Warning => styled(WARNING, "warning:"),
        Level::Note => styled(NOTE, "note:"),
    };
    format!("{:indent$}{level} {}", "", problem.message)
}

/// One JSON object.
pub(super) fn json(findings: &Findings) -> anyhow::Result<()> {
    let class = |class: &Class| {
        json!({
            "file": class.file,
            "line": class.line,
            "class": class.name.as_ref().map(ToString::to_string),
            "read": class.document.is_some(),
        })
    };
    say_json(&json!({
        "ok": findings.ok(),
        "classes": findings.classes.iter().map(class).collect::<Vec<_>>(),
        "problems": findings.problems,
    }))
}
