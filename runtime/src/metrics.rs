// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Metrics that are declared once, with a name, a help text, a unit and labels, and can be listed from the declaration.
//!
//! A label is an enum ([`label!`](crate::label)): its values are few and known, so the number of series is bounded by
//! the code and no name of a pod or a secret can become one. Counters exist from the start with the value 0 for every
//! combination of their labels, so that the first increment is an increase that an alert can see.

use std::fmt;
use std::iter;

use prometheus_client::encoding::text;
use prometheus_client::metrics::{counter, family::Family, gauge, histogram};
use prometheus_client::registry::Registry;

pub use prometheus_client::registry::Unit;

pub use self::labels::{Label, LabelSet};

mod labels;

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of a program. Declare them at the start; then share it to be scraped.
pub struct Metrics {
    prefix: &'static str,
    registry: Registry,
    docs: Vec<MetricDoc>,
    before_encode: Vec<Box<dyn Fn() + Send + Sync>>,
}

/// What a metric is, as the reference page shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricDoc {
    /// The name as Prometheus stores it, with prefix, unit and `_total`.
    pub name: String,
    /// What is counted or measured, without a full stop.
    pub help: &'static str,
    /// Counter, gauge or histogram.
    pub kind: MetricKind,
    /// The unit, as it is in the name.
    pub unit: Option<String>,
    /// The labels, in order.
    pub labels: Vec<LabelDoc>,
}

/// What a label is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelDoc {
    /// The label's name.
    pub key: &'static str,
    /// Every value it can have.
    pub values: Vec<&'static str>,
}

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Distribution of what was observed.
    Histogram,
}

impl MetricKind {
    /// The kind's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl fmt::Display for MetricKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that only grows. Clones count together.
#[derive(Clone, Debug)]
pub struct Counter<L: LabelSet>(Family<L::Pairs, counter::Counter>);

/// Something that goes up and down. Clones share the value.
#[derive(Clone, Debug)]
pub struct Gauge<L: LabelSet>(Family<L::Pairs, gauge::Gauge<f64, std::sync::atomic::AtomicU64>>);

/// How large, or how long, something was. Clones observe together.
#[derive(Clone, Debug)]
pub struct Histogram<L: LabelSet>(Family<L::Pairs, histogram::Histogram, Buckets>);

#[derive(Clone, Debug)]
struct Buckets(&'static [f64]);

impl prometheus_client::metrics::family::MetricConstructor<histogram::Histogram> for Buckets {
    fn new_metric(&self) -> histogram::Histogram {
        histogram::Histogram::new(self.0.iter().copied())
    }
}

impl<L: LabelSet> Counter<L> {
    /// Adds one.
    pub fn inc(&self, labels: L) {
        self.add(labels, 1);
    }

    /// Adds `by`.
    pub fn add(&self, labels: L, by: u64) {
        self.0.get_or_create(&labels.pairs()).inc_by(by);
    }

    /// The count so far.
    pub fn get(&self, labels: L) -> u64 {
        self.0.get_or_create(&labels.pairs()).get()
    }
}

impl<L: LabelSet> Gauge<L> {
    /// Sets the value.
    pub fn set(&self, labels: L, value: f64) {
        self.0.get_or_create(&labels.pairs()).set(value);
    }

    /// Adds `by`, which may be negative.
    pub fn add(&self, labels: L, by: f64) {
        self.0.get_or_create(&labels.pairs()).inc_by(by);
    }

    /// The value now.
    pub fn get(&self, labels: L) -> f64 {
        self.0.get_or_create(&labels.pairs()).get()
    }
}

impl<L: LabelSet> Histogram<L> {
    /// Observes a value, in the metric's unit.
    pub fn observe(&self, labels: L, value: f64) {
        self.0.get_or_create(&labels.pairs()).observe(value);
    }
}

impl Metrics {
    /// No metrics yet; the name of each will begin with `prefix` and an underscore.
    pub fn new(prefix: &'static str) -> Self {
        Self { prefix, registry: Registry::with_prefix(prefix), docs: Vec::new(), before_encode: Vec::new() }
    }

    /// Declares a counter; its name on the wire ends in `_total`.
    ///
    /// # Panics
    ///
    /// On a name that is declared twice, that is not lower-case words joined by underscores, or that ends in what is
    /// appended: a mistake in the program, found when it starts.
    pub fn counter<L: LabelSet>(&mut self, name: &'static str, help: &'static str) -> Counter<L> {
        let family: Family<L::Pairs, counter::Counter> = Family::default();
        for labels in L::all() {
            drop(family.get_or_create(&labels.pairs()));
        }
        self.declare::<L>(name, help, MetricKind::Counter, None, family.clone());
        Counter(family)
    }

    /// Declares a gauge.
    ///
    /// # Panics
    ///
    /// As [`counter`](Self::counter).
    pub fn gauge<L: LabelSet>(&mut self, name: &'static str, help: &'static str, unit: Option<Unit>) -> Gauge<L> {
        let family: Family<L::Pairs, gauge::Gauge<f64, std::sync::atomic::AtomicU64>> = Family::default();
        self.declare::<L>(name, help, MetricKind::Gauge, unit, family.clone());
        Gauge(family)
    }

    /// Declares a histogram with these upper bounds, ascending.
    ///
    /// # Panics
    ///
    /// As [`counter`](Self::counter).
    pub fn histogram<L: LabelSet>(
        &mut self,
        name: &'static str,
        help: &'static str,
        unit: Unit,
        bounds: &'static [f64],
    ) -> Histogram<L> {
        let family = Family::new_with_constructor(Buckets(bounds));
        self.declare::<L>(name, help, MetricKind::Histogram, Some(unit), family.clone());
        Histogram(family)
    }

    /// Has `refresh` run before each scrape: for what is cheaper to ask than to keep current, as an age.
    pub fn before_encode(&mut self, refresh: impl Fn() + Send + Sync + 'static) {
        self.before_encode.push(Box::new(refresh));
    }

    /// Every metric that was declared, in that order.
    pub fn describe(&self) -> Vec<MetricDoc> {
        self.docs.clone()
    }

    /// All values now, as OpenMetrics text ([`CONTENT_TYPE`]).
    pub fn encode(&self) -> String {
        self.before_encode.iter().for_each(|refresh| refresh());
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("invariant: writing to a String cannot fail");
        text
    }

    fn declare<L: LabelSet>(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: MetricKind,
        unit: Option<Unit>,
        metric: impl prometheus_client::registry::Metric,
    ) {
        let suffix = (kind == MetricKind::Counter).then_some("total");
        let appended = unit.as_ref().map(Unit::as_str).into_iter().chain(suffix);
        let tidy = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        assert!(name.split('_').all(tidy), "metric `{name}`: lower-case words joined by underscores");
        assert!(!help.is_empty() && !help.ends_with('.'), "metric `{name}`: a help text, without a full stop");
        for word in appended.clone() {
            assert!(!name.ends_with(word), "metric `{name}`: `_{word}` is appended");
        }
        let full = iter::once(self.prefix).chain([name]).chain(appended).collect::<Vec<_>>().join("_");
        assert!(self.docs.iter().all(|doc| doc.name != full), "metric `{full}` is declared twice");

        self.docs.push(MetricDoc {
            name: full,
            help,
            kind,
            unit: unit.as_ref().map(|unit| unit.as_str().to_owned()),
            labels: L::describe(),
        });
        match unit {
            Some(unit) => self.registry.register_with_unit(name, help, unit, metric),
            None => self.registry.register(name, help, metric),
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("declared", &self.docs.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
