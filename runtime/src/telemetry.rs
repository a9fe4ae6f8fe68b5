// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Logs: lines on stderr, for people at a terminal and as JSON everywhere else.
//!
//! **Libraries may not speak.** Below a warning an HTTP client or a store's client prints what it sends: headers, bodies,
//! and, in the spans it opens, every argument, a token among them. So whatever filter the operator gives, code outside
//! this product is heard from `warn` upwards, opens no span, and the store clients ([`SILENT`]) are not heard at all;
//! what went wrong in them is ours to say. `RUST_LOG=trace` is then safe to ask of a user.

use std::fmt;
use std::io::{IsTerminal, stderr};
use std::str::FromStr;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Our own crates' targets begin with this.
const OURS: &str = "evanesce";

/// Libraries that are handed secrets as arguments and format their errors from answers.
pub const SILENT: &[&str] = &[
    "vaultrs",
    "rustify",
    "aws_credential_types",
    "aws_runtime",
    "aws_sdk_secretsmanager",
    "aws_sigv4",
    "aws_smithy_http",
    "aws_smithy_http_client",
    "aws_smithy_json",
    "aws_smithy_runtime",
    "aws_smithy_runtime_api",
    "aws_smithy_types",
];

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// [`Human`](Self::Human) if stderr is a terminal, [`Json`](Self::Json) otherwise.
    #[default]
    Auto,
    /// One line for people, with colour if stderr is a terminal.
    Human,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// Every format.
    pub const ALL: &[Self] = &[Self::Auto, Self::Human, Self::Json];

    /// The format's name on the command line: `auto`, `human` or `json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Human => "human",
            Self::Json => "json",
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for LogFormat {
    type Err = TelemetryError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.iter().find(|format| format.as_str() == name);
        known.copied().ok_or_else(|| TelemetryError::Format(name.to_owned()))
    }
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("log filter `{filter}`: {source}; give a level, or levels by target, as in `info,evanesce_engine=debug`")]
    Filter {
        /// The filter as it was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// No such format.
    #[error("log format `{0}` is none of auto, human, json")]
    Format(String),
    /// It was set up before.
    #[error("logging is already set up: {0}")]
    Twice(#[from] TryInitError),
}

/// Sets up logging for the whole process: to stderr, in `format`, what `filter` lets through (`RUST_LOG` syntax, as
/// `info` or `info,evanesce_engine=debug`).
///
/// # Errors
///
/// [`TelemetryError::Filter`], [`TelemetryError::Twice`].
pub fn init(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let terminal = stderr().is_terminal();
    let json = match format {
        LogFormat::Auto => !terminal,
        LogFormat::Human => false,
        LogFormat::Json => true,
    };
    if json {
        json_lines(filter, stderr)?.try_init()?;
    } else {
        human_lines(filter, stderr, terminal)?.try_init()?;
    }
    Ok(())
}

fn human_lines<W>(filter: &str, writer: W, colour: bool) -> Result<impl Subscriber + Send + Sync, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colour);
    let filter = parse(filter)?.and(filter_fn(may_speak).with_max_level_hint(LevelFilter::TRACE));
    Ok(tracing_subscriber::registry().with(lines.with_filter(filter)))
}

fn json_lines<W>(filter: &str, writer: W) -> Result<impl Subscriber + Send + Sync, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(writer);
    let filter = parse(filter)?.and(filter_fn(may_speak).with_max_level_hint(LevelFilter::TRACE));
    Ok(tracing_subscriber::registry().with(lines.with_filter(filter)))
}

fn parse(filter: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(filter)
        .map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })
}

/// The rule in the module's head.
fn may_speak(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let ours = target.starts_with(OURS);
    let silent = || SILENT.contains(&target.split("::").next().unwrap_or(target));
    ours || (metadata.is_event() && *metadata.level() <= Level::WARN && !silent())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;
    use tracing::{debug, error, error_span, info, trace, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn json(filter: &str, body: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        with_default(json_lines(filter, move || writer.clone()).unwrap(), body);
        lines.text()
    }

    fn human(colour: bool, body: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        with_default(human_lines("info", move || writer.clone(), colour).unwrap(), body);
        lines.text()
    }

    #[test]
    fn json_lines_carry_fields_by_their_names() {
        let said = json("info", || info!(volume_id = "csi-1", "published"));
        assert!(said.contains(r#""volume_id":"csi-1""#) && said.contains(r#""message":"published""#), "{said}");
        assert_eq!(said.lines().count(), 1);
    }

    #[test]
    fn colour_is_for_terminals() {
        assert!(human(true, || info!("published")).contains('\x1b'));
        assert!(!human(false, || info!("published")).contains('\x1b'));
    }

    #[test]
    fn what_others_wrote_cannot_start_a_line_or_colour_one() {
        let said = human(false, || info!(pod = "a\nERROR forged \x1b[31m", "published"));
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(!said.contains('\x1b'));
    }

    #[test]
    fn the_filter_says_what_of_ours_is_heard() {
        let body = || {
            debug!(target: "evanesce_engine::fetch", "fetching");
            debug!(target: "evanesce_csi", "publishing");
        };
        let said = json("info,evanesce_engine=debug", body);
        assert!(said.contains("fetching") && !said.contains("publishing"), "{said}");
    }

    #[test]
    fn libraries_are_not_heard_below_a_warning_whatever_the_filter_says() {
        let said = json("trace", || {
            trace!(target: "h2::client", "headers canary");
            debug!(target: "reqwest", "body canary");
            info!(target: "hyper", "canary");
            warn!(target: "rustls", "an expired certificate");
            trace!("ours");
        });
        assert!(!said.contains("canary"), "{said}");
        assert!(said.contains("an expired certificate") && said.contains("ours"), "{said}");
    }

    #[test]
    fn a_librarys_span_lends_its_arguments_to_no_line() {
        let said = json("trace", || {
            error_span!(target: "somebodys_client", "login", jwt = "canary").in_scope(|| info!("logged in"));
        });
        assert!(said.contains("logged in") && !said.contains("canary"), "{said}");
    }

    #[test]
    fn store_clients_are_not_heard_at_all() {
        let said = json("trace,vaultrs=trace", || {
            error!(target: "vaultrs::api", "canary");
            error!(target: "rustify", "canary");
            error!(target: "vaultrs_like", "another crate");
        });
        assert!(!said.contains("canary") && said.contains("another crate"), "{said}");
    }

    #[test]
    fn a_filter_that_does_not_parse_is_named() {
        let error = parse("evanesce=loud").map(|_| ()).unwrap_err();
        assert!(error.to_string().starts_with("log filter `evanesce=loud`: "), "{error}");
    }

    #[test]
    fn a_formats_name_leads_back_to_it() {
        for format in LogFormat::ALL {
            assert_eq!(format.as_str().parse::<LogFormat>().unwrap(), *format);
        }
        assert!("xml".parse::<LogFormat>().is_err());
    }
}
