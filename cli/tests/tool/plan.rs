// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

use std::fs;

use serde_json::{Value, json};

use super::{folder, run};

const CLASSES: &str = r#"apiVersion: evanesce.dev/v1alpha1
kind: SecretBackend
metadata: {name: vault}
spec:
  vault: {address: "https://vault.example", auth: {kubernetes: {role: app}}}
  allow: [{namespaces: [payments], serviceAccounts: ["*"], secrets: ["kv/payments/*", "database/creds/*"]}]
---
apiVersion: evanesce.dev/v1alpha1
kind: SecretVolume
metadata: {name: app, namespace: payments}
spec:
  files:
    - {path: user, from: {backend: vault, secret: kv/payments/db, key: user}}
    - {path: password, from: {backend: vault, secret: kv/payments/db, key: password}}
    - {path: api, from: {backend: vault, secret: kv/payments/api, key: token}}
---
apiVersion: evanesce.dev/v1alpha1
kind: SecretVolume
metadata: {name: db, namespace: payments}
spec:
  files: [{path: db.json, from: {backend: vault, secret: database/creds/app}}]
"#;

#[test]
fn a_plan_counts_what_a_thousand_pods_ask() {
    let folder = folder();
    fs::write(folder.path().join("classes.yaml"), CLASSES).unwrap();
    let plan: Value =
        serde_json::from_str(&run(folder.path(), &["plan", "--output", "json", "classes.yaml"], "").ok()).unwrap();
    let [app, db] = &plan["volumes"].as_array().unwrap()[..] else { panic!("{plan}") };
    // Every five minutes: a login and two versions.
    assert_eq!(
        (&app["refreshes_per_hour"], &app["requests_per_hour"]),
        (&json!(12_000.0), &json!({"logins": 12_000.0, "versions": 24_000.0, "reads": 0.0, "all": 36_000.0}))
    );
    assert_eq!(app["start"], json!({"logins": 1, "reads": 2}));
    // A lease of an hour: once, and not every five minutes.
    assert_eq!(db["requests_per_hour"], json!({"logins": 1000.0, "versions": 0.0, "reads": 1000.0, "all": 2000.0}));

    let text = run(folder.path(), &["plan", "--pods", "10", "classes.yaml"], "").ok();
    assert!(text.contains("SecretVolume payments/app: every 300s, spread by 10 %"), "{text}");
    assert!(text.contains("10 pods per hour: 120 refreshes, 120 logins, 240 version checks, 0 reads"), "{text}");
    assert!(text.contains("taken to end after 3600 s"), "{text}");
}

#[test]
fn a_secret_without_versions_is_read_every_time() {
    let folder = folder();
    let text = CLASSES.replace("vault.example\", auth", "vault.example\", kv1Mounts: [kv], auth");
    fs::write(folder.path().join("classes.yaml"), text).unwrap();
    let plan: Value =
        serde_json::from_str(&run(folder.path(), &["plan", "--output", "json", "classes.yaml"], "").ok()).unwrap();
    let asked = &plan["volumes"][0]["requests_per_hour"];
    assert_eq!(*asked, json!({"logins": 12_000.0, "versions": 0.0, "reads": 24_000.0, "all": 36_000.0}));
}

#[test]
fn a_class_that_is_wrong_has_no_plan() {
    let folder = folder();
    fs::write(folder.path().join("classes.yaml"), CLASSES.replace("path: api", "pfad: api")).unwrap();
    assert!(run(folder.path(), &["plan", "classes.yaml"], "").failed().contains("pfad"));
}
