// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What comes from outside, against what has to hold of it: one function for each border.
//!
//! A fuzzer feeds them what it invents, and a plain test of `csi-driver` what is kept in `corpus`. They do not only wait
//! for a panic: what is accepted is held against a second reading or sent round once more, and no error shows a value or
//! is longer than a person reads.

pub mod answers;
pub mod channel;
pub mod classes;
pub mod paths;
pub mod publish;
pub mod sealed;
pub mod tokens;

use evanesce_engine::error::Error;

/// Judges one input.
pub type Check = fn(&[u8]);

/// Every border, by the name of its target and of its folder in `corpus`.
pub const TARGETS: [(&str, Check); 7] = [
    ("answers", answers::check),
    ("channel", channel::check),
    ("classes", classes::check),
    ("paths", paths::check),
    ("publish", publish::check),
    ("sealed", sealed::check),
    ("tokens", tokens::check),
];

/// Stands where a value stands: no error may show it.
pub const CANARY: &str = "CANARY7f3a";

/// The longest message, in bytes: it becomes a pod's event, a header of an answer and a line of a log.
const LONGEST: usize = 4096;

/// Holds an error to what has to be true of every one.
pub fn sober(error: &Error) {
    let message = error.message();
    assert!(message.len() <= LONGEST, "an error of {} bytes: {}…", message.len(), &message[..200]);
    assert!(
        !message.is_empty() && !message.chars().any(char::is_control),
        "an error that breaks its line: {message:?}"
    );
    let all = format!("{error:?} {error} {:?}", error.detail());
    assert!(!all.contains(CANARY), "an error shows a value: {all}");
}
