// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A secret and a token are in the volume and nowhere else: not in a log of any crate at its most talkative, not in
//! metrics, audit events, answers, records, environments or command lines.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use evanesce_integration::token_review::Claims;
use evanesce_integration::world::{AUDIENCE, Setup, lively_class};
use evanesce_integration::{sight, wait};
use evanesce_proto::kubelet::TokensIn;
use serde_json::{Value, json};
use tonic::Status;

/// Long, and of no letters that any encoding would leave as they are in all of its forms.
const FIRST: &str = "canary/secret+one=\"9f2c6b7d41e84c33\"";
const SECOND: &str = "canary/secret+two=\"5ab81e0c7f3d4296\"";

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_and_a_token_are_nowhere_but_in_the_volume() {
    let file = "{path: password, from: {backend: vault, secret: kv/payments/canary, key: password}}";
    let classes = [
        lively_class("canary", &[file, "{path: all.json, from: {backend: vault, secret: kv/payments/canary}}"]),
        lively_class("no-key", &[&file.replace("key: password", "key: absent")]),
        // A value as a name: a file cannot be called so, and the error must not say how.
        lively_class("keys", &["{path: dir, from: {backend: vault, secret: kv/payments/named}, allKeys: true}"]),
    ]
    .join("---\n");
    let mut world = Setup::default().class(&classes).log(&talkative()).openbao().await.unwrap();
    let admin = world.backend.admin();
    admin.put("kv", "payments/canary", json!({"password": FIRST})).await.unwrap();
    admin.put("kv", "payments/named", json!({"../up": FIRST})).await.unwrap();

    // A life with everything in it: two places for the token, a refresh, refusals, a death, an end.
    let pod = world.pod("payments", "app");
    let mut tokens = Vec::new();
    let mut publish = |class: &str, claims: &Claims, place| {
        let token = world.cluster.tokens().mint(claims).unwrap();
        let json = json!({AUDIENCE: {"token": token.token, "expirationTimestamp": token.expires}}).to_string();
        tokens.push(token.token);
        world.volume(&pod, class).raw_tokens(json, place)
    };
    let good = Claims::new(&pod, AUDIENCE);
    let volume = publish("canary", &good, TokensIn::Secrets);
    let older = publish("canary", &good, TokensIn::VolumeContext);
    let broken = publish("canary", &good, TokensIn::VolumeContext);
    let expired = publish("canary", &good.clone().expired(), TokensIn::Secrets);
    let stranger = publish("canary", &Claims::new(&world.pod("payments", "stranger"), AUDIENCE), TokensIn::Secrets);
    let no_key = publish("no-key", &good, TokensIn::Secrets);
    let keys = publish("keys", &good, TokensIn::VolumeContext);

    let mut refusals: Vec<Status> = Vec::new();
    for refused in [&expired, &stranger, &no_key, &keys] {
        refusals.push(world.kubelet.publish(refused).await.expect_err("this one is refused"));
    }
    world.kubelet.publish(&volume).await.unwrap();
    world.kubelet.publish(&older).await.unwrap();
    let mut twisted = broken.request();
    twisted.volume_context.insert("unknown".into(), FIRST.into());
    refusals.push(world.kubelet.call_publish(twisted).await.expect_err("an unknown attribute"));
    assert_eq!(sight::text(volume.target_path(), "password"), FIRST);
    world.backend.admin().put("kv", "payments/canary", json!({"password": SECOND})).await.unwrap();
    wait::until("the second canary is there", || sight::text(volume.target_path(), "password") == SECOND).await;
    let metrics = world.plugin.metrics().await.unwrap();
    let listing = world.plugin.volumes(&["--output", "json"]).unwrap().stdout;
    assert!(!listing.is_empty(), "nothing is listed");
    let mut processes = processes(&world.plugin.processes());
    world.plugin.kill_engine().await.unwrap();
    world.kubelet.publish(&volume).await.unwrap();
    processes.extend(self::processes(&world.plugin.processes()));
    let records = contents(world.plugin.state());
    world.kubelet.unpublish(&volume).await.unwrap();

    let log = world.plugin.log();
    assert!(log.contains("DEBUG"), "the log is not as talkative as it can be");
    // What a library says of its own accord, nobody here has read: below a warning none may speak.
    for line in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let (level, target) = (line["level"].as_str().unwrap(), line["target"].as_str().unwrap());
        assert!(target.starts_with("evanesce") || ["WARN", "ERROR"].contains(&level), "{target} speaks at {level}");
    }
    let audit: Vec<_> = world.plugin.audit().iter().map(ToString::to_string).collect();
    assert!(audit.len() > 4, "the audit has hardly an event");

    let places = BTreeMap::from([
        ("log", log),
        ("metrics", metrics),
        ("listing", String::from_utf8(listing).unwrap()),
        ("audit", audit.join("\n")),
        ("answers", refusals.iter().map(|status| format!("{status:?}")).collect::<Vec<_>>().join("\n")),
        ("/proc", processes.join("\n")),
        ("records", records),
    ]);
    for (place, text) in &places {
        for (what, canary) in canaries(&tokens) {
            // A failure must not print what it has found.
            assert!(!text.contains(&canary), "{what} is in the {place}: {}", around(text, &canary));
        }
        assert!(!has_vault_token(text), "a token of OpenBao is in the {place}");
    }
}

/// Everything, of everybody: each library that carries the canaries is asked for by name too.
fn talkative() -> String {
    let libraries = ["axum", "h2", "hyper", "hyper_util", "reqwest", "rustify", "rustls", "tonic", "tower", "vaultrs"];
    libraries.iter().fold("trace".to_owned(), |filter, library| format!("{filter},{library}=trace"))
}

/// Every form in which a canary could have been written.
fn canaries(tokens: &[String]) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (name, secret) in [("the first secret", FIRST), ("the second secret", SECOND)] {
        let core = secret.split('"').nth(1).unwrap();
        let bytes: Vec<String> = secret.bytes().take(12).map(|byte| byte.to_string()).collect();
        all.extend([
            (format!("{name}, plain"), core.to_owned()),
            (format!("{name}, base64"), BASE64_STANDARD_NO_PAD.encode(secret)),
            (format!("{name}, base64 for URLs"), BASE64_URL_SAFE_NO_PAD.encode(secret)),
            (format!("{name}, hexadecimal"), secret.bytes().map(|byte| format!("{byte:02x}")).collect()),
            (format!("{name}, as a list of bytes"), bytes.join(", ")),
        ]);
    }
    for (number, token) in tokens.iter().enumerate() {
        let signature = token.rsplit('.').next().unwrap();
        let claims = token.split('.').nth(1).unwrap();
        all.push((format!("the signature of token {number}"), signature.to_owned()));
        all.push((format!("the claims of token {number}"), claims[claims.len() - 40..].to_owned()));
    }
    all
}

/// OpenBao's service tokens: `s.` and 24 letters and digits.
fn has_vault_token(text: &str) -> bool {
    text.match_indices("s.").any(|(at, _)| {
        let before = text[..at].bytes().next_back();
        let rest = text[at + 2..].bytes().take(24);
        before.is_none_or(|byte| !byte.is_ascii_alphanumeric() && byte != b'.')
            && rest.clone().count() == 24
            && rest.clone().all(|byte| byte.is_ascii_alphanumeric())
            && rest.clone().any(|byte| byte.is_ascii_uppercase())
            && rest.clone().any(|byte| byte.is_ascii_digit())
    })
}

/// The words before the place where it was found.
fn around(text: &str, canary: &str) -> String {
    let at = text.find(canary).unwrap_or(0);
    let line = text[..at].rsplit('\n').next().unwrap_or_default();
    line.chars().take(200).collect()
}

fn processes(processes: &[evanesce_integration::processes::Process]) -> Vec<String> {
    processes
        .iter()
        .flat_map(|process| ["environ", "cmdline", "comm", "status"].map(|file| process.read(file)))
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .collect()
}

/// Everything below a directory, as one text.
fn contents(directory: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            text.push_str(&contents(&path));
        } else if path.is_file() {
            text.push_str(&String::from_utf8_lossy(&fs::read(&path).unwrap()));
        }
    }
    text
}
