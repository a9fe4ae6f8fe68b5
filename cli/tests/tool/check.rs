// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

use std::fs;

use tempfile::TempDir;

use super::{folder, run};

const BACKEND: &str = "apiVersion: evanesce.dev/v1alpha1
kind: SecretBackend
metadata: {name: vault}
spec:
  vault: {address: \"https://vault.example\", auth: {kubernetes: {role: app}}}
  allow: [{namespaces: [payments], serviceAccounts: [\"*\"], secrets: [kv/payments/*]}]
";

fn volume(namespace: &str, from: &str) -> String {
    format!(
        "apiVersion: evanesce.dev/v1alpha1
kind: SecretVolume
metadata: {{name: app, namespace: {namespace}}}
spec: {{files: [{{path: a, from: {{{from}}}}}]}}
"
    )
}

fn with(files: &[(&str, &str)]) -> TempDir {
    let folder = folder();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn what_is_right_is_listed_and_passes() {
    let folder = with(&[
        ("backend.yaml", BACKEND),
        ("volume.yaml", &volume("payments", "backend: vault, secret: kv/payments/db")),
    ]);
    let said = run(folder.path(), &["check", "backend.yaml", "volume.yaml"], "").ok();
    assert_eq!(
        said,
        "backend.yaml\n  ✓ SecretBackend vault        line 1\n\
         volume.yaml\n  ✓ SecretVolume payments/app  line 1\n\
         2 classes, 0 errors, 0 warnings, 0 notes\n"
    );
    // A folder is its files; what the node plugin would not read is not checked.
    fs::write(folder.path().join(".editor.yaml"), "{").unwrap();
    fs::write(folder.path().join("README.md"), "{").unwrap();
    assert_eq!(run(folder.path(), &["check", "."], "").ok().replace("./", ""), said);
    let piped = run(folder.path(), &["check", "-"], BACKEND).ok();
    assert!(piped.starts_with("standard input\n  ✓ SecretBackend vault"), "{piped}");
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_fails() {
    let right = volume("payments", "backend: vault, secret: kv/payments/db");
    let wrong = right.replace("path", "pfad");
    for (files, says) in [
        (&[("a.yaml", wrong.as_str())][..], "error: line 4, column 17: spec.files[0]: unknown key `pfad`"),
        (&[("a.yaml", "a: [b")], "error: line"),
        (&[("a.yaml", &right), ("b.yaml", &right)], "error: is also defined in a.yaml, line 1"),
        (
            &[("a.yaml", &BACKEND.replace("kv/payments/*", "kv/data/data/*"))],
            "error: line 6, column 70: spec.allow[0].secrets[0]: expected a path",
        ),
    ] {
        let folder = with(files);
        let args: Vec<_> = ["check"].into_iter().chain(files.iter().map(|(name, _)| *name)).collect();
        let ran = run(folder.path(), &args, "");
        assert_eq!(ran.code, 1);
        assert!(ran.out.contains(says), "{says}: {}", ran.out);
        assert!(ran.out.contains("1 error,"), "{}", ran.out);
    }
    let missing = run(folder().path(), &["check", "missing.yaml"], "").failed();
    assert!(missing.contains("missing.yaml: No such file"), "{missing}");
}

#[test]
fn volumes_are_held_against_the_backends_they_name() {
    let sealed = "apiVersion: evanesce.dev/v1alpha1
kind: SecretBackend
metadata: {name: sealed}
spec:
  sealed: {directory: /d, identityFile: i}
  allow: [{namespaces: [payments], serviceAccounts: [app], secrets: [\"*\"]}]
";
    for (from, namespace, code, says) in [
        (
            "backend: vualt, secret: kv/a",
            "payments",
            0,
            "warning: spec.files[0].from: SecretBackend vualt is in none of these files",
        ),
        (
            "backend: vault, secret: kv/other/db",
            "payments",
            0,
            "note: spec.files[0].from: no entry in spec.allow of SecretBackend vault lets a pod in namespace payments read kv/other/db",
        ),
        ("backend: vault, secret: kv/payments/db", "billing", 0, "lets a pod in namespace billing read kv/payments/db"),
        (
            "backend: sealed, secret: a, version: 3",
            "payments",
            1,
            "error: spec.files[0].from: sealed secrets have no numbered versions",
        ),
        ("backend: sealed, secret: sys/a", "payments", 0, "note: "),
        (
            "backend: sealed, secret: a/.b",
            "payments",
            1,
            "error: spec.files[0].from: a sealed secret's path has no segment",
        ),
    ] {
        let folder = with(&[("b.yaml", BACKEND), ("s.yaml", sealed), ("v.yaml", &volume(namespace, from))]);
        let ran = run(folder.path(), &["check", "."], "");
        assert_eq!(ran.code, code, "{}", ran.out);
        assert!(ran.out.contains(says), "{from}: {}", ran.out);
    }
    let clear = with(&[("b.yaml", &BACKEND.replace("https", "http"))]);
    let said = run(clear.path(), &["check", "b.yaml"], "").ok();
    assert!(said.contains("! SecretBackend vault") && said.contains("in the clear"), "{said}");
}

#[test]
fn a_backend_that_cannot_be_read_is_not_reported_missing_as_well() {
    let folder = with(&[
        ("b.yaml", &BACKEND.replace("allow", "alow")),
        ("v.yaml", &volume("payments", "backend: vault, secret: kv/a")),
    ]);
    let ran = run(folder.path(), &["check", "."], "");
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("1 error, 0 warnings, 0 notes"), "{}", ran.out);
}

#[test]
fn json_holds_the_same_for_programs() {
    let folder = with(&[
        ("b.yaml", BACKEND),
        ("v.yaml", &volume("payments", "backend: vault, secret: kv/a").replace("path", "pfad")),
    ]);
    let ran = run(folder.path(), &["check", "--output", "json", "b.yaml", "v.yaml"], "");
    let said: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, ran.err.as_str(), &said["ok"]), (1, "", &false.into()));
    assert_eq!(
        said["classes"][0],
        serde_json::json!({"file": "b.yaml", "line": 1, "class": "SecretBackend vault", "read": true})
    );
    let problem = &said["problems"][0];
    assert_eq!((&problem["level"], &problem["file"]), (&"error".into(), &"v.yaml".into()));
    assert_eq!(problem["class"], "SecretVolume payments/app");
    assert!(problem["message"].as_str().unwrap().contains("unknown key `pfad`"));
}

#[test]
fn a_wrong_command_line_is_told_from_a_failed_check() {
    for args in [&[][..], &["check"], &["frobnicate"], &["check", "--nonsense", "a"], &["unseal"], &["seal", "--force"]]
    {
        let ran = run(folder().path(), args, "");
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{args:?}");
        assert!(ran.err.contains("Usage:"), "{}", ran.err);
    }
}

#[test]
fn there_is_no_colour_where_nobody_looks() {
    let folder = with(&[("a.yaml", "a: [b")]);
    let ran = run(folder.path(), &["check", "a.yaml"], "");
    assert!(!ran.out.contains('\u{1b}') && !ran.err.contains('\u{1b}'));
}
