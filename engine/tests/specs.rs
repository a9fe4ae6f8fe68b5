// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Classes as users write them: every file below `specs/succeeds` parses, every file below `specs/fails` fails with the
//! message in its first line. To add a case, add a file.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evanesce_engine::error::Kind;
use evanesce_engine::spec::backend::{ClientCertificate, Limits, PemSource, Provider, VaultAuth};
use evanesce_engine::spec::volume::{Format, Password, Select};
use evanesce_engine::spec::{ClassName, Document, Documents, VolumeSpec, crd, keys, reference};

fn cases(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/specs").join(folder);
    let mut cases: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

fn parsed(case: &str) -> Vec<Document> {
    let path = cases("succeeds").into_iter().find(|path| path.to_str().unwrap().contains(case)).unwrap();
    Documents::parse(&fs::read_to_string(path).unwrap()).unwrap().0
}

#[test]
fn what_is_right_is_read() {
    for case in cases("succeeds") {
        let text = fs::read_to_string(&case).unwrap();
        if let Err(error) = Documents::parse(&text) {
            panic!("{}: {error}", case.display());
        }
    }
}

#[test]
fn what_is_wrong_says_where_and_how_to_mend_it() {
    let mut failures = String::new();
    for case in cases("fails") {
        let text = fs::read_to_string(&case).unwrap();
        let expected = text.lines().next().unwrap().strip_prefix("# error: ").unwrap();
        let message = match Documents::parse(&text) {
            Ok(_) => "it was read".to_owned(),
            Err(error) => {
                assert_eq!(error.kind(), Kind::Invalid);
                format!("{error:?} {error}")
            }
        };
        if !message.contains(expected) || message.contains("CANARY") {
            failures += &format!("{}\n  expected: {expected}\n  heard:    {message}\n", case.display());
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

/// What the API server makes of the documents of a file; `None` where it is not YAML that it could read.
fn objects(text: &str) -> Option<Vec<serde_json::Value>> {
    let mut objects: Vec<serde_json::Value> = serde_saphyr::from_multiple(text).ok()?;
    for metadata in objects.iter_mut().filter_map(|object| object.get_mut("metadata")?.as_object_mut()) {
        metadata.extend([
            ("uid".to_owned(), "2f1a".into()),
            ("resourceVersion".to_owned(), "7".into()),
            ("generation".to_owned(), 1.into()),
            ("creationTimestamp".to_owned(), "2026-01-01T00:00:00Z".into()),
            ("managedFields".to_owned(), serde_json::json!([{ "manager": "kubectl" }])),
        ]);
    }
    Some(objects)
}

#[test]
fn an_object_of_the_api_means_what_a_file_with_the_same_in_it_means() {
    for case in cases("succeeds") {
        let text = fs::read_to_string(&case).unwrap();
        let read: Vec<_> = objects(&text).unwrap().iter().map(|it| Document::from_object(it).unwrap()).collect();
        assert_eq!(read, Documents::parse(&text).unwrap().0, "{}", case.display());
    }
}

#[test]
fn an_object_of_the_api_is_refused_in_the_words_that_a_file_gets_without_line_and_column() {
    let (mut compared, mut not_yaml) = (0, Vec::new());
    for case in cases("fails") {
        let text = fs::read_to_string(&case).unwrap();
        let Some(objects) = objects(&text) else {
            not_yaml.push(case.file_stem().unwrap().to_str().unwrap().to_owned());
            continue;
        };
        let said = objects.iter().find_map(|object| Document::from_object(object).err()).unwrap();
        let of_file = Documents::parse(&text).unwrap_err();
        let (place, words) = of_file.message().split_once(": ").unwrap();
        assert!(place.starts_with("line "), "{}: {place}", case.display());
        // A number of JSON is not as it was written.
        assert_eq!(said.message(), words.replace("\"007\"", "\"7.0\""), "{}", case.display());
        assert_eq!(said.kind(), Kind::Invalid);
        compared += 1;
    }
    assert_eq!(not_yaml, ["56_twice", "57_not_yaml"]);
    assert!(compared > 60, "{compared}");
}

#[test]
fn every_key_that_is_accepted_stands_in_an_example() {
    let examples: String = cases("succeeds").iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let words: BTreeSet<_> = examples.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    for table in keys::TABLES {
        for key in table.keys {
            assert!(words.contains(key.name), "no example has {} of {:?}", key.name, table.path);
        }
    }
}

#[test]
fn every_key_of_a_later_release_is_refused_by_name() {
    let file = "{path: a, from: {backend: b, secret: c}";
    let head = |kind: &str, spec: &str| {
        let namespace = if kind == "SecretVolume" { ", namespace: n" } else { "" };
        format!("apiVersion: evanesce.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: a{namespace}}}\nspec: {{{spec}}}\n")
    };
    let allow = "allow: [{namespaces: [a], serviceAccounts: [b], secrets: [c]}]";
    for table in keys::TABLES {
        for later in table.later {
            let text = match (table.path, table.about.contains("SecretVolume")) {
                ("spec", true) => head("SecretVolume", &format!("{later}: x, files: [{file}}}]")),
                ("spec", false) => head("SecretBackend", &format!("{later}: {{}}, {allow}")),
                ("spec.aws", _) => head("SecretBackend", &format!("aws: {{region: a-b, {later}: x}}, {allow}")),
                ("spec.aws.auth", _) => {
                    head("SecretBackend", &format!("aws: {{region: a-b, auth: {{{later}: x}}}}, {allow}"))
                }
                ("spec.limits", _) => head(
                    "SecretBackend",
                    &format!("sealed: {{directory: /a, identityFile: b}}, {allow}, limits: {{{later}: 1}}"),
                ),
                ("spec.leases", _) => head("SecretVolume", &format!("files: [{file}}}], leases: {{{later}: x}}")),
                ("spec.files[]", _) => head("SecretVolume", &format!("files: [{file}, {later}: x}}]")),
                ("spec.files[].from", _) => {
                    head("SecretVolume", &format!("files: [{{path: a, from: {{backend: b, secret: c, {later}: x}}}}]"))
                }
                (path, _) => panic!("write a case for {path}"),
            };
            let error = Documents::parse(&text).unwrap_err().to_string();
            assert!(error.contains(&format!("`{later}` comes with a later release")), "{later}: {error}");
        }
    }
}

#[test]
fn the_designs_example_means_what_it_says() {
    let [Document::Backend(backend), Document::Volume { namespace, name, spec }] = &parsed("01_")[..] else { panic!() };
    let Provider::Vault(vault) = &backend.provider else { panic!() };
    assert_eq!(vault.addresses, ["https://vault.example:8200"]);
    assert_eq!((vault.kv_mounts.join(" "), &vault.ca, &vault.namespace), ("kv secret".to_owned(), &None, &None));
    let VaultAuth::Kubernetes { mount, role, audience } = &vault.auth else { panic!() };
    assert_eq!((mount.as_str(), role.as_str(), audience.as_str()), ("kubernetes", "app", "vault"));
    assert_eq!(backend.allow[0].secrets, ["kv/payments/*", "database/creds/*"]);
    let limits = Limits {
        timeout: Duration::from_secs(10),
        parallel: 16,
        parallel_per_node: 64,
        requests_per_second: 100,
        reuse: Duration::from_secs(5),
        offline_grace: None,
    };
    assert_eq!(backend.limits, limits);
    assert_eq!((namespace.as_str(), name.as_str()), ("payments", "app-db"));
    assert_eq!((spec.refresh.every, spec.refresh.jitter_percent), (Duration::from_secs(300), 10));
    assert_eq!((spec.keep_previous, spec.size), (VolumeSpec::DEFAULT_KEEP_PREVIOUS, None));
    assert_eq!(spec.files[1].mode.unwrap().bits(), 0o440);
    assert_eq!(spec.files[0].select, Select::Key("username".to_owned()));
}

#[test]
fn every_other_value_means_what_it_says() {
    let [Document::Backend(backend)] = &parsed("02_")[..] else { panic!() };
    let Provider::Vault(vault) = &backend.provider else { panic!() };
    assert_eq!(vault.addresses, ["http://127.0.0.1:8200"]);
    assert_eq!(vault.ca, Some(PemSource::File("vault-ca.pem".to_owned())));
    assert_eq!((vault.namespace.as_deref(), vault.kv_mounts.join(" ")), (Some("team/a"), "kv apps/kv".to_owned()));
    assert_eq!(backend.allow[0].role.as_deref(), Some("readonly"));
    let limits = Limits {
        timeout: Duration::from_secs(60),
        parallel: 64,
        parallel_per_node: 1024,
        requests_per_second: 10_000,
        reuse: Duration::ZERO,
        offline_grace: Some(Duration::from_secs(600)),
    };
    assert_eq!(backend.limits, limits);

    let [Document::Volume { spec, .. }, Document::Backend(backend)] = &parsed("03_")[..] else { panic!() };
    let Provider::Sealed(sealed) = &backend.provider else { panic!() };
    assert_eq!(
        (sealed.directory.as_str(), sealed.identity_file.as_str()),
        ("/var/lib/evanesce/secrets", "identity.txt")
    );
    assert_eq!((spec.keep_previous, spec.size), (Duration::ZERO, Some(64 << 10)));
    assert_eq!((spec.refresh.every, spec.refresh.jitter_percent), (Duration::from_secs(5400), 0));
    let [all, extra] = &spec.files[..] else { panic!() };
    assert_eq!((&all.select, all.uid, all.gid), (&Select::EachKey, Some(1000), Some(0)));
    assert_eq!((&extra.select, extra.from.version), (&Select::Key("007".to_owned()), Some(3)));
    let args: Vec<_> = extra.from.args.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(args.join(" "), "common_name=app.example count=5 ttl=24h");

    let [Document::Volume { spec, .. }] = &parsed("06_")[..] else { panic!() };
    assert_eq!(spec.files[0].from, spec.files[1].from);
    assert_eq!((spec.files[0].uid, spec.files[1].uid, spec.size), (Some(1000), Some(1000), Some(1 << 20)));

    let [Document::Volume { spec, .. }] = &parsed("23_")[..] else { panic!() };
    let [json, dotenv, bundle, fixed, store] = [0, 1, 2, 3, 4].map(|at| &spec.files[at].select);
    assert_eq!((json, dotenv), (&Select::Whole(Format::Json), &Select::Whole(Format::Dotenv)));
    assert_eq!((bundle, fixed), (&Select::Whole(Format::PemBundle), &Select::Whole(Format::Pkcs12 { password: None })));
    let Select::Whole(Format::Pkcs12 { password: Some(Password { from, key }) }) = store else { panic!() };
    assert_eq!(
        (from.to_string().as_str(), from.version, key.as_str()),
        ("vault:kv/payments/store", Some(2), "password")
    );
    let asked: Vec<_> = spec.references().map(|it| it.path.as_str()).collect();
    assert_eq!(
        asked,
        ["kv/payments/app", "kv/payments/app", "pki/issue/app", "pki/issue/app", "pki/issue/app", "kv/payments/store"]
    );

    let [Document::Backend(app_role), Document::Backend(cert)] = &parsed("20_")[..] else { panic!() };
    let Provider::Vault(vault) = &app_role.provider else { panic!() };
    // A default that the class says otherwise of is none.
    assert_eq!(
        (vault.kv_mounts.join(" "), vault.kv1_mounts.join(" ")),
        ("kv".to_owned(), "secret legacy/kv".to_owned())
    );
    let VaultAuth::AppRole { mount, role_id_file, secret_id_file } = &vault.auth else { panic!() };
    assert_eq!((mount.as_str(), role_id_file.as_str(), secret_id_file.as_str()), ("approle", "role-id", "secret-id"));
    let Provider::Vault(vault) = &cert.provider else { panic!() };
    assert_eq!(vault.auth, VaultAuth::Cert { mount: "cert".to_owned(), role: Some("node".to_owned()) });
    let ClientCertificate { file, key_file } = vault.client_certificate.as_ref().unwrap();
    assert_eq!((file.as_str(), key_file.as_str()), ("node.pem", "node.key"));
    let [Document::Backend(backend)] = &parsed("21_")[..] else { panic!() };
    let Provider::Vault(vault) = &backend.provider else { panic!() };
    let VaultAuth::Jwt { mount, role, audience, share_pods } = &vault.auth else { panic!() };
    assert_eq!((mount.as_str(), role.as_str(), audience.as_str(), *share_pods), ("jwt", "{namespace}", "vault", true));

    let [Document::Backend(backend)] = &parsed("08_")[..] else { panic!() };
    let Provider::Vault(vault) = &backend.provider else { panic!() };
    assert_eq!(vault.addresses, ["https://vault-0.example:8200", "https://vault-1.example:8200"]);
}

#[test]
fn one_wrong_document_takes_no_other_with_it_and_is_known_by_its_name() {
    let good = "apiVersion: evanesce.dev/v1alpha1\nkind: SecretVolume\nmetadata: {name: NAME, namespace: n}\nspec: {files: [{path: a, from: {backend: b, secret: c}}]}\n";
    let text = format!(
        "{}---\n{}---\n{}",
        good.replace("NAME", "one"),
        good.replace("NAME", "two").replace("path", "pfad"),
        good.replace("NAME", "three")
    );
    let readings = Documents::read(&text).unwrap();
    let said: Vec<_> = readings
        .iter()
        .map(|it| {
            format!(
                "{} {} {}",
                it.line,
                it.name.as_ref().map_or("?".to_owned(), ClassName::to_string),
                it.document.is_ok()
            )
        })
        .collect();
    assert_eq!(said, ["1 SecretVolume n/one true", "6 SecretVolume n/two false", "11 SecretVolume n/three true"]);
    assert!(Documents::parse(&text).is_err());
}

/// That a file of the repository is the one that the code writes; writes it where `EVANESCE_UPDATE` is set.
fn in_step(path: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    if std::env::var_os("EVANESCE_UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "run the test again with EVANESCE_UPDATE=1 and commit {}", path.display());
}

#[test]
fn the_reference_page_is_the_one_that_the_code_writes() {
    in_step("docs/reference/classes.md", &reference::reference());
}

#[test]
fn the_custom_resource_definitions_are_those_that_the_code_writes() {
    let template = crd::template();
    in_step("charts/evanesce/templates/crds.yaml", &template);
    // What looks like a template in a rule or a description would be run by Helm.
    let lines = template.lines().filter(|line| line.contains("{{") || line.contains("}}"));
    let ours = ["{{- /*", "{{- if", "{{- include", "{{- end"];
    for line in lines {
        assert!(ours.iter().any(|it| line.trim_start().starts_with(it)), "{line}");
    }
}
