// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Every input that a fuzzer ever found, and those it starts from, against the same rules and without a fuzzer.
//!
//! `integration/fuzz/corpus/<target>` holds them: `found-…` were findings, the others are written from here with
//! `EVANESCE_UPDATE=1`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "tells which input it was")]

use std::fs;
use std::path::{Path, PathBuf};

use evanesce_csi::protocol::{
    EngineFrame, ErrorKind, FileIdentity, FromLauncher, HelloBack, LeaseGroupId, Owner, Reply, Request, ToLauncher,
    WardenError, WardenFrame,
};
use evanesce_engine::backend::sealed::{Recipients, seal};
use evanesce_engine::secret::SecretBytes;
use evanesce_proto::kubelet::{Pod, Publish, Token, TokensIn};
use prost::Message;
use serde::Serialize;

#[path = "../../integration/fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "public for the fuzz targets")]
mod fuzz;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files below `folder`, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

#[test]
fn what_fuzzers_found_and_start_from_keeps_every_rule() {
    for (target, check) in fuzz::TARGETS {
        let mut inputs = files(&root().join("integration/fuzz/corpus").join(target));
        if target == "classes" {
            inputs.extend(files(&root().join("engine/tests/specs")));
        }
        assert!(!inputs.is_empty(), "{target} has nothing to start from");
        for input in inputs {
            // The last line before a panic names the culprit.
            println!("{}", input.display());
            check(&fs::read(&input).unwrap());
        }
    }
}

#[test]
fn what_fuzzers_start_from_is_what_the_programs_say_today() {
    for (target, name, bytes) in seeds() {
        let path = root().join("integration/fuzz/corpus").join(target).join(name);
        // What is encrypted differs each time.
        let lasts = target == "sealed" && path.exists();
        if std::env::var_os("EVANESCE_UPDATE").is_some() && !lasts {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        let written = fs::read(&path).unwrap_or_default();
        assert!(lasts || written == bytes, "run the test again with EVANESCE_UPDATE=1 and commit {}", path.display());
    }
}

type Seed = (&'static str, String, Vec<u8>);

fn seeds() -> Vec<Seed> {
    [publishes(), tokens(), classes(), paths(), answers(), packets(), sealed_files()].concat()
}

fn named(target: &'static str, inputs: impl IntoIterator<Item = Vec<u8>>) -> Vec<Seed> {
    inputs.into_iter().enumerate().map(|(number, bytes)| (target, format!("seed-{number:02}"), bytes)).collect()
}

/// What kubelet sends, for pods with and without a group and tokens.
fn publishes() -> Vec<Seed> {
    let pod = || Pod {
        name: "web-0".into(),
        namespace: "payments".into(),
        uid: "pod-1".into(),
        service_account: "app".into(),
    };
    let publish = || Publish::new(Path::new("/pods"), pod(), "s").attribute("secretVolume", "db");
    let tokens = [Token { audience: "vault", token: "e30.e30.c2ln", expires: "2130-01-01T00:00:00Z" }];
    let requests = [
        publish(),
        publish().mount_group(2000).tokens(&tokens, TokensIn::Secrets),
        publish().tokens(&tokens, TokensIn::VolumeContext),
        publish().raw_tokens("{", TokensIn::Secrets),
        publish().read_only(false),
        publish().attribute("other", "x"),
        publish().attribute("\u{1}".repeat(900), "x"),
    ];
    named("publish", requests.map(|publish| ordered(&publish)))
}

/// The message with its maps in order, which the encoder leaves to chance.
fn ordered(publish: &Publish) -> Vec<u8> {
    let request = publish.request();
    let mut message = evanesce_proto::csi::NodePublishVolumeRequest {
        secrets: Default::default(),
        volume_context: Default::default(),
        ..request.clone()
    }
    .encode_to_vec();
    for (number, map) in [(7, &request.secrets), (8, &request.volume_context)] {
        let mut entries: Vec<_> = map.iter().collect();
        entries.sort();
        for (key, value) in entries {
            let entry = [field(1, key.as_bytes()), field(2, value.as_bytes())].concat();
            message.extend(field(number, &entry));
        }
    }
    message
}

/// A length-delimited field of protobuf.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    prost::encode_length_delimiter(content.len(), &mut bytes).unwrap();
    bytes.extend_from_slice(content);
    bytes
}

fn tokens() -> Vec<Seed> {
    let claims = "e30.eyJrdWJlcm5ldGVzLmlvIjp7Im5hbWVzcGFjZSI6InBheW1lbnRzIiwicG9kIjp7InVpZCI6InBvZC0xIn19fQ.c2ln";
    let one =
        |token: &str| format!(r#"{{"vault":{{"token":"{token}","expirationTimestamp":"2130-01-01T00:00:00Z"}}}}"#);
    let texts = [
        "{}".to_owned(),
        one("s.opaque"),
        one(claims),
        r#"{"":{"token":"a","expirationTimestamp":"1969-12-31T23:59:59.5+01:00"}}"#.to_owned(),
        r#"{"a":{"token":"CANARY x"}}"#.to_owned(),
    ];
    named("tokens", texts.map(String::into_bytes))
}

/// Beside the examples in `engine/tests/specs`, which fuzzers start from too.
fn classes() -> Vec<Seed> {
    named("classes", [b"a: &x [1, ~]\nb: *x\n--- |\n text\n".to_vec()])
}

fn paths() -> Vec<Seed> {
    let texts = [
        "kv,secret\nkv/payments/*\nkv/payments/db",
        "kv,team/kv\nteam/kv/*/db\nteam/kv/a/db",
        "kv\nkv/data/*\nkv/data/db",
        "kv\n*\ndatabase/creds/app",
        "kv\nauth/token/*\nauth/token/create",
        "a\npayments/e*\npayments/extra",
        "kv\nkv/a/../b\n../..data",
    ];
    named("paths", texts.map(|text| text.as_bytes().to_vec()))
}

fn answers() -> Vec<Seed> {
    let bodies = [
        (
            0,
            r#"{"request_id":"9d-1","data":{"data":{"a":"x\n\u00e4","b":17,"c":{"d":[1,null]}},"metadata":{"version":3}}}"#,
        ),
        (1, r#"{"lease_id":"database/creds/app/1","lease_duration":30,"renewable":true,"data":{"username":"u"}}"#),
        (1, r#"{"data":{"certificate":"x","expiration":1900000000}}"#),
        (
            2,
            r#"{"data":{"current_version":2,"versions":{"1":{"destroyed":true},"2":{"deletion_time":"2020-01-01T00:00:00.5Z"}}}}"#,
        ),
        (
            3,
            r#"{"request_id":"1","auth":{"client_token":"s.t","accessor":"a","policies":[],"token_policies":[],"metadata":null,"lease_duration":60,"renewable":false,"entity_id":"","token_type":"service","orphan":true}}"#,
        ),
        (4, "120"),
        (4, "Sun, 06 Nov 2094 08:49:37 GMT"),
    ];
    named("answers", bodies.map(|(kind, body)| [&[kind], body.as_bytes()].concat()))
}

/// One packet of each kind.
fn packets() -> Vec<Seed> {
    fn packet<T: Serialize>(who: u8, fds: u8, message: &T) -> Vec<u8> {
        [vec![who, fds], postcard::to_allocvec(message).unwrap()].concat()
    }
    let (volume, target) = (|| "csi-1".parse().unwrap(), || "/pods/p/mount".parse().unwrap());
    let group = || LeaseGroupId::from([7; 16]);
    let identity = FileIdentity { device: 1, inode: 2, size: 3, changed: -4 };
    let file = |path: &str, uid, gid| (path.parse().unwrap(), Owner { uid, gid });
    let files = vec![file("..g1/password", Some(0), Some(2000)), file("..g1/tls/key", None, None)];
    let requests = [
        Request::MakeVolume { volume: volume(), size: 1 << 20, inodes: 1024 },
        Request::Own { volume: volume(), files: files.clone() },
        Request::Attach { volume: volume(), target: target() },
        Request::Show { volume: volume(), target: target(), record: b"{}".to_vec(), files },
        Request::Resize { volume: volume(), size: 2 << 20 },
        Request::IsAttached { volume: volume(), target: target() },
        Request::Detach { volume: volume(), target: None },
        Request::Adopt { volume: volume(), target: target() },
        Request::PutRecord { volume: volume(), record: b"{}".to_vec() },
        Request::DropRecord { volume: volume() },
        Request::NextRecord { after: Some(volume()) },
        Request::PutLease { group: group(), entry: vec![1; 64] },
        Request::DropLease { group: group() },
        Request::NextLease { after: Some(group()) },
        Request::AnyUnknown,
        Request::OpenCredential { name: "token".parse().unwrap(), known: Some(identity) },
        Request::Probe,
        Request::Ready,
    ];
    let replies = [
        Ok(Reply::Done),
        Ok(Reply::Attached { options: vec!["ro".into(), "nosuid".into()] }),
        Ok(Reply::Record { volume: volume(), record: b"{}".to_vec() }),
        Ok(Reply::Lease { group: group(), entry: vec![1; 64] }),
        Ok(Reply::Credential { identity }),
        Err(WardenError { kind: ErrorKind::Busy, message: "in the way".into() }),
    ];
    let record = r#"{"version":1,"target":"/pods/p/mount","workload":{"namespace":"payments","serviceAccount":"app","pod":"web-0","podUid":"pod-1","node":"node-1"},"class":"db","group":2000,"size":1048576,"before":null}"#;
    let mut packets: Vec<_> =
        requests.into_iter().map(|body| packet(0, 2, &EngineFrame::Request { id: 7, body })).collect();
    packets.extend(replies.into_iter().map(|result| packet(1, 0, &WardenFrame::Reply { id: 7, result })));
    packets.push(packet(1, 0, &WardenFrame::Drain));
    packets.push(packet(2, 1, &FromLauncher::Started { pid: 7 }));
    packets.push(packet(3, 0, &ToLauncher::Start));
    packets.push(packet(4, 0, &EngineFrame::HelloBack(HelloBack::ours())));
    packets.push(packet(5, 0, &(0u32, u32::MAX, "9.9.9")));
    packets.push([&[6, 0], record.as_bytes()].concat());
    named("channel", packets)
}

fn sealed_files() -> Vec<Seed> {
    let texts = ["a: text\nb: 007\nc: [1, {d: ~}]\n", "pin: \"0440\"\n", "- a\n", "a: |\n  two\n  lines\n"];
    let recipients = Recipients::parse([fuzz::sealed::RECIPIENT], []).unwrap();
    let sealed = seal(&SecretBytes::from(texts[0].as_bytes()), &recipients).unwrap();
    let mut seeds: Vec<_> = texts.iter().map(|text| [&[0], text.as_bytes()].concat()).collect();
    seeds.push([&[8], sealed.as_slice()].concat());
    seeds.push([&[15], texts[0].as_bytes()].concat());
    seeds.push([&[8], fuzz::sealed::IDENTITY.as_bytes()].concat());
    named("sealed", seeds)
}
