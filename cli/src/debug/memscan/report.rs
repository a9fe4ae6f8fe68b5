// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What was found, for people and for programs. Never a secret, nor what lies beside it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::process::Why;
use super::search::{FRAGMENT, Found};
use super::{Scan, Unread};
use crate::output::{ERROR, FAINT, GOOD, WARNING, say, say_json, styled};

/// A table for each process: copies by mapping and form, then what was not read.
pub(super) fn text(scans: &[Scan]) -> std::io::Result<()> {
    for scan in scans {
        let size = scan.bytes as f64 / f64::from(1 << 20);
        say(format_args!("process {} ({}): {size:.1} MiB in {} mappings", scan.pid, scan.name, scan.mappings))?;
        let (whole, parts) = counts(&scan.found);
        let style = if whole + parts == 0 { GOOD } else { ERROR };
        say(styled(style, format_args!("  {whole} copies, {parts} fragments of {FRAGMENT} bytes or more")))?;
        let mut table: BTreeMap<_, usize> = BTreeMap::new();
        for (mapping, found) in &scan.found {
            *table.entry((mapping, found.secret + 1, found.form.as_str(), !found.whole)).or_default() += 1;
        }
        for ((mapping, secret, form, fragment), count) in table {
            let what = if fragment { "fragments" } else { "copies" };
            say(format_args!("    {count:>4} {what} of secret {secret} as {form} in {mapping}"))?;
        }
        for unread in &scan.unread {
            let style = if unread.is_a_gap() { WARNING } else { FAINT };
            let (kib, name) = (unread.bytes >> 10, &unread.mapping.name);
            say(styled(style, format_args!("  not read: {kib} KiB of {name}: {}", why(unread).1)))?;
        }
    }
    Ok(())
}

/// One object.
pub(super) fn json(scans: &[Scan]) -> anyhow::Result<()> {
    let (copies, fragments) =
        scans.iter().map(|scan| counts(&scan.found)).fold((0, 0), |(a, b), (whole, parts)| (a + whole, b + parts));
    let processes: Vec<_> = scans.iter().map(process).collect();
    say_json(&json!({"ok": copies + fragments == 0, "copies": copies, "fragments": fragments, "processes": processes}))
}

fn process(scan: &Scan) -> Value {
    let found = scan.found.iter().map(|(mapping, found)| {
        json!({
            "secret": found.secret + 1, "form": found.form.as_str(), "whole": found.whole, "length": found.length,
            "mapping": mapping, "address": format!("{:#x}", found.address),
        })
    });
    let unread = scan
        .unread
        .iter()
        .map(|unread| json!({"mapping": unread.mapping.name, "bytes": unread.bytes, "why": why(unread).0}));
    json!({
        "pid": scan.pid, "name": scan.name, "mappings": scan.mappings, "bytes": scan.bytes,
        "found": found.collect::<Vec<_>>(), "unread": unread.collect::<Vec<_>>(),
    })
}

/// Whole copies and fragments.
fn counts(found: &[(String, Found)]) -> (usize, usize) {
    let whole = found.iter().filter(|(_, found)| found.whole).count();
    (whole, found.len() - whole)
}

/// One word for programs, a sentence for people.
fn why(unread: &Unread) -> (&'static str, &'static str) {
    match unread.why() {
        Why::SecretMemory => ("secret-memory", "memfd_secret, which no other process can read"),
        Why::Kernels => ("kernel", "the kernel's own"),
        Why::Gap => ("gap", "it should have been readable, so a copy there is not counted"),
    }
}
