// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Every figure there is: its name, its unit, what it has to be, and what the incumbent has.
//!
//! The incumbent is secrets-store-csi-driver 1.6.0 with openbao-csi-provider 2.0.2, measured on another day on a machine of
//! the same kind: its figures stand for scale, and nothing is computed from them.

/// What a figure has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    /// Beside another figure, to read that one by.
    Beside,
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
    /// This.
    Exactly(f64),
}

impl Target {
    /// Whether a value meets it; `None` where there is nothing to meet.
    pub(crate) fn met(self, value: f64) -> Option<bool> {
        match self {
            Self::Beside => None,
            Self::AtMost(most) => Some(value <= most),
            Self::AtLeast(least) => Some(value >= least),
            Self::Exactly(exact) => Some((value - exact).abs() < f64::EPSILON),
        }
    }

    /// As `<= 1.15`.
    pub(crate) fn text(self) -> Option<String> {
        match self {
            Self::Beside => None,
            Self::AtMost(most) => Some(format!("<= {most}")),
            Self::AtLeast(least) => Some(format!(">= {least}")),
            Self::Exactly(exact) => Some(format!("= {exact}")),
        }
    }
}

/// One figure.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its name.
    pub name: &'static str,
    /// The bench that brings it.
    pub bench: &'static str,
    /// What it is.
    pub what: &'static str,
    /// In what it is counted; `x` is a ratio.
    pub unit: &'static str,
    /// What it has to be.
    pub target: Target,
    /// The incumbent's, where it is known.
    pub incumbent: &'static str,
}

const fn row(
    bench: &'static str,
    name: &'static str,
    unit: &'static str,
    target: Target,
    incumbent: &'static str,
    what: &'static str,
) -> Row {
    Row { name, bench, what, unit, target, incumbent }
}

use Target::{AtLeast, AtMost, Beside, Exactly};

/// The table.
#[rustfmt::skip]
pub(crate) const ROWS: &[Row] = &[
    row("cold", "cold-publish-1", "x", AtMost(1.15), "5", "first publish, 1 secret, nothing of this identity on the node: over a bare client's login and read, which dials anew each time"),
    row("cold", "cold-publish-1-open", "x", Beside, "", "the same over a bare client that never closes its connection"),
    row("cold", "cold-publish-10", "x", AtMost(1.15), "2.8", "first publish, 10 secrets, over a bare client's login and reads"),
    row("cold", "cold-publish-10-open", "x", Beside, "", "the same over a bare client that never closes its connection"),
    row("fresh", "fresh-publish", "ms", AtMost(1.0), "399", "first publish of 10 secrets that the node has fresh for this identity, median"),
    row("republish", "republish", "µs", AtMost(100.0), "100-500", "republish before its deadline on an open connection, median"),
    row("republish", "republish-dial", "x", AtMost(2.0), "", "republish with a dial for each call, as kubelet does, over a bare echo with a dial"),
    row("rotate", "rotate-swap", "x", AtMost(1.15), "", "10 secrets that have changed, from `evanesce refresh`'s call until the pod reads the new bytes: over a bare client's login and reads, which dials anew each time"),
    row("rotate", "rotate-swap-open", "x", Beside, "", "the same over a bare client that never closes its connection"),
    row("rotate", "write-to-read", "%", AtMost(55.0), "", "from a write at the backend until the pod reads it, where the class says `refresh: {every: 1s, jitter: 0%}`, of that period, median"),
    row("rotate", "write-to-read-forced", "ms", AtMost(50.0), "", "from a write at the backend until the pod reads it, with `evanesce refresh`'s call right after the write, median"),
    row("burst", "burst-wall", "s", AtMost(0.3), "37.6", "100 volumes with 10 secrets each at once, one service account, until the last is mounted"),
    row("burst", "burst-calls", "calls", Exactly(11.0), "1100", "what the backend was asked for them"),
    row("memory", "memory-idle", "MB", AtMost(25.0), "105", "resident memory of everything on the node, idle (sum of VmRSS)"),
    row("memory", "memory-idle-anon", "MB", Beside, "", "of which anonymous (sum of RssAnon)"),
    row("memory", "memory-idle-cgroup", "MB", Beside, "", "the cgroup's charge then"),
    row("memory", "memory-100", "MB", AtMost(30.0), "116", "resident memory of everything on the node with 100 volumes of 10 secrets"),
    row("memory", "memory-100-anon", "MB", Beside, "", "of which anonymous"),
    row("memory", "memory-100-cgroup", "MB", Beside, "", "the cgroup's charge then, volumes included"),
    row("idle", "idle", "ms/min", AtMost(60.0), "", "processor time of everything on the node in a minute with 1,000 volumes of one secret, 50 service accounts, none of them due (`every: 1h`)"),
    row("idle", "idle-5m", "ms/min", AtMost(1200.0), "", "the same where they are due every five minutes (`every: 5m`): 200 refreshes in it"),
    row("start", "start-to-ready", "ms", AtMost(100.0), "", "from the start of the process until it says it is ready, median"),
    row("start", "engine-restart", "ms", AtMost(100.0), "", "from a kill -9 of the engine half until a republish is answered, median"),
    row("throughput", "publishes-1", "%", AtLeast(50.0), "", "publishes per second, 1 in flight, identity fresh, of the physical limit"),
    row("throughput", "publishes-1-rate", "1/s", Beside, "2.5", "publishes per second then"),
    row("throughput", "publishes-1-limit", "1/s", Beside, "", "the physical limit: a bare gRPC echo that makes the same mount calls"),
    row("throughput", "publishes-16", "%", AtLeast(50.0), "", "publishes per second, 16 in flight, of the physical limit"),
    row("throughput", "publishes-16-rate", "1/s", Beside, "2.5", "publishes per second then"),
    row("throughput", "publishes-16-limit", "1/s", Beside, "", "the physical limit"),
    row("throughput", "publishes-64", "%", AtLeast(50.0), "", "publishes per second, 64 in flight, of the physical limit"),
    row("throughput", "publishes-64-rate", "1/s", Beside, "2.5", "publishes per second then"),
    row("throughput", "publishes-64-limit", "1/s", Beside, "", "the physical limit"),
];
