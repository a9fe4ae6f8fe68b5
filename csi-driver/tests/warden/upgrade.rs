// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Another version before this one, or beside it: what it wrote is read, or refused in one clear line.
//!
//! The files in `golden` are records as builds have written them. None is ever changed: a new form of the record gets a
//! file of its own, and a new version if the forms before it cannot be read.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use evanesce_csi::engine_half::record::Record;
use evanesce_csi::protocol::{Channel, EngineFrame, ErrorKind, PROTOCOL};
use evanesce_csi::warden::{PodsDir, Records, StateDir, Volumes};

use crate::ground::{CEILING, Ground, OWNER, volume};

const FIRST: &str = include_str!("golden/record-first.json");
const GENERATION: &str = include_str!("golden/record-generation.json");
const TODAY: &str = include_str!("golden/record-today.json");

/// The record in a file of the state directory, by way of the warden.
fn read(ground: &Ground, file: &str) -> (Vec<u8>, Record) {
    let state = StateDir::open(&ground.path("state"), "test").unwrap().ensure_tmpfs(&ground.kernel()).unwrap();
    fs::write(ground.path("state/test/v.json"), file).unwrap();
    let (id, json) = Records::load(state).unwrap().next(None, |_| true).unwrap();
    let record = Record::from_json(&id, &json).unwrap();
    (json, record)
}

#[test]
fn a_record_of_every_earlier_form_is_read() {
    let ground = Ground::new();
    let (_, first) = read(&ground, FIRST);
    let (_, generation) = read(&ground, GENERATION);
    let (_, today) = read(&ground, TODAY);
    assert_eq!((first.generation, generation.generation), (None, Some(7)));
    let due = |record: &Record| record.before.as_ref().unwrap().due.is_some();
    assert_eq!((due(&generation), due(&today)), (false, true));
    for record in [first, generation, today] {
        assert_eq!(record.target.as_str(), "/var/lib/kubelet/pods/6f0c/volumes/kubernetes.io~csi/secrets/mount");
        assert_eq!((record.class.to_string().as_str(), record.group, record.size), ("db", Some(2000), 1 << 20));
        assert_eq!(record.workload.service_account.to_string(), "app");
        assert_eq!(record.before.unwrap().secrets.len(), 2);
    }
}

#[test]
fn the_newest_golden_record_is_what_this_build_writes() {
    let (json, record) = read(&Ground::new(), TODAY);
    let written = String::from_utf8(record.to_json().unwrap()).unwrap();
    assert_eq!(written, String::from_utf8(json).unwrap(), "a new form: add its golden file, and keep the others");
}

#[test]
fn an_engine_half_refuses_a_warden_of_another_build_in_one_line_and_tells_it_so() {
    let (ours, theirs) = Channel::pair().unwrap();
    let mut engine = Command::new(env!("CARGO_BIN_EXE_evanesce-csi"))
        .arg0("evanesce-csi-engine")
        .args([std::process::id().to_string(), "uid=60999".to_owned()])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // How every hello begins, for ever; then something that this build has never heard of.
    ours.send(&(0u32, PROTOCOL + 1, "9.9.9", "a field of the future"), &[]).unwrap();
    let answer = ours.receive_greeting::<EngineFrame>().unwrap();
    assert!(matches!(answer, Some((EngineFrame::HelloBack(back), _)) if back.protocol == PROTOCOL));
    assert_eq!(engine.wait().unwrap().code(), Some(1));
    let mut line = String::new();
    engine.stderr.unwrap().read_to_string(&mut line).unwrap();
    assert!(line.contains("9.9.9") && line.contains("restart all of it") && line.lines().count() == 1, "{line}");
}

#[test]
fn a_volume_of_another_engine_uid_is_left_alone_in_one_line_and_can_be_removed() {
    let ground = Ground::new();
    let mut earlier = ground.volumes();
    earlier.make(volume("v"), 1 << 16, 64).unwrap();
    earlier.attach(&volume("v"), ground.target()).unwrap();
    drop(earlier);

    let mut volumes = Volumes::new(ground.kernel(), PodsDir::open(&ground.pods()).unwrap(), OWNER + 1, CEILING);
    let error = volumes.adopt(&volume("v"), ground.target()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Busy);
    let line = error.to_string();
    assert!(line.contains("--engine-uid 60999") && line.contains("61000") && !line.contains('\n'), "{line}");
    assert!(volumes.is_attached(&volume("v"), &ground.target()).unwrap());
    volumes.detach(&volume("v"), Some(&ground.target())).unwrap();
    assert!(!fs::exists(ground.target().as_str()).unwrap());
}

#[test]
fn what_a_killed_warden_left_in_the_staging_directory_is_gone_after_the_next_start() {
    let ground = Ground::new();
    let staging = ground.path("state/test/staging");
    ground.kernel();
    for _ in 0..2 {
        crate::ground::foreign_tmpfs(&ground.kernel(), &staging);
    }
    assert_eq!(crate::ground::mounts_of("somebody"), 1, "the second start has found the first mount");
    ground.kernel();
    assert_eq!(crate::ground::mounts_of("somebody"), 0);
}
