// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What the demo says: to a person as text, to a program as JSON lines. Shared by the steps and by the reader of audit
//! events; what is said in one call appears in one piece.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::look::{Entry, Kind, Tree};
use super::{audit, reduced};
use crate::args::Output;
use crate::output::{self, ERROR, FAINT, GOOD, NOTE, WARNING, say, say_json, styled};

/// Below what it belongs to.
const INDENT: &str = "    ";
/// How much of a log is shown after a failure.
const LAST_LINES: usize = 20;

/// How many logins are drawn beside each other.
const WIDTH: usize = 40;

/// Says it, and counts audit events.
pub(crate) struct Show {
    output: Output,
    events: AtomicUsize,
    /// How many of each kind told of something that went well.
    succeeded: Mutex<BTreeMap<String, usize>>,
    /// The last line, where it is written anew again and again: what else is said appears above it.
    live: Mutex<Option<String>>,
}

/// What a story claims, as it was seen; its text is the last line for a person.
pub(crate) trait Seen: Default + Serialize + Display {
    /// The story is over, one way or the other: what `show` has counted.
    fn end(&mut self, show: &Show);

    /// What a node has and this machine has not.
    fn reduced(&self) -> &[String] {
        &[]
    }
}

/// The end: for a program, the last line.
#[derive(Serialize)]
pub(crate) struct Summary<S> {
    /// Everything that the demo claims was seen.
    pub(crate) ok: bool,
    /// What was seen.
    #[serde(flatten)]
    pub(crate) seen: S,
    /// Why it is not ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// An audit event among the other lines, as the plugin wrote it.
#[derive(Serialize)]
struct Audit<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    event: &'a RawValue,
}

impl Show {
    /// Says it in this form.
    pub(crate) fn new(output: Output) -> Self {
        Self { output, events: AtomicUsize::new(0), succeeded: Mutex::default(), live: Mutex::default() }
    }

    /// One step is done.
    pub(crate) fn step(&self, text: impl Display) -> anyhow::Result<()> {
        match self.output {
            Output::Text => Ok(self.say(format_args!("{} {text}", styled(GOOD.bold(), "✓")))?),
            Output::Json => say_json(&json!({"type": "step", "text": text.to_string()})),
        }
    }

    /// What the pod sees at `target`; with a tree from before, which files are others now.
    pub(crate) fn tree(&self, target: &Path, tree: &Tree, before: Option<&Tree>) -> anyhow::Result<()> {
        match self.output {
            Output::Text => {
                let head = format!("{INDENT}{:<4}  {:<11}  {:>5}  ", "mode", "owner", "bytes");
                let mut text = styled(FAINT, format_args!("{head}{}/..data → {}", target.display(), tree.generation));
                let entries: Vec<_> = tree.entries.iter().map(|entry| (entry.path.as_str(), entry)).collect();
                draw(&entries, "", before, &mut text);
                Ok(self.say(text)?)
            }
            Output::Json => {
                let file = |file: &Entry| {
                    let changed = before.is_some_and(|before| file.was_other_in(before));
                    let mode = format!("{:04o}", file.mode);
                    json!({"path": file.path, "mode": mode, "uid": file.uid, "gid": file.gid, "size": file.size,
                           "changed": changed})
                };
                let files: Vec<_> = tree.files().map(file).collect();
                say_json(&json!({"type": "tree", "target": target, "generation": tree.generation, "files": files}))
            }
        }
    }

    /// The mount's options.
    pub(crate) fn options(&self, options: &[String]) -> anyhow::Result<()> {
        match self.output {
            Output::Text => Ok(self.say(format_args!("{INDENT}{} {}", styled(FAINT, "tmpfs"), options.join(",")))?),
            Output::Json => say_json(&json!({"type": "mount", "options": options})),
        }
    }

    /// One audit event, as the plugin wrote it.
    pub(crate) fn event(&self, line: &str) -> anyhow::Result<()> {
        let (event, raw): (_, &RawValue) = (audit::Line::read(line)?, serde_json::from_str(line)?);
        self.events.fetch_add(1, Ordering::Relaxed);
        if event.is_good() {
            *lock(&self.succeeded).entry(event.code().to_owned()).or_default() += 1;
        }
        match self.output {
            Output::Text => {
                let style = if event.is_good() { NOTE } else { WARNING };
                Ok(self.say(format_args!("{INDENT}{} {event}", styled(style, "audit")))?)
            }
            Output::Json => say_json(&Audit { kind: "audit", event: raw }),
        }
    }

    /// So many logins with the credential of this number, and so many that failed; whether it was `replaced` since.
    pub(crate) fn credential(&self, number: usize, logins: usize, failed: usize, replaced: bool) -> anyhow::Result<()> {
        let text = format!("{logins} logins, {failed} failed");
        match (self.output, replaced) {
            (Output::Text, true) => {
                self.settle();
                self.step(format_args!("credential {number}: {text}; another one is in its place"))
            }
            (Output::Text, false) => {
                let bar = styled(if failed == 0 { GOOD } else { ERROR }, "▇".repeat(logins.min(WIDTH)));
                Ok(self.rewrite(format!("{INDENT}{} {number}  {bar} {text}", styled(NOTE, "credential")))?)
            }
            (Output::Json, true) => {
                say_json(&json!({"type": "credential", "number": number, "logins": logins, "failed": failed}))
            }
            (Output::Json, false) => Ok(()),
        }
    }

    /// How many audit events of this kind told of something that went well.
    pub(crate) fn succeeded(&self, code: &str) -> usize {
        lock(&self.succeeded).get(code).copied().unwrap_or_default()
    }

    /// Takes the line away that is written anew.
    pub(crate) fn settle(&self) {
        if lock(&self.live).take().is_some() {
            output::rewrite("");
        }
    }

    fn rewrite(&self, line: String) -> std::io::Result<()> {
        if std::io::stdout().is_terminal() {
            let mut live = lock(&self.live);
            output::rewrite(&line);
            *live = Some(line);
        }
        Ok(())
    }

    /// A line above the one that is written anew.
    fn say(&self, text: impl Display) -> std::io::Result<()> {
        let live = lock(&self.live);
        let Some(line) = live.as_deref() else { return say(text) };
        output::rewrite("");
        say(text)?;
        output::rewrite(line);
        Ok(())
    }

    /// How many audit events were shown.
    pub(crate) fn events(&self) -> usize {
        self.events.load(Ordering::Relaxed)
    }

    /// The end.
    pub(crate) fn summary(&self, summary: &Summary<impl Seen>) -> anyhow::Result<()> {
        if self.output == Output::Json {
            return say_json(summary);
        }
        let Summary { ok, seen, error } = summary;
        let reduced = seen.reduced();
        if !reduced.is_empty() {
            let mut text = styled(WARNING, "reduced") + " here:";
            for word in reduced {
                let _ = write!(text, "\n{INDENT}{word}: {}", reduced::explain(word).meaning);
            }
            self.say(text)?;
        }
        if let Some(error) = error {
            output::remark(ERROR, "error", error);
        }
        if *ok {
            self.say(format_args!("{} {seen}", styled(GOOD.bold(), "ok")))?;
        }
        Ok(())
    }

    /// The ends of the logs in `folder`, where the demo failed.
    pub(crate) fn logs(&self, folder: &Path) {
        for name in [super::plugin::LOG, super::openbao::LOG, super::postgres::LOG] {
            let log = std::fs::read(folder.join(name)).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let from = log.lines().count().saturating_sub(LAST_LINES);
            for line in log.lines().skip(from) {
                output::remark(FAINT, name, line);
            }
        }
    }
}

/// Nobody panics while holding one of these, and what they hold is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Draws entries that are beside each other, and those beneath them. With each comes what is left of its path.
fn draw(entries: &[(&str, &Entry)], indent: &str, before: Option<&Tree>, text: &mut String) {
    let mut rest = entries;
    while let Some(((name, entry), others)) = rest.split_first() {
        let beneath = others.iter().take_while(|(path, _)| is_beneath(path, name).is_some()).count();
        let (beneath, others) = others.split_at(beneath);
        let (branch, below) = if others.is_empty() { ("└── ", "    ") } else { ("├── ", "│   ") };
        let owner = format!("{}:{}", entry.uid, entry.gid);
        let size = if entry.kind == Kind::File { entry.size.to_string() } else { String::new() };
        let slash = if entry.kind == Kind::Folder { "/" } else { "" };
        let changed = match before {
            Some(before) if entry.was_other_in(before) => format!("  {}", styled(WARNING, "← changed")),
            _ => String::new(),
        };
        let _ = write!(
            text,
            "\n{INDENT}{:04o}  {owner:<11}  {size:>5}  {}{name}{slash}{changed}",
            entry.mode,
            styled(FAINT, format_args!("{indent}{branch}"))
        );
        let beneath: Vec<_> =
            beneath.iter().filter_map(|(path, entry)| Some((is_beneath(path, name)?, *entry))).collect();
        draw(&beneath, &format!("{indent}{below}"), before, text);
        rest = others;
    }
}

/// The path within the folder, if it lies there.
fn is_beneath<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    path.strip_prefix(folder)?.strip_prefix('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_drawn_with_its_branches_and_what_changed() {
        let entry = |path: &str, kind, size| Entry { path: path.into(), kind, mode: 0o440, uid: 0, gid: 7, size };
        let old = [entry("api", Kind::Folder, 0), entry("api/key", Kind::File, 16), entry("z", Kind::File, 3)];
        let new = [entry("api", Kind::Folder, 0), entry("api/key", Kind::File, 16), entry("z", Kind::File, 4)];
        let tree = |entries: [Entry; 3]| Tree { generation: "..g1".into(), entries: entries.into() };
        let (old, new) = (tree(old), tree(new));
        let entries: Vec<_> = new.entries.iter().map(|entry| (entry.path.as_str(), entry)).collect();
        let mut text = String::new();
        draw(&entries, "", Some(&old), &mut text);
        let plain = anstream::adapter::strip_str(&text).to_string();
        let expected = "
    0440  0:7                 ├── api/
    0440  0:7             16  │   └── key
    0440  0:7              4  └── z  ← changed";
        assert_eq!(plain, expected);
    }
}
