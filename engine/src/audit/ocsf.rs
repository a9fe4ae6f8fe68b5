// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Events on the wire: one OCSF 1.8.0 JSON object for each event, on one line.
//!
//! [`encode`] is pure: what happened, where and when go in, bytes come out. It opens no file and asks no clock. Which
//! class an event becomes is argued in `mapping`; the objects that OCSF wants are types in `record`, so a line cannot
//! have a field that nobody wrote down.

use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::Event;
use crate::names::NodeName;

mod mapping;
mod record;

/// The version of the schema that every line follows: <https://schema.ocsf.io/1.8.0/>.
pub const SCHEMA_VERSION: &str = "1.8.0";

/// Longest line of reasons, in characters; what is longer is cut.
const LONGEST_DETAIL: usize = 1024;

/// Longest name that a backend gave (a version, a request id), in bytes; what is longer is left out.
const LONGEST_NAME: usize = 256;

/// What every line of one process says about its writer.
#[derive(Clone, Debug)]
pub struct Context {
    /// The node.
    pub node: NodeName,
    /// The program: `evanesce-csi`.
    pub program: &'static str,
    /// The product's version.
    pub version: &'static str,
    /// The log's name, for readers that collect several.
    pub log_name: &'static str,
    /// The process that writes.
    pub pid: u32,
}

/// When, and which of this process's events.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// The event's number: 1 for the first of a process, without a hole in a log that lost nothing.
    pub sequence: u64,
    /// Its own name in the world.
    pub uid: Uuid,
    /// Wall time.
    pub time: SystemTime,
}

/// What the log says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// Events were lost: their numbers, both included. The line has the number of the last of them.
    Gap {
        /// The first number that is missing.
        first: u64,
        /// The last.
        last: u64,
        /// Why.
        cause: GapCause,
    },
    /// A process began to write.
    Started,
    /// It stopped on purpose. A log that starts again without this line ended in a crash.
    Stopped,
}

/// Why events were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapCause {
    /// They came faster than the log could be written.
    QueueFull,
    /// The place that they were to be written to said no.
    SinkFailed,
}

/// A line's content.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Something that happened to a volume.
    Event(Box<Event>),
    /// Something that happened to the log.
    Log(LogEvent),
}

impl Entry {
    /// The stable name of what happened: `metadata.event_code` on the wire.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Event(event) => event.code(),
            Self::Log(LogEvent::Gap { .. }) => "audit_gap",
            Self::Log(LogEvent::Started) => "audit_start",
            Self::Log(LogEvent::Stopped) => "audit_stop",
        }
    }
}

/// Writes one line, with its newline.
pub fn encode(context: &Context, stamp: &Stamp, entry: &Entry) -> Vec<u8> {
    let record = match entry {
        Entry::Event(event) => mapping::event(context, stamp, event),
        Entry::Log(event) => mapping::log_event(context, stamp, *event),
    };
    let mut line = Vec::with_capacity(1024);
    serde_json::to_writer(&mut line, &record).expect("structs with named fields always have a JSON form");
    line.push(b'\n');
    line
}

/// Milliseconds since the epoch, as OCSF counts time.
fn epoch_millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A name that a backend gave, if it is one: printable and short. A backend does not get to write prose into the log.
fn name_of_backend(name: &str) -> Option<&str> {
    (!name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(|byte| byte.is_ascii_graphic())).then_some(name)
}

/// The first [`LONGEST_DETAIL`] characters.
fn cut(text: &str) -> &str {
    text.char_indices().nth(LONGEST_DETAIL).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_backend_cannot_write_prose_into_the_log() {
        assert_eq!(name_of_backend("3f2a-77:1"), Some("3f2a-77:1"));
        for prose in ["", "two words", "line\nbreak", "\u{1b}[31m", "\u{202e}", &"a".repeat(LONGEST_NAME + 1)] {
            assert_eq!(name_of_backend(prose), None, "{prose:?}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let long = "ä".repeat(LONGEST_DETAIL + 7);
        assert_eq!(cut(&long).chars().count(), LONGEST_DETAIL);
        assert_eq!(cut("short"), "short");
    }

    #[test]
    fn a_clock_before_the_epoch_does_not_stop_the_log() {
        assert_eq!(epoch_millis(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), 0);
        assert_eq!(epoch_millis(SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_227_000_009)), 1_795_227_000_009);
    }
}
