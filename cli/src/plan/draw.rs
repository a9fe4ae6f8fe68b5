// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A plan, for people and for programs.

use serde_json::{Value, json};

use super::Planned;
use super::course::{Asked, Kind};
use crate::args::Plan;
use crate::output::{FAINT, GOOD, NOTE, WARNING, say, say_json, styled};

/// How many places a line of time has.
const PLACES: usize = 60;

/// What a class's pods ask in an hour.
struct Rate {
    refreshes: f64,
    logins: f64,
    versions: f64,
    reads: f64,
}

fn rate(planned: &Planned, pods: u32) -> Rate {
    let pods = f64::from(pods);
    let of = |what: &dyn Fn(&Asked) -> u32| pods * planned.course.per_hour(what);
    let refreshes = of(&|_| 1);
    Rate {
        refreshes,
        logins: of(&|_| planned.logins),
        versions: of(&|asked| asked.versions),
        reads: of(&|asked| asked.reads),
    }
}

impl Rate {
    fn all(&self) -> f64 {
        self.logins + self.versions + self.reads
    }
}

/// One paragraph a class.
pub(super) fn text(planned: &[Planned], args: &Plan) -> std::io::Result<()> {
    for class in planned {
        let refresh = class.spec.refresh;
        say(format_args!(
            "SecretVolume {}: every {:?}, spread by {} %",
            class.name, refresh.every, refresh.jitter_percent
        ))?;
        for (secret, kind) in &class.secrets {
            say(format_args!("  {} {}  {}", secret.backend, secret.path, styled(FAINT, how(*kind, args.ttl))))?;
        }
        let line: String = (0..PLACES).map(|place| mark(class, place)).collect();
        say(format_args!("  0 {line} {} h", args.hours))?;
        say(styled(
            FAINT,
            "    v asks for versions, R reads everything; the middle of the spread, where nothing changes",
        ))?;
        let (logins, reads) = (class.logins, class.secrets.len());
        say(format_args!("  a start: {}, {}", count(logins.into(), "login"), count(reads as f64, "read")))?;
        say(styled(FAINT, "    for each node and service account whose pods start together; else for each pod"))?;
        let rate = rate(class, args.pods);
        let all = rate.all();
        let Rate { refreshes, logins, versions, reads } = rate;
        let parts = [count(logins, "login"), count(versions, "version check"), count(reads, "read")].join(", ");
        say(format_args!("  {} per hour: {}, {}", count(args.pods.into(), "pod"), count(refreshes, "refresh"), parts))?;
        say(format_args!("    {}", styled(GOOD, format_args!("{} per hour", count(all, "request")))))?;
        say(styled(
            FAINT,
            "    whether they share a service account or not: refreshes are spread, and each asks for itself",
        ))?;
        let has = |wanted: Kind| class.secrets.iter().any(|(_, kind)| *kind == wanted);
        if has(Kind::Leased) && [Kind::Version, Kind::Rotated, Kind::Unversioned].into_iter().any(has) {
            let note = "a change of another secret reads all of them, which makes anew what ends: give it a SecretVolume of its own";
            say(format_args!("  {} {note}", styled(WARNING, "note:")))?;
        }
    }
    Ok(())
}

/// What happens in one part of the time that is drawn.
fn mark(class: &Planned, place: usize) -> String {
    let length = class.course.length / PLACES as u32;
    let (from, to) = (length * place as u32, length * (place as u32 + 1));
    let mut here = class.course.asked.iter().filter(|asked| asked.at > from && asked.at <= to).peekable();
    if here.peek().is_none() {
        styled(FAINT, "·")
    } else if here.any(|asked| asked.reads > 0) {
        styled(GOOD, "R")
    } else {
        styled(NOTE, "v")
    }
}

fn how(kind: Kind, ttl: u32) -> String {
    match kind {
        Kind::Version => "its version first, and read if that is another".to_owned(),
        Kind::Leased => format!("taken to end after {ttl} s: made anew after two thirds of that"),
        Kind::Unversioned => "read at every period: it has no version".to_owned(),
        Kind::Rotated => format!("taken to change after {ttl} s: read after that, and at every period"),
    }
}

/// A number with its word, and commas between thousands.
fn count(number: f64, word: &str) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    let many = match (digits.as_str(), word.ends_with('h')) {
        ("1", _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{text} {word}{many}")
}

/// One JSON object.
pub(super) fn json(planned: &[Planned], args: &Plan) -> anyhow::Result<()> {
    let volumes: Vec<_> = planned.iter().map(|class| object(class, args)).collect();
    say_json(&json!({
        "ok": true, "pods": args.pods, "hours": args.hours, "ttl_seconds": args.ttl, "volumes": volumes,
    }))
}

fn object(class: &Planned, args: &Plan) -> Value {
    let kind = |kind: &Kind| match kind {
        Kind::Version => "version",
        Kind::Leased => "leased",
        Kind::Rotated => "rotated",
        Kind::Unversioned => "unversioned",
    };
    let secret = |(secret, is): &(evanesce_engine::secret_ref::SecretRef, Kind)| json!({"backend": secret.backend.to_string(), "secret": secret.path.to_string(), "kind": kind(is)});
    let asked =
        |asked: &Asked| json!({"at_seconds": asked.at.as_secs_f64(), "versions": asked.versions, "reads": asked.reads});
    let rate = rate(class, args.pods);
    json!({
        "class": class.name,
        "every_seconds": class.spec.refresh.every.as_secs_f64(),
        "jitter_percent": class.spec.refresh.jitter_percent,
        "secrets": class.secrets.iter().map(secret).collect::<Vec<_>>(),
        "refreshes": class.course.asked.iter().map(asked).collect::<Vec<_>>(),
        "refreshes_per_hour": rate.refreshes,
        "start": {"logins": class.logins, "reads": class.secrets.len()},
        "requests_per_hour": {
            "logins": rate.logins, "versions": rate.versions, "reads": rate.reads, "all": rate.all(),
        },
    })
}
