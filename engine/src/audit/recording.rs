// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! An auditor and a sink that remember, for tests.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::sink::Sink;
use super::{Auditor, Event};

/// Keeps every event.
#[derive(Default)]
pub struct RecordingAuditor {
    events: Mutex<Vec<Event>>,
}

impl RecordingAuditor {
    /// What was recorded, in order.
    pub fn events(&self) -> Vec<Event> {
        lock(&self.events).clone()
    }

    /// The codes of what was recorded, in order: enough for most assertions.
    pub fn codes(&self) -> Vec<&'static str> {
        lock(&self.events).iter().map(Event::code).collect()
    }

    /// What was recorded, in order, and forgets it.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *lock(&self.events))
    }
}

impl Auditor for RecordingAuditor {
    fn record(&self, event: Event) {
        lock(&self.events).push(event);
    }
}

/// Keeps every line, until it is told to fail. Clones share what they keep.
#[derive(Clone, Default)]
pub struct RecordingSink {
    state: Arc<Mutex<SinkState>>,
}

#[derive(Default)]
struct SinkState {
    text: String,
    broken: bool,
}

impl RecordingSink {
    /// The lines, in order.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.state).text.lines().map(str::to_owned).collect()
    }

    /// Whether every line is refused from now on, as by a full disk.
    pub fn set_broken(&self, broken: bool) {
        lock(&self.state).broken = broken;
    }
}

impl Sink for RecordingSink {
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.state);
        if state.broken {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.text.push_str(&String::from_utf8_lossy(line));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if lock(&self.state).broken { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
