// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce debug memscan` finds what is there: the control for every test that says that nothing is.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use evanesce_integration::memory::{self, Scan};
use evanesce_integration::processes::Process;
use rustix::process::Pid;

const PLACES: [&str; 4] = ["heap", "stack", "mapping", "unreadable"];
/// Every form differs from the raw one, and the two alphabets of base64 from each other.
const CANARY: &str = "canary/secret+one=\"9f2c6b7d41e84c33\"?????";

/// A process that holds what it was given.
struct Holder(Child);

impl Holder {
    fn of(held: &[(&str, String)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_canary-holder"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.as_mut().unwrap();
        for (place, text) in held {
            let inverted: String = text.bytes().map(|byte| format!("{:02x}", !byte)).collect();
            writeln!(input, "{place} {inverted}").unwrap();
        }
        writeln!(input).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }

    fn scan(&self, canaries: &[&str]) -> Scan {
        memory::scan(&[Process::new(Pid::from_child(&self.0))], canaries).unwrap()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The canary as others would write it.
fn forms() -> BTreeMap<&'static str, Vec<String>> {
    let hex = |upper: bool| -> String {
        CANARY.bytes().map(|byte| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") }).collect()
    };
    let aligned = |encode: &dyn Fn(String) -> String| {
        ["", "x", "xx"].map(|before| encode(format!("{before}{CANARY}, and more"))).to_vec()
    };
    let percent = |character: char| match character {
        'a'..='z' | '0'..='9' | '~' => character.to_string(),
        other => format!("%{:02X}", u32::from(other)),
    };
    BTreeMap::from([
        ("raw", vec![CANARY.to_owned()]),
        ("base64", aligned(&|text| BASE64_STANDARD.encode(text))),
        ("base64url", aligned(&|text| BASE64_URL_SAFE_NO_PAD.encode(text))),
        ("json", vec![format!(r#"{{"password":{}}}"#, serde_json::to_string(CANARY).unwrap())]),
        ("hex", vec![hex(false)]),
        ("hex-upper", vec![hex(true)]),
        ("percent", vec![CANARY.chars().map(percent).collect()]),
    ])
}

#[test]
fn every_form_is_found_once_in_heap_stack_and_mappings_also_unreadable_ones() {
    for (form, texts) in forms() {
        for text in texts {
            for place in PLACES {
                let holder = Holder::of(&[(place, text.clone())]);
                let scan = holder.scan(&["another secret", CANARY]);
                assert_eq!(scan.copies(2), [0, 1], "{form} in {place}\n{scan}");
                let found = scan.found()[0];
                assert_eq!(found.form, form, "in {place}");
                let named = match place {
                    "heap" | "stack" => format!("[{place}]"),
                    _ => "[anonymous]".to_owned(),
                };
                assert_eq!(found.mapping, named, "{form} in {place}");
                assert!(!scan.is_clean());
            }
        }
    }
}

#[test]
fn all_that_is_there_is_counted_and_nothing_else() {
    let held: Vec<_> =
        PLACES.into_iter().flat_map(|place| forms().into_values().flatten().map(move |text| (place, text))).collect();
    let holder = Holder::of(&held);
    let scan = holder.scan(&[CANARY]);
    assert_eq!(scan.copies(1), [held.len()], "{scan}");
    let [process] = &scan.processes[..] else { panic!("one process: {scan}") };
    assert!(process.bytes > 1 << 20, "hardly anything was read: {scan}");
    assert!(process.unread.iter().all(|unread| unread.why == "kernel"), "{scan}");
    assert!(holder.scan(&["5ab81e0c7f3d4296-of-somebody-else"]).is_clean());
}

#[test]
fn what_is_left_of_an_overwritten_copy_is_a_part() {
    let part = &CANARY[10..34];
    let holder = Holder::of(&[("heap", part.to_owned())]);
    let scan = holder.scan(&[CANARY]);
    assert_eq!(scan.copies(1), [0]);
    assert_eq!(scan.found().len(), 1, "{scan}");
}
