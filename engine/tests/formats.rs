// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Formats, read by those who are to read them: a shell, Python's TLS, `openssl pkcs12`. Java's keytool reads what a real OpenBao
//! issued, in `integration/tests/formats.rs`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use evanesce_engine::error::Error;
use evanesce_engine::names::BackendName;
use evanesce_engine::projection::{DigestKey, FilePath, Projection};
use evanesce_engine::render::render;
use evanesce_engine::secret::{Secret, SecretBytes, Value, ValueKind};
use evanesce_engine::secret_ref::{SecretPath, SecretRef};
use evanesce_engine::spec::VolumeSpec;
use evanesce_engine::spec::volume::{FileSpec, Format, Password, Refresh, Select};
use proptest::prelude::*;
use tempfile::TempDir;

fn reference(path: &str) -> SecretRef {
    SecretRef {
        backend: BackendName::parse("vault").unwrap(),
        path: SecretPath::parse(path).unwrap(),
        version: None,
        args: BTreeMap::new(),
    }
}

fn secret<'a>(values: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Arc<Secret> {
    let values = values
        .into_iter()
        .map(|(key, bytes)| (key.to_owned(), Value { bytes: SecretBytes::from(bytes), kind: ValueKind::Text }));
    let (values, version) = (values.collect(), None);
    Arc::new(Secret { values, version, lease: None, expires_at: None, rotates_in: None, request_id: None })
}

/// The secret `kv/app` in one file, with `kv/store` beside it.
fn rendered(format: Format, app: &Arc<Secret>, store: &Arc<Secret>) -> Result<Projection, Error> {
    let select = Select::Whole(format);
    let path = FilePath::parse("file").unwrap();
    let spec = VolumeSpec {
        refresh: Refresh::default(),
        keep_previous: VolumeSpec::DEFAULT_KEEP_PREVIOUS,
        overlap: VolumeSpec::DEFAULT_OVERLAP,
        lease_scope: Default::default(),
        max_stale: None,
        size: None,
        files: vec![FileSpec { path, from: reference("kv/app"), select, mode: None, uid: None, gid: None }],
    };
    let secrets = [("kv/app", app), ("kv/store", store)].map(|(path, secret)| (reference(path), Arc::clone(secret)));
    render(&spec, None, &BTreeMap::from(secrets))
}

fn bytes(projection: &Projection) -> Vec<u8> {
    projection.files().next().unwrap().1.bytes.expose().to_vec()
}

/// Runs `program` in `folder`; what it said.
fn run(folder: &Path, program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).current_dir(folder).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed: `apt-get install {program}`: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// A root, an authority below it, and a leaf of `key`, which `openssl` makes with `how`: the texts of key, leaf, authority, root.
fn made(folder: &Path, how: &str) -> [Vec<u8>; 4] {
    let script = format!(
        "set -e
         export OPENSSL_CONF=/dev/null
         ca='basicConstraints=critical,CA:TRUE'
         for name in root authority; do openssl genpkey -algorithm ED25519 -out $name.key; done
         {how}
         request() {{ openssl req -new -key $1.key -subj /CN=$1 -config - <<<'[req]
distinguished_name=dn
[dn]'; }}
         request root | openssl x509 -req -key root.key -days 2 -extfile <(echo $ca) -out root.pem
         request authority | openssl x509 -req -CA root.pem -CAkey root.key -days 2 -extfile <(echo $ca) -out authority.pem
         request leaf | openssl x509 -req -CA authority.pem -CAkey authority.key -days 2 \
           -extfile <(echo subjectAltName=DNS:app.example) -out leaf.pem"
    );
    run(folder, "bash", &["-c", &script]);
    ["leaf.key", "leaf.pem", "authority.pem", "root.pem"].map(|name| fs::read(folder.join(name)).unwrap())
}

/// How tools write keys: PKCS #1, SEC 1 with the curve in a block of its own, PKCS #8 with and without a public half.
const KEYS: [(&str, &str); 5] = [
    ("PKCS #1", "openssl genrsa -traditional -out leaf.key 2048"),
    ("SEC 1", "openssl ecparam -genkey -name prime256v1 -out leaf.key"),
    ("P-384", "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out leaf.key"),
    ("RSA", "openssl genpkey -algorithm RSA -out leaf.key"),
    ("Ed25519", "openssl genpkey -algorithm ED25519 -out leaf.key"),
];

/// A handshake with a server that has nothing but the bundle, and a client that has nothing but the root.
const HANDSHAKE: &str = "
import ssl
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain('file')
client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
client.load_verify_locations('root.pem')
up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
server = server.wrap_bio(up, down, server_side=True)
client = client.wrap_bio(down, up, server_hostname='app.example')
done = set()
for _ in range(9):
    for side in client, server:
        try:
            side.do_handshake()
            done.add(side)
        except ssl.SSLWantReadError:
            pass
assert len(done) == 2, 'no end of the handshake'
";

#[test]
fn a_tls_server_serves_with_a_pem_bundle_of_any_kind_of_key() {
    for (name, how) in KEYS {
        let folder = TempDir::new().unwrap();
        let [key, leaf, authority, root] = made(folder.path(), how);
        let crt = [leaf, authority].concat();
        let values = [("tls.key", &key[..]), ("tls.crt", &crt), ("ca.crt", &root)];
        let bundle =
            rendered(Format::PemBundle, &secret(values), &secret([])).unwrap_or_else(|it| panic!("{name}: {it}"));
        fs::write(folder.path().join("file"), bytes(&bundle)).unwrap();
        run(folder.path(), "python3", &["-c", HANDSHAKE]);
    }
}

#[test]
fn openssl_opens_a_key_store_with_its_password_and_no_other() {
    let password =
        Format::Pkcs12 { password: Some(Password { from: reference("kv/store"), key: "password".to_owned() }) };
    for (name, how) in KEYS {
        for (format, word) in [(&Format::Pkcs12 { password: None }, "changeit"), (&password, "it's \"$5\"")] {
            let folder = TempDir::new().unwrap();
            let [key, leaf, authority, root] = made(folder.path(), how);
            let values = [("tls.key", &key[..]), ("tls.crt", &leaf), ("ca.crt", &[authority.clone(), root].concat())];
            let store = secret([("password", "it's \"$5\"".as_bytes())]);
            let file = rendered(format.clone(), &secret(values), &store).unwrap_or_else(|it| panic!("{name}: {it}"));
            fs::write(folder.path().join("file"), bytes(&file)).unwrap();
            let open = ["pkcs12", "-in", "file", "-info", "-nodes", "-passin", &format!("pass:{word}")];
            let opened = run(folder.path(), "openssl", &open);
            let info = String::from_utf8(opened.stderr).unwrap();
            assert!(info.contains("MAC: sha256, Iteration 10000"), "{name}: {info}");
            let shrouded = "PBES2, PBKDF2, AES-256-CBC, Iteration 10000, PRF hmacWithSHA256";
            assert_eq!(info.matches(shrouded).count(), 2, "{name}: {info}");
            let text = String::from_utf8(opened.stdout).unwrap();
            for part in [&leaf, &authority] {
                assert!(text.contains(str::from_utf8(part).unwrap()), "{name}: {text}");
            }
            assert_eq!(text.matches("BEGIN CERTIFICATE").count(), 2, "{name}: {text}");
            assert_eq!(text.matches("friendlyName: certificate").count(), 2, "{name}: {text}");
            fs::write(folder.path().join("opened.key"), text).unwrap();
            let public = |file: &str| run(folder.path(), "openssl", &["pkey", "-in", file, "-pubout"]).stdout;
            assert_eq!(public("opened.key"), public("leaf.key"), "{name}");

            let wrong = Command::new("openssl")
                .args(["pkcs12", "-in", "file", "-noout", "-passin", "pass:changeit2"])
                .current_dir(folder.path())
                .output();
            assert!(!wrong.unwrap().status.success(), "{name}");
        }
    }
}

#[test]
fn the_same_secret_is_the_same_key_store_and_another_password_another_one() {
    let folder = TempDir::new().unwrap();
    let [key, leaf, authority, _] = made(folder.path(), KEYS[1].1);
    let values = [("private_key", &key[..]), ("certificate", &leaf), ("issuing_ca", &authority)];
    let format =
        Format::Pkcs12 { password: Some(Password { from: reference("kv/store"), key: "password".to_owned() }) };
    let digests = DigestKey::new(&[7; 32]);
    let write = |values: &[(&'static str, &[u8])], password: &[u8]| {
        let store = secret([("password", password)]);
        rendered(format.clone(), &secret(values.iter().copied()), &store).unwrap()
    };
    let [once, again, other] = [b"one", b"one", b"two"].map(|password| write(&values, password));
    assert!(once.digest(&digests) == again.digest(&digests) && once.digest(&digests) != other.digest(&digests));
    let shorter = write(&values[..2], b"one");
    // Nothing that is random elsewhere is the same for other contents: no 16 bytes of salt or vector.
    let windows = |file: &Projection, from: &[u8]| bytes(file).windows(from.len()).any(|window| window == from);
    let whole = bytes(&once);
    let salts: Vec<_> = whole.windows(18).filter(|it| it[..2] == [0x04, 16]).map(|it| it[2..].to_vec()).collect();
    assert!(salts.len() >= 5, "{}", salts.len());
    for salt in &salts {
        assert!(!windows(&other, salt) && !windows(&shorter, salt));
    }
}

/// What a shell has of each of `values` after it read the file.
fn of_shell(file: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("file"), file).unwrap();
    let env = run(folder.path(), "sh", &["-c", "set -eua; . ./file; exec /usr/bin/env -0"]).stdout;
    let variables = env.split(|byte| *byte == 0).filter_map(|it| {
        let at = it.iter().position(|byte| *byte == b'=')?;
        Some((String::from_utf8(it[..at].to_vec()).unwrap(), it[at + 1..].to_vec()))
    });
    variables.filter(|(name, _)| name.starts_with("K_")).collect()
}

/// Every byte that a text may hold once, and runs of those that some reader thinks special.
fn values() -> impl Strategy<Value = Vec<String>> {
    let special = "[-'\"`\\\\$ #{}()\\n\\r\\ta0n%!~;&|<>*?=]{0,12}";
    let value = prop_oneof![3 => special, 1 => ".{0,20}", 1 => "[^'`\\\\\\x00]{0,20}"];
    proptest::collection::vec(value, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn a_shell_reads_the_bytes_that_a_dotenv_was_made_of(values in values()) {
        let mut wanted = BTreeMap::new();
        for (number, value) in values.iter().enumerate() {
            let name = format!("K_{number}");
            let alone = secret([(name.as_str(), value.as_bytes())]);
            match rendered(Format::Dotenv, &alone, &secret([])) {
                Ok(_) => drop(wanted.insert(name, value.as_bytes().to_vec())),
                Err(error) => {
                    let hopeless = value.contains('\0') || value.contains('`') && (value.contains('\'') || value.ends_with('\\'));
                    prop_assert!(hopeless, "{value:?}: {error}");
                    let named = format!("\"{name}\"");
                    prop_assert!(error.message().contains(&named));
                }
            }
        }
        let all = secret(wanted.iter().map(|(name, value)| (name.as_str(), &value[..])));
        let file = bytes(&rendered(Format::Dotenv, &all, &secret([])).unwrap());
        prop_assert_eq!(of_shell(&file), wanted);
    }
}
