// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What the table of deadlines costs with as many as no node has: each that falls due is set anew, as volumes do.
//!
//! `cargo bench -p evanesce-engine --bench schedule`

#![allow(clippy::print_stdout, reason = "a bench says what it found")]

use std::hint::black_box;
use std::time::{Duration, Instant as Stopwatch};

use evanesce_engine::schedule::{Schedule, random, refresh_after};
use evanesce_engine::spec::volume::Refresh;
use tokio::time::Instant;

const FEW: usize = 100;
const MANY: usize = 100_000;
/// How many deadlines pass in each turn, and how many turns there are of each size, one after the other.
const PASSING: usize = 100_000;
const TURNS: usize = 15;

/// A table of deadlines, each in the midst of its period.
struct Table {
    deadlines: Schedule<String>,
    now: Instant,
}

impl Table {
    fn new(size: usize) -> Self {
        let now = Instant::now();
        let mut deadlines = Schedule::default();
        for number in 0..size {
            // As long as a volume's id.
            deadlines.set(format!("csi-{number:064x}"), now + period().mul_f64(random()));
        }
        Self { deadlines, now }
    }

    /// How long it takes a deadline to pass and to be set anew, the decision when included.
    fn pass(&mut self) -> Duration {
        let begun = Stopwatch::now();
        let mut passed = 0;
        while passed < PASSING {
            self.now = self.deadlines.next().expect("invariant: whatever passes is set anew");
            for key in self.deadlines.due(black_box(self.now)) {
                self.deadlines.set(key, self.now + period());
                passed += 1;
            }
        }
        begun.elapsed() / u32::try_from(passed).unwrap_or(u32::MAX)
    }
}

fn period() -> Duration {
    refresh_after(Refresh { every: Duration::from_secs(300), jitter_percent: 10 }, random())
}

fn median(mut turns: Vec<Duration>) -> Duration {
    turns.sort();
    turns[turns.len() / 2]
}

fn main() {
    let (mut few, mut many) = (Table::new(FEW), Table::new(MANY));
    let turns: Vec<_> = (0..TURNS).map(|_| (few.pass(), many.pass())).collect();
    let (small, large) = (median(turns.iter().map(|it| it.0).collect()), median(turns.iter().map(|it| it.1).collect()));
    println!("a deadline among {FEW}: {small:?}");
    println!("a deadline among {MANY}: {large:?}, {:.2} x", large.as_secs_f64() / small.as_secs_f64());
    let minute = large * u32::try_from(MANY / 5).unwrap_or(u32::MAX);
    println!("{MANY} deadlines of five minutes: {minute:?} of processor time in a minute");
}
