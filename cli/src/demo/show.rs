// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What the demo says: to a person in colour, to a machine in JSON lines.

use std::path::Path;

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use serde_json::{Value, json};

use super::look::Tree;
use crate::output::Output;

const STEP: Style = AnsiColor::Green.on_default().bold();
const FAINT: Style = Style::new().dimmed();
const EVENT: Style = AnsiColor::Cyan.on_default();

/// Where the demo says it.
pub(crate) struct Show {
    output: Output,
    events: usize,
}

/// The last line.
#[derive(Serialize)]
pub(crate) struct Summary {
    /// Everything the demo claims was seen.
    pub(crate) ok: bool,
    /// How many files the pod saw.
    pub(crate) files: usize,
    /// The mount's options.
    pub(crate) mount_options: Vec<String>,
    /// How many swaps the pod saw.
    pub(crate) swaps: usize,
    /// How many audit events were written.
    pub(crate) audit_events: usize,
    /// What a node has and this ground has not.
    pub(crate) reduced: Vec<&'static str>,
}

#[expect(clippy::print_stdout, reason = "this is what the command is for")]
impl Show {
    /// Says it in this form.
    pub(crate) fn new(output: Output) -> Self {
        Self { output, events: 0 }
    }

    /// One step is done.
    pub(crate) fn step(&self, text: &str) {
        match self.output {
            Output::Text => anstream::println!("{STEP}✓{STEP:#} {text}"),
            Output::Json => println!("{}", json!({"type": "step", "text": text})),
        }
    }

    /// The files.
    pub(crate) fn tree(&self, tree: &Tree) {
        match self.output {
            Output::Text => {
                anstream::println!("    {FAINT}..data → {}{FAINT:#}", tree.generation);
                for file in &tree.files {
                    anstream::println!(
                        "    {:04o} {:>5}:{:<5} {:>5} bytes  {}",
                        file.mode,
                        file.uid,
                        file.gid,
                        file.size,
                        file.path
                    );
                }
            }
            Output::Json => {
                let file = |file: &super::look::File| json!({"path": file.path, "mode": format!("{:04o}", file.mode), "uid": file.uid, "gid": file.gid, "size": file.size});
                let files: Vec<Value> = tree.files.iter().map(file).collect();
                println!("{}", json!({"type": "tree", "generation": tree.generation, "files": files}));
            }
        }
    }

    /// The mount's options.
    pub(crate) fn options(&self, options: &[String]) {
        match self.output {
            Output::Text => anstream::println!("    {FAINT}mounted{FAINT:#} {}", options.join(",")),
            Output::Json => println!("{}", json!({"type": "mount", "options": options})),
        }
    }

    /// One audit event, as the plugin wrote it.
    pub(crate) fn event(&mut self, line: &str) {
        self.events += 1;
        let event: Value = serde_json::from_str(line).unwrap_or_else(|_| Value::String(line.to_owned()));
        match self.output {
            Output::Text => {
                let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
                let status = text("status");
                let (class, activity) = (text("class_name"), text("activity_name"));
                anstream::println!(
                    "  {EVENT}audit{EVENT:#} {class}: {activity} {status} {FAINT}{}{FAINT:#}",
                    text("message")
                );
            }
            Output::Json => println!("{}", json!({"type": "audit", "event": event})),
        }
    }

    /// How many audit events were shown.
    pub(crate) fn events(&self) -> usize {
        self.events
    }

    /// The end: for a machine, always the last line.
    pub(crate) fn summary(&self, summary: &Summary) {
        match self.output {
            Output::Text => {
                let Summary { files, swaps, audit_events, reduced, .. } = summary;
                anstream::println!("{STEP}ok{STEP:#} {files} files, {swaps} swap, {audit_events} audit events");
                if !reduced.is_empty() {
                    anstream::println!("reduced, because this is not root on a node: {}", reduced.join(", "));
                }
            }
            Output::Json => println!("{}", serde_json::to_string(summary).unwrap_or_default()),
        }
    }

    /// The plugin's own log, where the demo failed.
    #[expect(clippy::print_stderr, reason = "this is what the command is for")]
    pub(crate) fn log(&self, path: &Path) {
        if let Ok(log) = std::fs::read_to_string(path) {
            let from = log.lines().count().saturating_sub(30);
            for line in log.lines().skip(from) {
                anstream::eprintln!("{FAINT}evanesce-csi: {line}{FAINT:#}");
            }
        }
    }
}
