// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The committed Rust in `src/gen` is what the schema in `proto/` gives. A plain build needs no code generator, and a
//! schema that moved without its code is a red test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "schema/sensitive.rs"]
mod sensitive;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/gen");

/// Set to anything, it makes the test write instead of compare.
const UPDATE: &str = "EVANESCE_UPDATE";

#[test]
fn the_committed_code_is_what_the_schema_gives() {
    let generated = generate();
    if std::env::var_os(UPDATE).is_some() {
        write(&generated);
    }
    let committed = read(Path::new(COMMITTED));
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&committed), names(&generated), "src/gen holds other files than the schema gives; {}", cure());
    for (name, text) in &generated {
        assert!(committed[name] == *text, "src/gen/{name} is not what the schema gives; {}", cure());
    }
}

#[test]
fn every_message_with_a_sensitive_field_is_generated_without_debug() {
    let skipped = generate().values().map(|text| text.matches("#[prost(skip_debug)]").count()).sum::<usize>();
    assert_eq!(skipped, redacted_by_hand().len());
}

fn cure() -> String {
    format!("update it with `{UPDATE}=1 cargo test -p evanesce-proto --test generated` and review the difference")
}

/// Messages whose `Debug` is written by hand in `src/redact.rs`, as prost names them.
fn redacted_by_hand() -> Vec<String> {
    let pool = sensitive::descriptors();
    sensitive::messages(&pool)
        .filter(|message| sensitive::sensitive_fields(message).next().is_some())
        .map(|message| format!(".{}", message.full_name()))
        .collect()
}

fn generate() -> BTreeMap<String, String> {
    let out = tempfile::tempdir().unwrap();
    let pool = sensitive::descriptors();
    let files = prost_types::FileDescriptorSet { file: pool.file_descriptor_protos().cloned().collect() };
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .emit_rerun_if_changed(false)
        .skip_debug(redacted_by_hand())
        .out_dir(out.path())
        .compile_fds(files)
        .unwrap();
    read(out.path())
}

fn read(dir: &Path) -> BTreeMap<String, String> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
        })
        .collect()
}

fn write(generated: &BTreeMap<String, String>) {
    for name in read(Path::new(COMMITTED)).keys().filter(|name| !generated.contains_key(*name)) {
        fs::remove_file(Path::new(COMMITTED).join(name)).unwrap();
    }
    for (name, text) in generated {
        fs::write(Path::new(COMMITTED).join(name), text).unwrap();
    }
}
