// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The reference pages are what the program says of itself: `EVANESCE_UPDATE=1` writes them anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use clap::CommandFactory;
use evanesce_csi::args::Args;
use evanesce_csi::engine_half::metrics::{Memory, Metrics, Scraped, leases};
use evanesce_csi::engine_half::status;
use evanesce_csi::kubernetes::pod_events::Reason;
use evanesce_engine::clock::SystemClock;
use evanesce_engine::error::Kind;

const WRITTEN: &str = "Written from the program by its test; change it there.";

fn check(page: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference").join(page);
    if std::env::var_os("EVANESCE_UPDATE").is_some() {
        fs::write(&path, text).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "run the test again with EVANESCE_UPDATE=1 and commit {}", path.display());
}

/// A row of a table; what stands in a cell cannot end it.
fn row(cells: &[&str]) -> String {
    cells.iter().fold("|".to_owned(), |row, cell| row + " " + &cell.replace('|', "\\|") + " |") + "\n"
}

#[test]
fn the_page_of_metrics_is_what_is_declared() {
    let (_, mut all) = Metrics::declare();
    let scraped = Scraped {
        volumes: Default::default(),
        reserved: Box::new(|| 0),
        audit_lost: Box::new(|| 0),
        audit_healthy: Box::new(|| true),
        classes: Box::new(Default::default),
        passed_over: Default::default(),
        clock: std::sync::Arc::new(SystemClock),
    };
    Metrics::look_at(&mut all, scraped);
    leases::look_at(&mut all, Default::default(), std::sync::Arc::new(SystemClock));
    Metrics::node(&mut all, 0, &[], Memory::Secret);
    let mut page = format!(
        "# Metrics\n\n{WRITTEN}\n\nServed at `/metrics` of `--http-address`. Labels have the values below and no others: \
         no name of a pod, a namespace or a secret is ever one. Counters begin at 0 for every combination of labels.\n\n"
    );
    page += &row(&["Name", "Kind", "Labels", "What it says"]);
    page += &row(&["---", "---", "---", "---"]);
    let mut values = Vec::new();
    for metric in all.describe() {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{}`", label.key)).collect();
        page += &row(&[&format!("`{}`", metric.name), metric.kind.as_str(), &labels.join(", "), metric.help]);
        for label in metric.labels {
            if !values.contains(&label) {
                values.push(label);
            }
        }
    }
    page += "\n## Labels\n\n";
    for label in values {
        let listed: Vec<_> = label.values.iter().map(|value| format!("`{value}`")).collect();
        writeln!(page, "- `{}`: {}", label.key, listed.join(", ")).unwrap();
    }
    page += "\nAn `outcome` other than `ok` and `unchanged` is a kind of error: see [errors](errors.md).\n";
    check("metrics.md", &page);
}

/// What it means, and what its reader does.
fn meaning(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Busy => ("Another operation on the volume is under way.", "Nothing: kubelet tries again."),
        Kind::Cancelled => ("The driver is restarting or draining.", "Nothing: kubelet tries again."),
        Kind::Conflict => (
            "The volume is published with another target, group, class or pod.",
            "Delete the pod; a volume cannot become another one.",
        ),
        Kind::Exhausted => (
            "A ceiling of the node, the namespace or the volume is reached.",
            "Use fewer or smaller volumes, raise `spec.size`, or ask for a higher limit; the message names which.",
        ),
        Kind::Internal => {
            ("A fault of the driver or of the kernel.", "Read the driver's log of that node; report what it says.")
        }
        Kind::Invalid => (
            "The pod's volume or the class is wrong.",
            "Correct the field that the message names; `evanesce check` finds a class's errors.",
        ),
        Kind::Malformed => (
            "A backend answered with what is no secret.",
            "See whether something else answers at the backend's address.",
        ),
        Kind::Missing => (
            "The class, the backend, the secret or the key does not exist.",
            "Create it, or correct the name in the message.",
        ),
        Kind::NotReady => ("The driver has not read all classes yet.", "Nothing: kubelet tries again."),
        Kind::Refused => (
            "Policy or the backend does not let this service account read this secret.",
            "Ask for an entry in `spec.allow` of the `SecretBackend`, or for the backend's own policy.",
        ),
        Kind::Throttled => ("A backend asks for fewer requests.", "Nothing, or raise the backend's quota."),
        Kind::TimedOut => (
            "The backends did not answer in time.",
            "Nothing; if it stays, look at the network between node and backend.",
        ),
        Kind::Unauthenticated => (
            "There is no valid token for the backend's audience, or the backend does not accept it.",
            "Compare `tokenRequests` of the `CSIDriver`, the audience of the `SecretBackend` and the backend's role.",
        ),
        Kind::Unavailable => (
            "A backend cannot be reached or cannot answer.",
            "Nothing; if it stays, look at the backend (is it sealed?).",
        ),
    }
}

#[test]
fn the_page_of_errors_has_every_kind_with_its_code() {
    let mut page = format!(
        "# Errors\n\n{WRITTEN}\n\nThe kind stands in the log (`kind`), in metrics (`outcome`) and in the audit; the code is \
         what kubelet hears, and the message is in the pod's events.\n\n\
         Kubelet tries again after every code. One that is *final* tells it that the volume is not mounted; kubelets before \
         1.36 then remove the volume's directory. A refresh that fails is never the pod's to see: its files stay, and \
         `evanesce_volumes_stale` counts the volume.\n\n"
    );
    page += &row(&["Kind", "gRPC code", "Final", "What it means", "What to do"]);
    page += &row(&["---", "---", "---", "---", "---"]);
    for kind in Kind::ALL {
        let code = status::code(kind);
        let (means, cure) = meaning(kind);
        let last = if status::is_final(code) { "yes" } else { "no" };
        let (kind, code) = (format!("`{}`", kind.as_str()), format!("`{}`", name(code)));
        page += &row(&[&kind, &code, last, means, cure]);
    }
    check("errors.md", &page);
}

#[test]
fn the_page_of_pod_events_has_every_reason() {
    let mut page = format!(
        "# Events of pods\n\n{WRITTEN}\n\nWith `--kubernetes` the plugin writes events about pods, in the words that the gRPC \
         status has: `kubectl describe pod` shows them. The same again is a count on the event that is there, at most every \
         five minutes; a pod has at most five new ones at once and one more a minute, a node fifty and one more a second. What \
         became of them is the metric `evanesce_pod_events_total`. The audit has every one, whatever the API server does.\n\n"
    );
    page += &row(&["Reason", "Type", "What it means"]);
    page += &row(&["---", "---", "---"]);
    for (reason, means) in Reason::ALL {
        page += &row(&[&format!("`{}`", reason.as_str()), reason.kind(), means]);
    }
    check("pod-events.md", &page);
}

/// `PermissionDenied` as the specification of gRPC writes it.
fn name(code: tonic::Code) -> String {
    let camel = format!("{code:?}");
    let mut name = String::new();
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[test]
fn the_page_of_flags_has_every_flag_with_its_variable_and_default() {
    let mut page = format!(
        "# Flags of `evanesce-csi`\n\n{WRITTEN}\n\nEvery flag is an environment variable too; a flag wins. For the \
         `evanesce` tool see [the command line](cli.md).\n\n"
    );
    page += &row(&["Flag", "Variable", "Default", "What it does"]);
    page += &row(&["---", "---", "---", "---"]);
    let mut command = Args::command();
    command.build();
    for flag in command.get_arguments() {
        let Some(variable) = flag.get_env() else { continue };
        let default: Vec<_> = flag.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let default = match default.as_slice() {
            [] if flag.is_required_set() => "required".to_owned(),
            [] => String::new(),
            [value] => format!("`{value}`"),
            several => panic!("{several:?}"),
        };
        let flag_name = format!("`--{}`", flag.get_long().unwrap());
        let help = flag.get_help().unwrap().to_string();
        page += &row(&[&flag_name, &format!("`{}`", variable.to_str().unwrap()), &default, &help]);
    }
    check("flags.md", &page);
}

#[test]
fn every_flag_can_be_set_by_a_variable() {
    let without: Vec<_> = Args::command()
        .get_arguments()
        .filter(|flag| flag.get_env().is_none())
        .map(|flag| flag.get_id().to_string())
        .collect();
    assert_eq!(without, ["help", "version"].map(str::to_owned)[..without.len()], "flags without a variable");
}
