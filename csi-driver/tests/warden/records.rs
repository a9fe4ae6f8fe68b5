// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Records and the digest key: kept, paged, versioned, on a tmpfs, for root alone.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use evanesce_csi::protocol::{ErrorKind, MAX_RECORD, VolumeId};
use evanesce_csi::warden::{FolderError, Records, StateDir, StateError};

use crate::ground::{Ground, mounts_of, volume};

fn open(ground: &Ground) -> StateDir {
    StateDir::open(&ground.path("state"), "test").unwrap().ensure_tmpfs(&ground.kernel()).unwrap()
}

fn all(records: &Records) -> Vec<(String, String)> {
    let mut found: Vec<(VolumeId, Vec<u8>)> = Vec::new();
    while let Some(next) = records.next(found.last().map(|(id, _)| id), |_| true) {
        found.push(next);
    }
    found.into_iter().map(|(id, record)| (id.to_string(), String::from_utf8(record).unwrap())).collect()
}

#[test]
fn records_and_the_key_come_back_after_a_restart() {
    let ground = Ground::new();
    let state = open(&ground);
    let key = *state.digest_key().unwrap().as_bytes();
    assert_ne!(key, [0; 32]);
    let mut records = Records::load(state).unwrap();
    let longest = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_RECORD - 8));
    records.put(volume("b"), b"{\"n\": 1}").unwrap();
    records.put(volume("key"), b"2").unwrap();
    records.put(volume("a.new"), longest.as_bytes()).unwrap();
    records.put(volume("b"), b"{\"n\": 3}").unwrap();
    let expected = [("a.new", longest.as_str()), ("b", "{\"n\": 3}"), ("key", "2")].map(|(a, b)| (a.into(), b.into()));
    assert_eq!(all(&records), expected);
    drop(records);

    let state = open(&ground);
    assert_eq!(*state.digest_key().unwrap().as_bytes(), key);
    let mut records = Records::load(state).unwrap();
    assert_eq!(all(&records), expected);
    for _ in 0..2 {
        records.drop_record(&volume("b")).unwrap();
    }
    assert_eq!(all(&records).len(), 2);
    assert_eq!(mounts_of("evanesce-state"), 1, "a second start mounts no second tmpfs");
}

#[test]
fn a_record_takes_the_place_of_the_one_before_and_is_never_written_over_it() {
    let ground = Ground::new();
    let mut records = Records::load(open(&ground)).unwrap();
    records.put(volume("v"), b"1").unwrap();
    let mut before = fs::File::open(ground.path("state/test/v.json")).unwrap();
    records.put(volume("v"), b"2").unwrap();
    // Whoever dies while writing has spoilt no file that anybody reads.
    assert_eq!(std::io::read_to_string(&mut before).unwrap(), r#"{"version":1,"record":1}"#);
    assert_eq!(all(&records), [("v".to_owned(), "2".to_owned())]);
}

#[test]
fn the_state_is_on_a_tmpfs_that_only_root_may_enter() {
    let ground = Ground::new();
    let state = open(&ground);
    state.digest_key().unwrap();
    let mut records = Records::load(state).unwrap();
    records.put(volume("v"), b"1").unwrap();
    let directory = ground.path("state/test");
    let mode = |name: &str| fs::metadata(directory.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("."), mode("key"), mode("v.json")), (0o700, 0o600, 0o600));
    assert_eq!(rustix::fs::statfs(&directory).unwrap().f_type, 0x0102_1994, "TMPFS_MAGIC");
}

#[test]
fn a_newer_record_costs_its_own_volume_alone_and_a_newer_key_is_refused_in_one_line() {
    let ground = Ground::new();
    let state = open(&ground);
    state.digest_key().unwrap();
    let directory = ground.path("state/test");
    let load = || Records::load(open(&ground));

    fs::write(directory.join("v.json"), r#"{"version":2,"shape":"unknown"}"#).unwrap();
    fs::write(directory.join("w.json"), r#"{"version":1,"record":{"a":1}}"#).unwrap();
    let mut records = load().unwrap();
    assert_eq!((records.newer(&volume("v")), records.newer(&volume("w"))), (Some(2), None));
    assert_eq!(all(&records), [("w".to_owned(), "{\"a\":1}".to_owned())]);
    assert!(directory.join("v.json").exists(), "it is left for the build that wrote it");
    records.drop_record(&volume("v")).unwrap();
    assert!(records.newer(&volume("v")).is_none() && !directory.join("v.json").exists());

    let mut newer = [7; 33];
    newer[0] = 2;
    fs::write(directory.join("key"), newer).unwrap();
    let line = open(&ground).digest_key().err().unwrap().to_string();
    assert!(line.contains("key has version 2"), "{line}");
    for broken in [&[][..], &[1; 32], &[1; 34]] {
        fs::write(directory.join("key"), broken).unwrap();
        assert!(matches!(open(&ground).digest_key(), Err(StateError::Key { .. })));
    }
}

#[test]
fn what_is_half_written_or_unreadable_does_not_stop_the_node() {
    let ground = Ground::new();
    let directory = ground.path("state/test");
    drop(open(&ground));
    fs::write(directory.join("v.json.new"), "{\"vers").unwrap();
    fs::write(directory.join("w.json"), "not JSON").unwrap();
    fs::write(directory.join("bad id.json"), "{}").unwrap();
    fs::write(directory.join("x.json"), r#"{"version":1,"record":{"a":1}}"#).unwrap();
    let records = Records::load(open(&ground)).unwrap();
    assert_eq!(all(&records), [("x".to_owned(), "{\"a\":1}".to_owned())]);
    assert!(!directory.join("v.json.new").exists());
}

#[test]
fn a_record_that_is_too_long_or_no_json_is_refused() {
    let ground = Ground::new();
    let mut records = Records::load(open(&ground)).unwrap();
    let long = format!("\"{}\"", "x".repeat(MAX_RECORD));
    let deep = "[".repeat(MAX_RECORD);
    for bad in [long.as_str(), "", "{", "{} {}", "not", "\"\u{0}\"", deep.as_str()] {
        assert_eq!(records.put(volume("v"), bad.as_bytes()).unwrap_err().kind, ErrorKind::Invalid);
    }
    assert!(records.next(None, |_| true).is_none());
}

#[test]
fn somebody_elses_state_directory_is_refused_and_the_given_one_is_left_as_it_is() {
    let ground = Ground::new();
    let state = ground.path("state");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    drop(open(&ground));
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o7777, 0o755);

    fs::create_dir(state.join("other")).unwrap();
    std::os::unix::fs::chown(state.join("other"), Some(1000), None).unwrap();
    assert!(matches!(StateDir::open(&state, "other"), Err(StateError::Folder(FolderError::Owner { uid: 1000, .. }))));
    std::os::unix::fs::symlink("/etc", state.join("link")).unwrap();
    assert!(matches!(StateDir::open(&state, "link"), Err(StateError::Folder(FolderError::Io { .. }))));
}
