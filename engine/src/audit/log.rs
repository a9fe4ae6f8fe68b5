// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The audit log: numbers events and has one thread write them.
//!
//! Recording takes a lock for as long as a number and a push take; it never waits for a disk. What does not fit into
//! the queue and what a sink does not take is lost, and said: [`AuditLog::lost`] counts it, and each sink gets a line
//! `audit_gap` with the missing numbers as soon as it takes lines again. Numbers are the proof: those in a log go up by
//! one, or a gap stands in for the missing.
//!
//! It is not tamper-evident: who can write the file can change it. Send the lines off the node.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ring::rand::{SecureRandom, SystemRandom};
use uuid::{Builder, Uuid};

use super::ocsf::{Context, Entry, GapCause, LogEvent, Stamp, encode};
use super::sink::Sink;
use super::{Auditor, Event};
use crate::clock::Clock;

/// How many events wait at most. Four deliveries a second on a node with a stalled disk fill it in some minutes, at
/// about a kilobyte each.
pub const QUEUE: usize = 4096;

/// A line is written at once, so that it outlives this process, and is on its disk that much later at the latest, so that a
/// disk is not asked to finish ten times for one delivery.
const SYNC_WITHIN: Duration = Duration::from_millis(50);

/// An [`Auditor`] that writes OCSF lines to every sink it was given.
pub struct AuditLog {
    shared: Arc<Shared>,
}

struct Shared {
    context: Context,
    clock: Arc<dyn Clock>,
    capacity: usize,
    queue: Mutex<Queue>,
    /// Something to do for the writer.
    work: Condvar,
    /// The writer has done what was there.
    done: Condvar,
    lost: AtomicU64,
    healthy: AtomicBool,
}

struct Queue {
    waiting: VecDeque<Numbered>,
    /// The number of the last event, taken or lost.
    last: u64,
    /// The latest time of an event so far: what the ids follow, where the system's time is set back.
    latest: SystemTime,
    /// How many rounds of the writer were asked for, and how many it has made.
    asked: u64,
    served: u64,
    closed: bool,
    /// The writer waits for work, and has not been woken.
    idle: bool,
}

struct Numbered {
    stamp: Stamp,
    entry: Entry,
}

impl AuditLog {
    /// Starts the log and its thread; its first line is `audit_start`. [`QUEUE`] is a good `capacity`.
    ///
    /// # Errors
    /// Where the system has no room for a thread.
    pub fn start(
        context: Context,
        sinks: Vec<Box<dyn Sink>>,
        capacity: usize,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            context,
            clock,
            capacity,
            queue: Mutex::new(Queue::default()),
            work: Condvar::new(),
            done: Condvar::new(),
            lost: AtomicU64::new(0),
            healthy: AtomicBool::new(true),
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            tracks: sinks.into_iter().map(|sink| Track { sink, last: 0, failed: false }).collect(),
            unsynced: None,
            synced: true,
        };
        std::thread::Builder::new().name("audit".into()).spawn(move || writer.run())?;
        shared.push(Entry::Log(LogEvent::Started));
        Ok(Self { shared })
    }

    /// How many events were lost since the start, for a metric: one for each that found the queue full, and one for
    /// each that a sink did not take.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Whether every sink took the last line it was given; for a metric.
    pub fn is_healthy(&self) -> bool {
        self.shared.healthy.load(Ordering::Relaxed)
    }

    /// Waits until what was recorded before is written, or `deadline` is over; `true` when it is written or its loss
    /// is said. It blocks its thread.
    pub fn flush(&self, deadline: Duration) -> bool {
        let mut queue = self.shared.lock();
        queue.asked += 1;
        let asked = queue.asked;
        self.shared.work.notify_one();
        let (queue, _) = self
            .shared
            .done
            .wait_timeout_while(queue, deadline, |queue| queue.served < asked)
            .unwrap_or_else(PoisonError::into_inner);
        queue.served >= asked
    }

    /// Writes `audit_stop` as the last line and waits for it as [`AuditLog::flush`] does. What is recorded later is
    /// counted as lost.
    pub fn close(&self, deadline: Duration) -> bool {
        let mut queue = self.shared.lock();
        if !queue.closed {
            queue.push(Entry::Log(LogEvent::Stopped), &*self.shared.clock);
            queue.closed = true;
        }
        drop(queue);
        self.flush(deadline)
    }
}

impl Auditor for AuditLog {
    fn record(&self, event: Event) {
        self.shared.push(Entry::Event(Box::new(event)));
    }
}

impl Drop for AuditLog {
    /// Lets the writer end when it has written what waits; it is not waited for, because a disk may never answer.
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.closed = true;
        queue.asked += 1;
        self.shared.work.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the entry the next number, and room if there is any.
    fn push(&self, entry: Entry) {
        let mut queue = self.lock();
        if queue.closed {
            self.count_lost();
        } else if queue.waiting.len() >= self.capacity {
            // Its number is used up: the hole is how the writer knows.
            queue.last += 1;
            self.count_lost();
        } else {
            queue.push(entry, &*self.clock);
            // Once, and without the lock, which the writer would only wait for.
            let wake = std::mem::take(&mut queue.idle);
            drop(queue);
            if wake {
                self.work.notify_one();
            }
        }
    }

    fn count_lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            last: 0,
            latest: SystemTime::UNIX_EPOCH,
            asked: 0,
            served: 0,
            closed: false,
            idle: false,
        }
    }
}

impl Queue {
    /// The time is read here, under the lock: numbers and times go up together.
    fn push(&mut self, entry: Entry, clock: &dyn Clock) {
        let time = clock.now();
        self.latest = self.latest.max(time);
        self.last += 1;
        let stamp = Stamp { sequence: self.last, uid: uid(self.last, self.latest), time };
        self.waiting.push_back(Numbered { stamp, entry });
    }
}

/// A UUIDv7 (RFC 9562 section 5.7) that sorts by time, to a 4096th of a millisecond, and then by number; 32 bits tell
/// processes apart.
///
/// They are `ring`'s, which makes the system call. The crate `uuid` would have a statically linked program open
/// `/dev/urandom`, and the engine half's root has none.
fn uid(sequence: u64, time: SystemTime) -> Uuid {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let fraction = (since.subsec_nanos() % 1_000_000) * 4096 / 1_000_000;
    // Two bits of the number's place are the variant's.
    let number = (sequence & 0x3fff_ffff) as u32;
    let mut random = [0; 4];
    // Without it, a number and a time are still told apart.
    let _ = SystemRandom::new().fill(&mut random);
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&(fraction as u16).to_be_bytes());
    bytes[2..6].copy_from_slice(&number.to_be_bytes());
    bytes[6..].copy_from_slice(&random);
    Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
}

/// The thread that writes.
struct Writer {
    shared: Arc<Shared>,
    tracks: Vec<Track>,
    /// Since when there are lines that may not have reached their disk.
    unsynced: Option<Instant>,
    /// Whether the last ones did.
    synced: bool,
}

/// One sink and how far it has come.
struct Track {
    sink: Box<dyn Sink>,
    /// The number of the last event it has, or whose loss it was told.
    last: u64,
    /// Whether it refused a line since.
    failed: bool,
}

impl Writer {
    fn run(mut self) {
        let mut batch = VecDeque::new();
        loop {
            let (last, asked, closed, wanted);
            {
                let mut queue = self.wait();
                std::mem::swap(&mut queue.waiting, &mut batch);
                (last, asked, closed) = (queue.last, queue.asked, queue.closed);
                wanted = closed || queue.served != asked;
            }
            self.write(&mut batch, last);
            if wanted || self.unsynced.is_some_and(|since| since.elapsed() >= SYNC_WITHIN) {
                self.sync();
            }
            self.say_health();
            // Nothing is pushed into a closed log, so this batch was the last.
            self.shared.lock().served = if closed { u64::MAX } else { asked };
            self.shared.done.notify_all();
            if closed {
                return;
            }
        }
    }

    /// Waits for something to do: lines to write, or a disk to ask.
    fn wait(&self) -> MutexGuard<'_, Queue> {
        let mut queue = self.shared.lock();
        while queue.waiting.is_empty() && queue.served == queue.asked && !queue.closed {
            queue.idle = true;
            queue = match self.unsynced.map(|since| SYNC_WITHIN.saturating_sub(since.elapsed())) {
                None => self.shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => break,
                Some(left) => self.shared.work.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        queue.idle = false;
        queue
    }

    /// Writes a batch to every sink, then what the sinks miss up to `last`.
    fn write(&mut self, batch: &mut VecDeque<Numbered>, last: u64) {
        let Self { shared, tracks, unsynced, .. } = self;
        unsynced.get_or_insert_with(Instant::now);
        for Numbered { stamp, entry } in batch.drain(..) {
            let line = encode(&shared.context, &stamp, &entry);
            for track in tracks.iter_mut() {
                track.fill_gap(shared, stamp.sequence - 1);
                track.write(shared, &line, stamp.sequence);
            }
        }
        for track in tracks.iter_mut() {
            track.fill_gap(shared, last);
        }
    }

    /// Has every sink bring its lines to its disk.
    fn sync(&mut self) {
        self.unsynced = None;
        let was_synced = std::mem::replace(&mut self.synced, true);
        for track in &mut self.tracks {
            if let Err(error) = track.sink.flush() {
                self.synced = false;
                if was_synced {
                    tracing::error!(kind = %error.kind(), "the audit log cannot be flushed: look at its disk");
                }
            }
        }
    }

    fn say_health(&self) {
        let healthy = self.synced && !self.tracks.iter().any(|track| track.failed);
        if !self.shared.healthy.swap(healthy, Ordering::Relaxed) && healthy {
            tracing::info!("the audit log is written again");
        }
    }
}

impl Track {
    /// Writes the line of the event `sequence`, unless a gap before it is still unsaid: then it widens the gap.
    fn write(&mut self, shared: &Shared, line: &[u8], sequence: u64) {
        if self.last + 1 == sequence {
            match self.sink.write_line(line) {
                Ok(()) => {
                    self.last = sequence;
                    return;
                }
                Err(error) => {
                    tracing::error!(kind = %error.kind(), "the audit log cannot be written, events are lost: look at its disk");
                    self.failed = true;
                }
            }
        }
        shared.count_lost();
    }

    /// Says which events up to `to` this sink will never have, if there are any and it takes lines.
    fn fill_gap(&mut self, shared: &Shared, to: u64) {
        if self.last >= to {
            return;
        }
        let cause = if self.failed { GapCause::SinkFailed } else { GapCause::QueueFull };
        let gap = Entry::Log(LogEvent::Gap { first: self.last + 1, last: to, cause });
        let time = shared.clock.now();
        let uid = uid(to, time);
        let line = encode(&shared.context, &Stamp { sequence: to, uid, time }, &gap);
        self.failed = self.sink.write_line(&line).is_err();
        if !self.failed {
            self.last = to;
        }
    }
}
