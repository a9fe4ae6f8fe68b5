// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::error::Kind;
use crate::names::{Namespace, NodeName, PodName, PodUid, ServiceAccountName};
use crate::policy::{Allow, Glob, SecretPattern, authorise};
use crate::secret::{SecretBytes, ValueKind};
use crate::secret_ref::SecretPath;
use crate::workload::Workload;

/// A folder of sealed files, one that is not sealed beside it, and two identities in the credentials.
struct Fixture {
    folder: TempDir,
    recipient: String,
    backend: SealedBackend,
}

struct OneFile(Vec<u8>);

#[async_trait]
impl CredentialFiles for OneFile {
    async fn read(&self, name: &str) -> Result<SecretBytes, Error> {
        assert_eq!(name, "identity.txt");
        Ok(SecretBytes::from(self.0.as_slice()))
    }
}

impl Fixture {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let secrets = folder.path().join("secrets");
        fs::create_dir(&secrets).unwrap();
        let ((old, _), (identity, recipient)) = (new_identity(), new_identity());
        let file = [b"# two of them\n\n", old.expose(), b"\n", identity.expose(), b"\n"].concat();
        let spec =
            SealedSpec { directory: secrets.to_str().unwrap().to_owned(), identity_file: "identity.txt".to_owned() };
        let backend = SealedBackend::new(&spec, BackendName::parse("sealed").unwrap(), Arc::new(OneFile(file)));
        Self { folder, recipient, backend }
    }

    fn sealed(&self, text: &str) -> Vec<u8> {
        let recipients = Recipients::parse([self.recipient.as_str()], []).unwrap();
        seal(&SecretBytes::from(text.as_bytes()), &recipients).unwrap()
    }

    fn put(&self, path: &str, contents: impl AsRef<[u8]>) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    fn grant(&self, path: &str) -> Result<Grant, Error> {
        let all = || vec![Glob::parse("*")];
        let secrets = vec![SecretPattern::parse("*", &self.backend)?];
        let allow = Allow { namespaces: all(), service_accounts: all(), secrets, role: None };
        let reference = SecretRef {
            backend: self.backend.name.clone(),
            path: SecretPath::parse(path)?,
            version: None,
            args: BTreeMap::new(),
        };
        authorise(&self.backend, &[allow], &workload(), &reference)
    }

    async fn session(&self) -> Box<dyn Session> {
        let workload = workload();
        let caller = Caller { workload: &workload, token: None };
        let identity = self.backend.identity(&caller, None).unwrap();
        self.backend.open(&caller, &identity).await.unwrap_or_else(|error| panic!("{error}"))
    }

    async fn fetch(&self, path: &str) -> Result<Secret, BackendError> {
        self.session().await.fetch(&self.grant(path).unwrap()).await
    }

    async fn failure(&self, path: &str) -> (BackendErrorKind, String) {
        let Err(error) = self.fetch(path).await else { panic!("{path} was read") };
        assert!(!error.message.contains("CANARY"), "{}", error.message);
        (error.kind, error.message)
    }
}

fn workload() -> Workload {
    Workload {
        namespace: Namespace::parse("payments").unwrap(),
        service_account: ServiceAccountName::parse("app").unwrap(),
        pod: PodName::parse("p").unwrap(),
        pod_uid: PodUid::parse("u").unwrap(),
        node: NodeName::parse("n").unwrap(),
    }
}

fn text(secret: &Secret, key: &str) -> String {
    String::from_utf8(secret.values[key].bytes.expose().to_vec()).unwrap()
}

#[tokio::test]
async fn what_was_sealed_is_fetched_to_the_letter() {
    let fixture = Fixture::new();
    let sealed = fixture.sealed(
        "user: app\npin: 007\nport: 5432\nratio: 1.10\nyes: yes\non: true\nquoted: \"5\"\nempty: \"\"\n\
         block: |\n  two\n  lines\nlist: [a, 1, 01, null, {b: \"c\\\"\"}]\n",
    );
    assert!(sealed.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----"));
    fixture.put("secrets/payments/db.yaml.age", sealed);
    let secret = fixture.fetch("payments/db").await.unwrap_or_else(|error| panic!("{error}"));
    let said: Vec<_> =
        secret.values.iter().map(|(key, value)| (key.as_str(), text(&secret, key), value.kind)).collect();
    let expected = [
        ("block", "two\nlines\n", ValueKind::Text),
        ("empty", "", ValueKind::Text),
        ("list", r#"["a",1,"01",null,{"b":"c\""}]"#, ValueKind::Json),
        ("on", "true", ValueKind::Json),
        ("pin", "007", ValueKind::Text),
        ("port", "5432", ValueKind::Json),
        ("quoted", "5", ValueKind::Text),
        ("ratio", "1.10", ValueKind::Json),
        ("user", "app", ValueKind::Text),
        ("yes", "yes", ValueKind::Text),
    ];
    assert_eq!(said, expected.map(|(key, value, kind)| (key, value.to_owned(), kind)));
}

#[tokio::test]
async fn the_version_changes_with_the_file_and_needs_no_identity() {
    let fixture = Fixture::new();
    let session = fixture.session().await;
    let grant = fixture.grant("a").unwrap();
    let mut versions = Vec::new();
    for value in ["one", "two"] {
        fixture.put("secrets/a.yaml.age", fixture.sealed(&format!("key: {value}\n")));
        let version = session.version(&grant).await.ok().unwrap();
        assert_eq!(session.fetch(&grant).await.ok().unwrap().version, version);
        versions.push(version.unwrap());
    }
    assert_ne!(versions[0], versions[1]);
    fixture.put("secrets/a.yaml.age", "not sealed at all");
    assert!(session.version(&grant).await.ok().unwrap().is_some());
}

#[tokio::test]
async fn no_path_and_no_link_leaves_the_folder() {
    let fixture = Fixture::new();
    let sealed = fixture.sealed("key: CANARY\n");
    fixture.put("outside.yaml.age", &sealed);
    fixture.put("secrets/payments/db.yaml.age", &sealed);
    let secrets = fixture.folder.path().join("secrets");
    symlink("../outside.yaml.age", secrets.join("up.yaml.age")).unwrap();
    symlink(fixture.folder.path().join("outside.yaml.age"), secrets.join("absolute.yaml.age")).unwrap();
    symlink("..", secrets.join("folder")).unwrap();
    symlink("circle.yaml.age", secrets.join("circle.yaml.age")).unwrap();
    for path in ["up", "absolute", "folder/outside", "circle"] {
        let (kind, message) = fixture.failure(path).await;
        assert_eq!(kind, BackendErrorKind::NotFound, "{message}");
        assert!(message.contains("link"), "{message}");
    }
    for path in ["../outside", ".hidden", "payments/.db", "..data/payments/db", "/etc/passwd"] {
        assert_eq!(fixture.grant(path).err().unwrap().kind(), Kind::Invalid, "{path}");
    }
}

#[tokio::test]
async fn a_mounted_config_map_is_read_through_its_links() {
    let fixture = Fixture::new();
    fixture.put("secrets/..1/db.yaml.age", fixture.sealed("key: value\n"));
    let secrets = fixture.folder.path().join("secrets");
    symlink("..1", secrets.join("..data")).unwrap();
    symlink("..data/db.yaml.age", secrets.join("db.yaml.age")).unwrap();
    assert_eq!(text(&fixture.fetch("db").await.ok().unwrap(), "key"), "value");
}

#[tokio::test]
async fn what_cannot_be_opened_says_why_and_quotes_nothing() {
    let fixture = Fixture::new();
    let (_, stranger) = new_identity();
    let recipients = Recipients::parse([stranger.as_str()], []).unwrap();
    let text = SecretBytes::from(b"key: CANARY\n".as_slice());
    let mut changed = fixture.sealed("key: CANARY\n");
    let last = changed.len() - 60;
    changed[last] = if changed[last] == b'A' { b'B' } else { b'A' };
    fixture.put("secrets/stranger.yaml.age", seal(&text, &recipients).unwrap());
    fixture.put("secrets/plain.yaml.age", "key: CANARY\n");
    fixture.put("secrets/changed.yaml.age", changed);
    fixture.put("secrets/large.yaml.age", vec![b'-'; 2 * 1024 * 1024 + 1]);
    fs::create_dir(fixture.folder.path().join("secrets/folder.yaml.age")).unwrap();
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        fixture.folder.path().join("secrets/fifo.yaml.age"),
        rustix::fs::Mode::from_raw_mode(0o600),
    )
    .unwrap();
    let long = "a".repeat(300);
    for (path, kind, why) in [
        ("stranger", BackendErrorKind::Malformed, "not sealed for this identity"),
        ("plain", BackendErrorKind::Malformed, "is not a sealed file"),
        ("changed", BackendErrorKind::Malformed, "was changed"),
        ("large", BackendErrorKind::Malformed, "too large"),
        ("missing", BackendErrorKind::NotFound, "no such file"),
        ("plain/below", BackendErrorKind::NotFound, "no such file"),
        ("folder", BackendErrorKind::NotFound, "is not a file"),
        ("fifo", BackendErrorKind::NotFound, "is not a file"),
        (long.as_str(), BackendErrorKind::NotFound, "no such file"),
    ] {
        let (found, message) = fixture.failure(path).await;
        assert!(found == kind && message.contains(why), "{path}: {found:?} {message}");
    }
}

#[test]
fn what_is_not_a_map_of_keys_to_values_is_not_sealed() {
    let (_, recipient) = new_identity();
    let recipients = Recipients::parse([recipient.as_str()], []).unwrap();
    for (text, says) in [
        ("", "one YAML map"),
        ("{}", "empty"),
        ("CANARY", "one YAML map"),
        ("- CANARY", "one YAML map"),
        ("a: CANARY\n---\nb: CANARY\n", "one YAML map"),
        ("a: CANARY\na: CANARY\n", "line 2, column 1: key `a` is written twice"),
        ("a: CANARY\nkey:\n", "line 2, column 1: `key` has no value"),
        ("key: ~\n", "has no value"),
        ("a: \"CANARY", "line"),
        ("a: *CANARY", "needs quotes"),
        ("a: @CANARY", "not YAML"),
        ("\"\": CANARY", "a key has 1 to 255 bytes"),
        ("\"a\\nb\": CANARY", "a key has 1 to 255 bytes"),
    ] {
        let error = seal(&SecretBytes::from(text.as_bytes()), &recipients).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        let error = format!("{error:?} {error}");
        assert!(error.contains(says) && !error.contains("CANARY"), "{text:?}: {error}");
    }
}

#[test]
fn a_question_that_sealed_files_cannot_answer_is_refused_before_it_is_asked() {
    let fixture = Fixture::new();
    let mut reference = SecretRef {
        backend: fixture.backend.name.clone(),
        path: SecretPath::parse("a").unwrap(),
        version: Some(3),
        args: BTreeMap::new(),
    };
    let says = |reference: &SecretRef| fixture.backend.canonical(reference).unwrap_err().to_string();
    assert!(says(&reference).contains("remove 'version'"));
    reference.version = None;
    reference.args.insert("a".to_owned(), "b".to_owned());
    assert!(says(&reference).contains("remove 'args'"));
}

#[test]
fn keys_of_the_wrong_kind_are_refused_and_never_quoted() {
    let (identity, recipient) = new_identity();
    let identity = String::from_utf8(identity.expose().to_vec()).unwrap();
    for wrong in [identity.as_str(), "age1CANARY", ""] {
        let error = Recipients::parse([wrong], []).err().unwrap().to_string();
        assert!(!error.contains("CANARY") && !error.contains("SECRET"), "{error}");
        assert!(Recipients::parse([], [wrong.as_bytes()]).is_err());
    }
    for wrong in [recipient.as_str(), "", "# nothing\n", "AGE-SECRET-KEY-1CANARY", "\u{ff}"] {
        let error = Identities::parse(wrong.as_bytes()).err().unwrap().to_string();
        assert!(!error.contains("CANARY") && !error.contains(&recipient), "{error}");
    }
}

#[tokio::test]
async fn a_probe_looks_for_the_folder() {
    let fixture = Fixture::new();
    assert!(fixture.backend.probe().await.is_ok());
    fs::remove_dir(fixture.folder.path().join("secrets")).unwrap();
    assert_eq!(fixture.backend.probe().await.err().unwrap().kind, BackendErrorKind::Unavailable);
}

#[test]
fn a_change_anywhere_in_the_folder_is_noticed_until_nobody_watches() {
    let fixture = Fixture::new();
    let (tell, told) = std::sync::mpsc::channel();
    let watch = fixture
        .backend
        .watch(Box::new(move || {
            let _ = tell.send(());
        }))
        .unwrap();
    // The watch begins on a thread of its own: the first change may come too early for it.
    let noticed = |path: &str| {
        let begun = std::time::Instant::now();
        loop {
            fixture.put(path, "anything");
            if told.recv_timeout(Duration::from_secs(1)).is_ok() {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{path} changed unnoticed");
        }
    };
    for path in ["secrets/a.yaml.age", "secrets/new/folder/b.yaml.age", "secrets/new/folder/b.yaml.age"] {
        noticed(path);
    }
    drop(watch);
    // The thread drops what it tells with when it ends.
    let end = loop {
        if let Err(end) = told.recv_timeout(Duration::from_secs(30)) {
            break end;
        }
    };
    assert_eq!(end, std::sync::mpsc::RecvTimeoutError::Disconnected);
}
