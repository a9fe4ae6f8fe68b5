// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! One error type with a closed list of kinds and two audiences.
//!
//! `message` is for whoever reads the pod's events: what failed and what to do, never a value, nothing about other
//! tenants. `detail` is for the operator's log. A program turns [`Kind`] into its own codes in one exhaustive match.

use std::borrow::Cow;
use std::time::Duration;

/// What went wrong, for a tenant and for the operator.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: Kind,
    message: Cow<'static, str>,
    detail: Option<String>,
    retry_after: Option<Duration>,
}

/// The closed list of what can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Another operation on the volume is in flight; try again.
    Busy,
    /// The caller left or the daemon is draining.
    Cancelled,
    /// The volume exists with other parameters.
    Conflict,
    /// A limit of the node or of the volume is reached.
    Exhausted,
    /// A fault of our own or of the kernel.
    Internal,
    /// The request or the class is wrong; trying again does not help.
    Invalid,
    /// A backend answered what it must not.
    Malformed,
    /// The secret, key or class does not exist.
    Missing,
    /// What is needed is not known yet (classes still loading, no token yet); try again.
    NotReady,
    /// Policy or the backend says no.
    Refused,
    /// A backend asks for fewer requests.
    Throttled,
    /// A deadline of ours passed.
    TimedOut,
    /// No valid token for the backend's audience.
    Unauthenticated,
    /// A backend cannot be reached or cannot answer.
    Unavailable,
}

impl Kind {
    /// Every kind, in the order of their names.
    pub const ALL: [Self; 14] = [
        Self::Busy,
        Self::Cancelled,
        Self::Conflict,
        Self::Exhausted,
        Self::Internal,
        Self::Invalid,
        Self::Malformed,
        Self::Missing,
        Self::NotReady,
        Self::Refused,
        Self::Throttled,
        Self::TimedOut,
        Self::Unauthenticated,
        Self::Unavailable,
    ];

    /// The name used in metrics, logs and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Cancelled => "cancelled",
            Self::Conflict => "conflict",
            Self::Exhausted => "exhausted",
            Self::Internal => "internal",
            Self::Invalid => "invalid",
            Self::Malformed => "malformed",
            Self::Missing => "missing",
            Self::NotReady => "not_ready",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
            Self::TimedOut => "timed_out",
            Self::Unauthenticated => "unauthenticated",
            Self::Unavailable => "unavailable",
        }
    }
}

impl Error {
    /// An error of `kind` whose `message` says what failed and what to do.
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), detail: None, retry_after: None }
    }

    /// Adds what only the operator's log should say.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the backend's own wish for when to come back.
    #[must_use]
    pub fn with_retry_after(mut self, after: Option<Duration>) -> Self {
        self.retry_after = after;
        self
    }

    /// Puts `context: ` before the message.
    #[must_use]
    pub fn context(mut self, context: impl std::fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message).into();
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The tenant's message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The operator's addition.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// When the backend wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

macro_rules! shorthand {
    ($($(#[$doc:meta])* $name:ident => $kind:ident;)+) => {
        impl Error {
            $($(#[$doc])* pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
                Self::new(Kind::$kind, message)
            })+
        }
    };
}

shorthand! {
    /// [`Kind::Invalid`].
    invalid => Invalid;
    /// [`Kind::Internal`].
    internal => Internal;
    /// [`Kind::Missing`].
    missing => Missing;
    /// [`Kind::Refused`].
    refused => Refused;
    /// [`Kind::Unauthenticated`].
    unauthenticated => Unauthenticated;
    /// [`Kind::Exhausted`].
    exhausted => Exhausted;
    /// [`Kind::NotReady`].
    not_ready => NotReady;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_listed_once_in_the_order_of_its_name() {
        let names: Vec<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names, sorted);
    }
}
