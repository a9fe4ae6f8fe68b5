// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The log numbers without holes, waits for nobody, and says what it lost.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{self, Read, Seek};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, SystemTime};

use evanesce_engine::audit::log::{AuditLog, QUEUE};
use evanesce_engine::audit::ocsf::Context;
use evanesce_engine::audit::recording::RecordingSink;
use evanesce_engine::audit::sink::{FileSink, Sink};
use evanesce_engine::audit::{Auditor, Event};
use evanesce_engine::clock::{Clock, SystemClock};
use evanesce_engine::names::NodeName;
use serde_json::Value;
use tokio::time::Instant;

/// Longer than any machine needs; reached only when a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(sinks: Vec<Box<dyn Sink>>, capacity: usize) -> AuditLog {
    start_at(sinks, capacity, Arc::new(SystemClock))
}

fn start_at(sinks: Vec<Box<dyn Sink>>, capacity: usize, clock: Arc<dyn Clock>) -> AuditLog {
    let context = Context {
        node: NodeName::parse("node-a").unwrap(),
        program: "evanesce-csi",
        version: "0.1.0",
        log_name: "evanesce-audit",
        pid: 1,
    };
    AuditLog::start(context, sinks, capacity, clock).unwrap()
}

fn event(volume: &str) -> Event {
    Event::Unmounted { subject: None, volume: volume.to_owned(), target: "/mount".into() }
}

/// Number, code and, for a gap, its first and last number.
fn outline(lines: &[String]) -> Vec<String> {
    let outline = |line: &String| {
        let line: Value = serde_json::from_str(line).unwrap();
        let code = line["metadata"]["event_code"].as_str().unwrap();
        let gap = &line["unmapped"]["gap"];
        let range = if gap.is_object() {
            format!(" {}-{} {}", gap["first_sequence"], gap["last_sequence"], gap["cause"].as_str().unwrap())
        } else {
            String::new()
        };
        format!("{} {code}{range}", line["metadata"]["sequence"])
    };
    lines.iter().map(outline).collect()
}

/// A sink that blocks in every line until it is opened, as a stalled disk does.
#[derive(Clone)]
struct Gate {
    state: Arc<(Mutex<(bool, usize)>, Condvar)>,
    behind: RecordingSink,
}

impl Gate {
    fn closed() -> Self {
        Self { state: Arc::default(), behind: RecordingSink::default() }
    }

    /// Waits until the writer stands before the gate.
    fn wait_for_writer(&self) {
        let (lock, changed) = &*self.state;
        let state = changed.wait_timeout_while(lock.lock().unwrap(), PATIENCE, |(_, waiting)| *waiting == 0);
        assert!(!state.unwrap().1.timed_out(), "the writer never came");
    }

    fn open(&self) {
        self.state.0.lock().unwrap().0 = true;
        self.state.1.notify_all();
    }
}

impl Sink for Gate {
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        let (lock, changed) = &*self.state;
        let mut state = lock.lock().unwrap();
        state.1 += 1;
        changed.notify_all();
        let mut state = changed.wait_while(state, |(open, _)| !*open).unwrap();
        state.1 -= 1;
        drop(state);
        self.behind.write_line(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.behind.flush()
    }
}

#[test]
fn numbers_go_up_by_one_however_many_record_at_once() {
    let sink = RecordingSink::default();
    let log = start(vec![Box::new(sink.clone())], QUEUE);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..100).for_each(|_| log.record(event("v"))));
        }
    });
    assert!(log.close(PATIENCE));
    let lines = sink.lines();
    let numbers: Vec<u64> = lines
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["metadata"]["sequence"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (1..=802).collect::<Vec<_>>());
    assert_sorted_by_uid(&lines);
    assert_eq!(outline(&lines)[0], "1 audit_start");
    assert_eq!(outline(&lines)[801], "802 audit_stop");
    assert_eq!(log.lost(), 0);
}

/// A clock that is set back by a second each time that it is read.
struct Backwards(Mutex<SystemTime>);

impl Clock for Backwards {
    fn now(&self) -> SystemTime {
        let mut time = self.0.lock().unwrap();
        *time -= Duration::from_secs(1);
        *time
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

#[test]
fn ids_keep_the_order_of_the_numbers_when_the_system_s_time_is_set_back() {
    let sink = RecordingSink::default();
    let clock = Arc::new(Backwards(Mutex::new(SystemTime::now())));
    let log = start_at(vec![Box::new(sink.clone())], QUEUE, clock);
    (0..10).for_each(|_| log.record(event("v")));
    assert!(log.close(PATIENCE));
    let lines = sink.lines();
    assert_eq!(lines.len(), 12);
    assert_sorted_by_uid(&lines);
    let time = |line: &String| serde_json::from_str::<Value>(line).unwrap()["time"].as_u64().unwrap();
    assert!(lines.is_sorted_by_key(|line| std::cmp::Reverse(time(line))), "the times themselves are the system's");
}

/// No two ids are the same, and they sort as the numbers do.
fn assert_sorted_by_uid(lines: &[String]) {
    let uid =
        |line: &String| serde_json::from_str::<Value>(line).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    let uids: Vec<String> = lines.iter().map(uid).collect();
    assert!(uids.is_sorted_by(|a, b| a < b), "a UUIDv7 sorts by its time");
}

#[test]
fn recording_does_not_wait_for_a_disk_and_the_loss_is_said() {
    let gate = Gate::closed();
    let log = start(vec![Box::new(gate.clone())], 3);
    gate.wait_for_writer();
    // The writer holds number 1; three more fit, four do not. Were recording to wait, this line would never end.
    (0..7).for_each(|_| log.record(event("v")));
    assert_eq!(log.lost(), 4);
    assert!(!log.flush(Duration::ZERO), "nothing is written while the disk stalls");
    gate.open();
    assert!(log.flush(PATIENCE));
    log.record(event("v"));
    assert!(log.close(PATIENCE));
    assert_eq!(
        outline(&gate.behind.lines()),
        [
            "1 audit_start",
            "2 unmount",
            "3 unmount",
            "4 unmount",
            "8 audit_gap 5-8 queue_full",
            "9 unmount",
            "10 audit_stop"
        ]
    );
}

#[test]
fn a_sink_that_comes_back_is_told_what_it_missed_and_the_others_miss_nothing() {
    let (weak, strong) = (RecordingSink::default(), RecordingSink::default());
    let log = start(vec![Box::new(weak.clone()), Box::new(strong.clone())], QUEUE);
    assert!(log.flush(PATIENCE));
    weak.set_broken(true);
    log.record(event("a"));
    log.record(event("b"));
    assert!(log.flush(PATIENCE));
    assert_eq!(log.lost(), 2);
    assert!(!log.is_healthy());
    weak.set_broken(false);
    log.record(event("c"));
    assert!(log.close(PATIENCE));
    assert!(log.is_healthy());
    assert_eq!(outline(&weak.lines()), ["1 audit_start", "3 audit_gap 2-3 sink_failed", "4 unmount", "5 audit_stop"]);
    assert_eq!(outline(&strong.lines()), ["1 audit_start", "2 unmount", "3 unmount", "4 unmount", "5 audit_stop"]);
    assert_eq!(log.lost(), 2);
}

#[test]
fn a_flush_tells_a_sink_that_is_back_what_it_missed_without_a_new_event() {
    let sink = RecordingSink::default();
    let log = start(vec![Box::new(sink.clone())], QUEUE);
    assert!(log.flush(PATIENCE));
    sink.set_broken(true);
    log.record(event("a"));
    assert!(log.flush(PATIENCE));
    sink.set_broken(false);
    assert!(log.flush(PATIENCE));
    assert_eq!(outline(&sink.lines()), ["1 audit_start", "2 audit_gap 2-2 sink_failed"]);
}

/// Refuses the lines with the number 2: the event, and any gap that ends with it.
struct WithoutTwo(RecordingSink);

impl Sink for WithoutTwo {
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        let parsed: Value = serde_json::from_slice(line)?;
        if parsed["metadata"]["sequence"] == 2 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.write_line(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn no_event_stands_behind_a_gap_that_could_not_be_said() {
    let behind = RecordingSink::default();
    let log = start(vec![Box::new(WithoutTwo(behind.clone()))], QUEUE);
    assert!(log.flush(PATIENCE));
    log.record(event("a"));
    assert!(log.flush(PATIENCE));
    log.record(event("b"));
    assert!(log.flush(PATIENCE));
    assert_eq!(outline(&behind.lines()), ["1 audit_start", "3 audit_gap 2-3 sink_failed"]);
    assert_eq!(log.lost(), 2);
}

/// Counts how often it is asked to bring its lines to the disk.
#[derive(Clone, Default)]
struct Disk {
    lines: RecordingSink,
    synced: Arc<AtomicU32>,
}

impl Sink for Disk {
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        self.lines.write_line(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.synced.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn lines_reach_their_disk_unasked_and_many_of_them_together() {
    let disk = Disk::default();
    let begun = std::time::Instant::now();
    let log = start(vec![Box::new(disk.clone())], QUEUE);
    let until = |what: &dyn Fn() -> bool| {
        while !what() {
            assert!(begun.elapsed() < PATIENCE, "{} lines, {} times", disk.lines.lines().len(), disk.synced());
            std::thread::yield_now();
        }
    };
    for number in 1..=200 {
        log.record(event("v"));
        until(&|| disk.lines.lines().len() == 1 + number);
    }
    let synced = disk.synced();
    log.record(event("last"));
    until(&|| disk.synced() > synced);
    // Each is at least that long after its first line was written.
    let most = 1 + begun.elapsed().as_millis() / 50;
    assert!(u128::from(disk.synced()) <= most, "{} times, and at most {most} were due", disk.synced());
}

impl Disk {
    fn synced(&self) -> u32 {
        self.synced.load(Ordering::Relaxed)
    }
}

#[test]
fn what_is_recorded_after_the_end_is_counted() {
    let sink = RecordingSink::default();
    let log = start(vec![Box::new(sink.clone())], QUEUE);
    assert!(log.close(PATIENCE));
    log.record(event("late"));
    assert!(log.close(PATIENCE), "closing twice is closing once");
    assert_eq!(log.lost(), 1);
    assert_eq!(outline(&sink.lines()), ["1 audit_start", "2 audit_stop"]);
}

#[test]
fn a_stalled_disk_does_not_hold_up_the_end_of_the_process() {
    let gate = Gate::closed();
    let log = start(vec![Box::new(gate.clone())], QUEUE);
    gate.wait_for_writer();
    assert!(!log.close(Duration::ZERO));
    drop(log);
}

#[test]
fn a_dropped_log_still_writes_what_it_was_given() {
    let gate = Gate::closed();
    let log = start(vec![Box::new(gate.clone())], QUEUE);
    gate.wait_for_writer();
    log.record(event("v"));
    let weak = Arc::downgrade(&gate.state);
    let behind = gate.behind.clone();
    drop(log);
    gate.open();
    drop(gate);
    // The writer's copy of the gate goes away with its thread.
    while weak.upgrade().is_some() {
        std::thread::yield_now();
    }
    assert_eq!(outline(&behind.lines()), ["1 audit_start", "2 unmount"]);
}

#[test]
fn a_file_gets_whole_lines_after_what_it_had() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "{}\n").unwrap();
    let append = std::fs::OpenOptions::new().append(true).open(file.path()).unwrap();
    let log = start(vec![Box::new(FileSink::new(append))], QUEUE);
    log.record(event("v"));
    assert!(log.close(PATIENCE));
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    assert_eq!(lines[0], "{}");
    assert_eq!(outline(&lines[1..]), ["1 audit_start", "2 unmount", "3 audit_stop"]);
    assert!(text.ends_with('\n'));
}
