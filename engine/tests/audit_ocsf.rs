// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Every line is valid OCSF 1.8.0, holds no secret, and is described in the reference.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use evanesce_engine::audit::ocsf::{Entry, LogEvent};
use serde_json::{Value, json};

#[path = "audit_ocsf/canary.rs"]
mod canary;
#[path = "audit_ocsf/reference.rs"]
mod reference;
#[path = "audit_ocsf/samples.rs"]
mod samples;
#[path = "audit_ocsf/schema.rs"]
mod schema;

#[test]
fn every_line_is_valid_ocsf() {
    let schema = schema::Schema::load();
    for entry in samples::all() {
        let line = samples::line(&entry);
        let wrong = schema.check(&serde_json::from_slice(&line).unwrap());
        assert!(wrong.is_empty(), "{wrong:#?}\n{}", String::from_utf8_lossy(&line));
    }
}

#[test]
fn every_kind_of_line_has_a_sample() {
    let sampled: BTreeSet<_> = samples::all().iter().map(Entry::code).collect();
    assert_eq!(sampled, BTreeSet::from(samples::CODES));
}

#[test]
fn an_event_is_one_line() {
    for entry in samples::all() {
        let line = samples::line(&entry);
        assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
        assert_eq!(samples::json(&entry)["metadata"]["event_code"], entry.code());
    }
}

#[test]
fn the_checker_refuses_an_event_with_one_thing_broken() {
    type Break = fn(&mut Value);
    let breaks: [(&str, &str, Break); 16] = [
        ("fetch", "event.api is required", |event| drop(event.as_object_mut().unwrap().remove("api"))),
        ("fetch", "event.api.operation is required", |event| event["api"] = json!({})),
        ("fetch", "event.secret is unknown", |event| event["secret"] = json!("x")),
        ("fetch", "event.resources[0].lease is unknown", |event| event["resources"][0]["lease"] = json!("x")),
        ("fetch", "event.severity_id may not be 7", |event| event["severity_id"] = json!(7)),
        ("fetch", "event.activity_id may not be 5", |event| event["activity_id"] = json!(5)),
        ("fetch", "type_uid is not class_uid * 100 + activity_id", |event| event["type_uid"] = json!(600_303)),
        ("fetch", "event.time has the wrong type", |event| event["time"] = json!("now")),
        ("fetch", "event.dst_endpoint.port is out of range", |event| event["dst_endpoint"]["port"] = json!(65_536)),
        ("fetch", "event.resources is not a list", |event| event["resources"] = json!({})),
        ("fetch", "event.actor has none of", |event| event["actor"] = json!({})),
        // Without its profile an attribute is not part of the event.
        ("fetch", "event.device is unknown", |event| event["metadata"]["profiles"] = json!([])),
        ("refused", "event.action_id is unknown", |event| event["metadata"]["profiles"] = json!(["host"])),
        ("mount", "event.file.type_id 2 is called \"Folder\", not \"File\"", |event| {
            event["file"]["type"] = json!("File");
        }),
        ("mount", "event.file.signature is deprecated", |event| event["file"]["signature"] = json!({})),
        ("audit_gap", "class_uid 1009 is not a class", |event| event["class_uid"] = json!(1009)),
    ];
    let schema = schema::Schema::load();
    for (code, expected, break_it) in breaks {
        let mut event = samples::json(&samples::example(code));
        assert_eq!(schema.check(&event), [""; 0]);
        break_it(&mut event);
        let wrong = schema.check(&event);
        assert!(wrong.iter().any(|fault| fault.starts_with(expected)), "{expected}: {wrong:?}");
    }
}

#[test]
fn a_failure_is_never_written_as_a_success() {
    for entry in samples::all() {
        let line = samples::json(&entry);
        let failed = line.get("status_code").is_some();
        assert_eq!(line["status_id"], if failed { 2 } else { 1 }, "{line}");
        assert_eq!(failed, line["severity_id"] != 1, "{line}");
        let must_fail = matches!(entry.code(), "refused" | "failed" | "cancelled" | "too_stale" | "audit_gap");
        assert!(failed || !must_fail, "{line}");
    }
}

#[test]
fn the_lines_of_one_volume_are_joined_by_its_id() {
    for entry in samples::all() {
        let volume = &samples::json(&entry)["metadata"]["correlation_uid"];
        match entry {
            Entry::Log(LogEvent::Gap { .. } | LogEvent::Started | LogEvent::Stopped) => {
                assert_eq!(*volume, Value::Null)
            }
            Entry::Event(event) if event.code() == "leases_lost" => assert_eq!(*volume, Value::Null),
            Entry::Event(event) => {
                let unknown = format!("{event:?}").contains("subject: None, purpose: None, volume: None");
                assert_eq!(*volume, if unknown { Value::Null } else { json!("csi-3f2c") });
            }
        }
    }
}
