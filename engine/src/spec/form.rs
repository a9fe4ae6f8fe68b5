// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What a value may be: one closed list of forms with their bounds. The readers take the bounds from here, the reference
//! page its second column, and the schema of the custom resources its types.

use std::borrow::Cow;
use std::time::Duration;

use crate::backend::role::RoleTemplate;
use crate::secret_ref::SecretPath;
use crate::spec::keys::Table;

/// What a value may be.
#[derive(Debug)]
pub enum Form {
    /// An `http` or `https` address of a server.
    Address,
    /// A map whose values are text or whole numbers.
    Arguments,
    /// `true` or `false`.
    Boolean,
    /// PEM certificates.
    Certificates,
    /// A duration within bounds.
    Duration {
        /// The shortest.
        least: Duration,
        /// The longest.
        most: Duration,
    },
    /// The name of a credentials file.
    FileName,
    /// The path of a file, below the volume's root.
    FilePath,
    /// The absolute path of a folder.
    Folder,
    /// A list.
    List {
        /// What its items are.
        of: &'static Form,
        /// How many it may have.
        most: usize,
        /// What to say where it has none; that is all right where absent.
        empty: Option<&'static str>,
    },
    /// A map with keys of its own.
    Map(&'static Table),
    /// Permission bits.
    Mode,
    /// A name that Kubernetes judges: what to call it.
    Name(&'static str),
    /// The name of a `SecretBackend`.
    BackendName,
    /// A pattern over names.
    NamePattern,
    /// A whole number within bounds.
    Number {
        /// The smallest.
        least: u64,
        /// The largest.
        most: u64,
    },
    /// A map that is not read.
    NotRead,
    /// A percentage from zero.
    Percentage {
        /// The largest.
        most: u64,
    },
    /// A region of AWS.
    Region,
    /// A role, with placeholders.
    Role,
    /// A path of a secret, or what is written like one.
    SecretPath,
    /// A pattern over secrets.
    SecretPattern,
    /// One of a few words.
    OneOf(&'static [&'static str]),
    /// A namespace of a server.
    ServerNamespace,
    /// A size in bytes within bounds.
    Size {
        /// The smallest.
        least: u64,
        /// The largest.
        most: u64,
    },
    /// Any text that is not empty.
    Text {
        /// How long it may be, in bytes.
        longest: usize,
    },
}

impl Form {
    /// How many entries `args` may have.
    pub(crate) const MOST_ARGUMENTS: usize = 64;

    /// What to call it.
    pub fn kind(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Address => "URL",
            Self::Arguments => "map of text",
            Self::BackendName => "name",
            Self::Boolean => "boolean",
            Self::Certificates => "PEM text",
            Self::Duration { .. } => "duration",
            Self::FileName => "file name",
            Self::FilePath => "relative path",
            Self::Folder => "absolute path",
            Self::List { of, .. } => return Cow::Owned(format!("list of {}s", of.kind())),
            Self::Map(_) | Self::NotRead => "map",
            Self::Mode => "octal in quotes",
            Self::Name(kind) => kind,
            Self::NamePattern | Self::SecretPattern => "pattern",
            Self::Number { .. } => "number",
            Self::OneOf(_) => "word",
            Self::Percentage { .. } => "percentage",
            Self::Region => "name",
            Self::Role => "template",
            Self::SecretPath | Self::ServerNamespace => "path",
            Self::Size { .. } => "size",
            Self::Text { .. } => "text",
        })
    }

    /// How long its text may be, in bytes: the API server reckons what a rule may cost from it.
    pub(crate) fn longest(&self) -> usize {
        match self {
            Self::Arguments => 16 << 10, // a certificate signing request is one
            Self::Certificates => 256 << 10,
            Self::Address => 512,
            Self::BackendName | Self::Name(_) | Self::NamePattern => 253,
            Self::FileName | Self::FilePath => 255,
            Self::Folder => 1024,
            Self::Role => RoleTemplate::LONGEST,
            Self::SecretPath | Self::ServerNamespace => SecretPath::LONGEST,
            Self::SecretPattern => 256,
            Self::Text { longest } => *longest,
            _ => 32,
        }
    }

    /// The bounds of a number, a percentage or a size; of a duration in milliseconds.
    pub(crate) fn bounds(&self) -> (u64, u64) {
        let milliseconds = |it: &Duration| u64::try_from(it.as_millis()).unwrap_or(u64::MAX);
        match self {
            Self::Duration { least, most } => (milliseconds(least), milliseconds(most)),
            Self::Number { least, most } | Self::Size { least, most } => (*least, *most),
            Self::Percentage { most } => (0, *most),
            _ => (0, u64::MAX),
        }
    }
}
