// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What the sidecar is told to do: volumes, and whom to tell about each; parsed at the border.
//!
//! [`keys`] is every key there is, [`read`](mod@read) makes these types of a text, [`here`] looks whether what they name
//! is on this machine.

pub mod here;
pub mod keys;
mod read;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evanesce_engine::error::Error;
use evanesce_runtime::label;
use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use rustix::process::Signal;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The volumes, each with a name of its own.
    pub volumes: Vec<Arc<Volume>>,
}

/// One mounted volume.
#[derive(Debug, PartialEq, Eq)]
pub struct Volume {
    /// What logs call it.
    pub name: String,
    /// Where it is mounted.
    pub path: PathBuf,
    /// Whether the application is told what is shown when the sidecar starts.
    pub on_start: bool,
    /// How long nothing more may change before anybody is told.
    pub debounce: Duration,
    /// The shortest time from one telling to the next.
    pub min_interval: Duration,
    /// What becomes of hooks that fail.
    pub retry: Retry,
    /// Who is told, in this order.
    pub hooks: Vec<Hook>,
}

/// When a hook that failed is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// After the first failure, at most.
    pub first: Duration,
    /// After many.
    pub most: Duration,
    /// After so many failures not at all; `None` tries for ever.
    pub attempts: Option<u32>,
}

/// One way to tell the application.
#[derive(Debug, PartialEq, Eq)]
pub struct Hook {
    /// What logs call it.
    pub name: String,
    /// About what.
    pub on: On,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Whether hooks that come later are run although this one failed.
    pub go_on: bool,
    /// What to do.
    pub action: Action,
}

label! {
    /// What is told.
    pub enum On("on") {
        /// There is a new generation.
        Changed = "changed",
        /// The files are older than their class allows.
        Stale = "stale",
        /// They are not any more.
        Fresh = "fresh",
    }
}

/// What a hook does.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Runs a program.
    Command(CommandLine),
    /// Sends a request.
    Http(Box<Request>),
    /// Sends a signal.
    Signal(Recipient),
    /// Gives a file, which is made if it is not there, the time of now.
    Touch(PathBuf),
}

/// A program with its arguments; no shell reads them.
#[derive(Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The program: a whole path, or a name to look for in `PATH`.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Whether what it prints is part of the log.
    pub quiet: bool,
}

/// A request, and what its answer has to be.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// Where to.
    pub url: Uri,
    /// The method.
    pub method: hyper::Method,
    /// Headers; their values never print.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The statuses that mean success; without one, 200 to 299.
    pub status: Vec<u16>,
    /// Certificates to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// The socket to connect to in place of the URL's host.
    pub unix_socket: Option<PathBuf>,
}

/// A signal, and who gets it.
#[derive(Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The signal.
    pub signal: Signal,
    /// A file with the process's number.
    pub pid_file: Option<PathBuf>,
    /// The process's name.
    pub process: Option<String>,
}

impl Config {
    /// Reads the file's text.
    ///
    /// # Errors
    /// [`Kind::Invalid`](evanesce_engine::error::Kind::Invalid) with line, column, field and cure.
    pub fn parse(text: &str) -> Result<Self, Error> {
        read::config(text)
    }
}

impl Volume {
    /// The hooks that are about `on`, in order.
    pub fn hooks(&self, on: On) -> impl Iterator<Item = &Hook> {
        self.hooks.iter().filter(move |hook| hook.on == on)
    }
}
