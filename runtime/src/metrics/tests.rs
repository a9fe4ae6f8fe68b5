// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

crate::label! {
    /// What was done.
    enum Verb("verb") {
        Publish = "publish",
        Refresh = "refresh",
    }
}

crate::label! {
    /// How it ended.
    enum Outcome("outcome") {
        Delivered = "delivered",
        Failed = "failed",
    }
}

#[test]
fn a_counter_counts_by_label_and_reads_zero_from_the_start() {
    let mut metrics = Metrics::new("evanesce");
    let deliveries = metrics.counter::<(Verb, Outcome)>("deliveries", "Deliveries that ended");
    deliveries.inc((Verb::Publish, Outcome::Delivered));
    deliveries.clone().add((Verb::Publish, Outcome::Delivered), 2);
    assert_eq!(deliveries.get((Verb::Publish, Outcome::Delivered)), 3);
    let text = metrics.encode();
    for line in [
        "# TYPE evanesce_deliveries counter",
        r#"evanesce_deliveries_total{verb="publish",outcome="delivered"} 3"#,
        r#"evanesce_deliveries_total{verb="publish",outcome="failed"} 0"#,
        r#"evanesce_deliveries_total{verb="refresh",outcome="delivered"} 0"#,
        r#"evanesce_deliveries_total{verb="refresh",outcome="failed"} 0"#,
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_gauge_goes_up_and_down_and_a_histogram_counts_into_buckets() {
    let mut metrics = Metrics::new("evanesce");
    let volumes = metrics.gauge::<()>("volumes", "Volumes in place", None);
    let took = metrics.histogram::<(Verb,)>("delivery", "Time of a delivery", Unit::Seconds, &[0.1, 1.0]);
    volumes.set((), 3.0);
    volumes.add((), -1.0);
    assert_eq!(volumes.get(()), 2.0);
    took.observe((Verb::Publish,), 0.5);
    let text = metrics.encode();
    for line in [
        "evanesce_volumes{} 2.0",
        r#"evanesce_delivery_seconds_bucket{le="0.1",verb="publish"} 0"#,
        r#"evanesce_delivery_seconds_bucket{le="1.0",verb="publish"} 1"#,
        r#"evanesce_delivery_seconds_count{verb="publish"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn what_is_described_is_what_is_on_the_wire() {
    let mut metrics = Metrics::new("evanesce");
    metrics.counter::<(Verb, Outcome)>("deliveries", "Deliveries that ended").inc((Verb::Refresh, Outcome::Failed));
    metrics.gauge::<()>("arena", "Bytes in the arena", Some(Unit::Bytes)).set((), 1.0);
    metrics.histogram::<()>("delivery", "Time of a delivery", Unit::Seconds, &[1.0]).observe((), 1.0);
    let docs = metrics.describe();
    let names: Vec<_> = docs.iter().map(|doc| (doc.name.as_str(), doc.kind.as_str(), doc.unit.as_deref())).collect();
    assert_eq!(
        names,
        [
            ("evanesce_deliveries_total", "counter", None),
            ("evanesce_arena_bytes", "gauge", Some("bytes")),
            ("evanesce_delivery_seconds", "histogram", Some("seconds")),
        ]
    );
    assert_eq!(docs[0].labels[1], LabelDoc { key: "outcome", values: vec!["delivered", "failed"] });
    let text = metrics.encode();
    for doc in docs {
        assert!(text.lines().any(|line| line.starts_with(&doc.name)), "{} is not in\n{text}", doc.name);
        assert!(text.contains(doc.help), "{text}");
    }
}

#[test]
fn a_value_can_be_refreshed_when_it_is_asked_for() {
    let mut metrics = Metrics::new("evanesce");
    let age = metrics.gauge::<()>("age", "Age of the oldest volume", Some(Unit::Seconds));
    let now = Arc::new(AtomicU32::new(7));
    metrics.before_encode({
        let (age, now) = (age.clone(), Arc::clone(&now));
        move || age.set((), now.load(Ordering::Relaxed).into())
    });
    assert!(metrics.encode().contains("evanesce_age_seconds{} 7.0"));
    now.store(8, Ordering::Relaxed);
    assert!(metrics.encode().contains("evanesce_age_seconds{} 8.0"));
}

#[test]
#[should_panic(expected = "`evanesce_deliveries_total` is declared twice")]
fn a_metric_is_declared_once() {
    let mut metrics = Metrics::new("evanesce");
    let _one = metrics.counter::<()>("deliveries", "Deliveries that ended");
    let _two = metrics.counter::<(Verb,)>("deliveries", "Deliveries that ended");
}

#[test]
#[should_panic(expected = "`_seconds` is appended")]
fn a_unit_is_not_written_twice() {
    let _ = Metrics::new("evanesce").gauge::<()>("age_seconds", "Age", Some(Unit::Seconds));
}
