// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What happened, for auditors: one type for each event, OCSF on the wire, a guard so that nothing goes unsaid.
//!
//! Events hold names, versions and outcomes; never a value, a digest of one, a token, a lease id or anything that a
//! backend wrote into a body. A [`Scope`] is opened before policy is asked and closed with the result, so every `?` on
//! the way is audited; a scope that is dropped records [`Event::Cancelled`].
//!
//! - [`ocsf`] writes an event as one line of OCSF 1.8.0.
//! - [`log`] numbers events and has one thread write them, so that recording waits for nobody.
//! - [`sink`] is where the lines end up.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::{Identity, Login};
use crate::error::{Error, Kind};
use crate::lease::Cause;
use crate::names::{BackendName, VolumeClassName};
use crate::secret::Version;
use crate::spec::volume::MaxStale;
use crate::workload::Workload;

pub mod log;
pub mod ocsf;
#[cfg(feature = "testing")]
pub mod recording;
pub mod sink;

/// Where events go. Recording never waits for a disk or a network and never fails towards its caller.
pub trait Auditor: Send + Sync {
    /// Takes one event.
    fn record(&self, event: Event);
}

/// Whose volume an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The volume's id: joins the events of one volume.
    pub volume: String,
    /// The pod.
    pub workload: Workload,
    /// The `SecretVolume`.
    pub class: VolumeClassName,
}

/// First delivery or refresh: two verbs with two rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The pod waits for its volume; a failure is loud.
    First,
    /// The pod runs; a failure keeps what it has.
    Refresh,
}

impl Purpose {
    /// The name used in metrics, logs and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Refresh => "refresh",
        }
    }
}

/// How one step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it should.
    Success,
    /// It did not; which kind of failure.
    Failure(Kind),
}

/// Where a delivery's answer to a question comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// It asked the backend itself.
    Asked,
    /// The backend is away; the answer is the last one that the same identity had on this node.
    Remembered,
    /// The answer was there, asked for a moment ago for another volume of the same identity.
    Reused,
    /// It waited for the answer to the same question of another volume of the same identity.
    Shared,
}

impl Source {
    /// The name used in metrics and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Remembered => "remembered",
            Self::Reused => "reused",
            Self::Shared => "shared",
        }
    }
}

/// A secret that a volume shows, by name and version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Shown {
    /// The backend.
    pub backend: BackendName,
    /// The exact path that was sent.
    pub path: String,
    /// Its version, where the backend has one.
    pub version: Option<Version>,
    /// Whether it ends by itself: a lease or a certificate, which another question would not read but make anew.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends: bool,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A delivery was dropped before its end: the daemon drains or a task was lost.
    Cancelled {
        /// Whose volume.
        subject: Subject,
        /// Which verb.
        purpose: Purpose,
    },
    /// A delivery failed for a reason that is nobody's permission.
    Failed {
        /// Whose volume.
        subject: Subject,
        /// Which verb.
        purpose: Purpose,
        /// What kind of failure.
        kind: Kind,
        /// The tenant's message.
        message: String,
    },
    /// A delivery has a backend's answer about a secret.
    Fetched {
        /// Whose volume.
        subject: Subject,
        /// Whom the backend took the caller for.
        identity: Identity,
        /// Which secret, at which version.
        secret: Shown,
        /// Whether this delivery asked.
        source: Source,
        /// The backend's name for the request that was made, by whomever.
        request_id: Option<String>,
        /// How long the answer lasts, where it has an end.
        ttl: Option<Duration>,
        /// Where it was sent.
        endpoint: Option<(String, u16)>,
        /// How it ended.
        outcome: Outcome,
    },
    /// The backends have confirmed or replaced what was too old: its mark is gone, its files are there.
    FreshAgain {
        /// Whose volume.
        subject: Subject,
        /// The generation that is shown.
        generation: u64,
    },
    /// Logins were found that nobody can end any more: they were written down before the node's last boot. They, and what
    /// came with them, end at their own time.
    LeasesLost {
        /// How many.
        groups: u32,
    },
    /// A backend was asked to log a workload in.
    LoggedIn {
        /// Whose volume.
        subject: Subject,
        /// Whom the backend was asked to take the caller for.
        identity: Identity,
        /// What it gave.
        login: Login,
        /// How it ended.
        outcome: Outcome,
    },
    /// A volume became visible in its pod.
    Mounted {
        /// Whose volume.
        subject: Subject,
        /// Where.
        target: String,
        /// The files, by path.
        files: Vec<String>,
        /// The secrets they show.
        secrets: Vec<Shown>,
        /// The mount's options.
        options: Vec<String>,
    },
    /// A volume was filled with answers that were remembered, because a backend could not be reached.
    Offline {
        /// Whose volume.
        subject: Subject,
        /// How old the oldest answer is.
        age: Duration,
        /// Why the backend was not asked: the tenant's message.
        message: String,
    },
    /// A new generation took the place of the one before.
    Refreshed {
        /// Whose volume.
        subject: Subject,
        /// The new generation's number.
        generation: u64,
        /// The secrets shown before.
        before: Vec<Shown>,
        /// The secrets shown now.
        after: Vec<Shown>,
    },
    /// Policy, the backend or the request's own form said no.
    Refused {
        /// Whose volume, as far as the request said.
        subject: Option<Subject>,
        /// Which verb, of a request that was understood.
        purpose: Option<Purpose>,
        /// The volume's id, as far as the request said.
        volume: Option<String>,
        /// What kind of refusal.
        kind: Kind,
        /// The tenant's message.
        message: String,
    },
    /// A login was ended, and every lease that came with it.
    Revoked {
        /// The volume it was made for.
        subject: Subject,
        /// Whom the backend took the caller for.
        identity: Identity,
        /// The lease group's name.
        group: String,
        /// How many leases are known to have come with it.
        leases: usize,
        /// Why.
        cause: Cause,
        /// How it ended; after a failure the leases end at their own time.
        outcome: Outcome,
    },
    /// The backends could not confirm a volume's files for longer than its class allows.
    TooStale {
        /// Whose volume.
        subject: Subject,
        /// What its class allows, and what became of the files.
        limit: MaxStale,
        /// The generation that is shown.
        generation: u64,
        /// What kind of failure its last refresh had.
        kind: Kind,
        /// The tenant's message about it.
        message: String,
    },
    /// A volume is gone from its pod.
    Unmounted {
        /// Whose volume; absent for a volume this process never knew.
        subject: Option<Subject>,
        /// The volume's id.
        volume: String,
        /// Where it was.
        target: String,
    },
}

impl Event {
    /// The stable name of what happened: `metadata.event_code` on the wire, a label in metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Cancelled { .. } => "cancelled",
            Self::Failed { .. } => "failed",
            Self::Fetched { .. } => "fetch",
            Self::FreshAgain { .. } => "fresh_again",
            Self::LeasesLost { .. } => "leases_lost",
            Self::LoggedIn { .. } => "login",
            Self::Mounted { .. } => "mount",
            Self::Offline { .. } => "offline",
            Self::Refreshed { .. } => "refresh",
            Self::Refused { .. } => "refused",
            Self::Revoked { .. } => "revoke",
            Self::TooStale { .. } => "too_stale",
            Self::Unmounted { .. } => "unmount",
        }
    }
}

/// The audit of one delivery: a guard that records how it ended.
pub struct Scope {
    auditor: Arc<dyn Auditor>,
    subject: Subject,
    purpose: Purpose,
    open: bool,
}

impl Scope {
    /// Opens the scope of one delivery.
    pub fn open(auditor: Arc<dyn Auditor>, subject: Subject, purpose: Purpose) -> Self {
        Self { auditor, subject, purpose, open: true }
    }

    /// Whose volume.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// First delivery or refresh.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Where events go, for steps that outlive the delivery which began them.
    pub fn auditor(&self) -> &Arc<dyn Auditor> {
        &self.auditor
    }

    /// Records a step on the way.
    pub fn record(&self, event: Event) {
        self.auditor.record(event);
    }

    /// Records the end: `done` says what a success was, if it was worth an event.
    pub fn close<T>(mut self, result: &Result<T, Error>, done: impl FnOnce(Subject, &T) -> Option<Event>) {
        self.open = false;
        let subject = self.subject.clone();
        let event = match result {
            Ok(value) => done(subject, value),
            Err(error) => Some(match error.kind() {
                Kind::Refused | Kind::Unauthenticated | Kind::Invalid => Event::Refused {
                    volume: Some(subject.volume.clone()),
                    subject: Some(subject),
                    purpose: Some(self.purpose),
                    kind: error.kind(),
                    message: error.message().to_owned(),
                },
                kind => Event::Failed { subject, purpose: self.purpose, kind, message: error.message().to_owned() },
            }),
        };
        if let Some(event) = event {
            self.auditor.record(event);
        }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if self.open {
            self.auditor.record(Event::Cancelled { subject: self.subject.clone(), purpose: self.purpose });
        }
    }
}
