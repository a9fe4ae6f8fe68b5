// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Lease groups for people: a line each, and below it what it lent and why it is not back.

use anstyle::Style;
use evanesce_proto::node::{Lease, LeaseGroup, LeaseState};

use crate::columns::{Columns, age, counted, plain};
use crate::output::{ERROR, FAINT, GOOD, NOTE, WARNING, say, styled};

const HEAD: [&str; 8] = ["NAMESPACE", "POD", "CLASS", "BACKEND", "STATE", "ENDS", "NEXT", "GROUP"];
/// Which of these is the state.
const STATE: usize = 4;
/// As much of a digest as tells leases apart.
const DIGEST: usize = 16;

/// Prints them.
pub(super) fn print(groups: &[LeaseGroup]) -> anyhow::Result<()> {
    Ok(say(lines(groups).join("\n"))?)
}

fn lines(groups: &[LeaseGroup]) -> Vec<String> {
    let mut columns = Columns::new(HEAD, STATE);
    for group in groups {
        columns.row(row(group), style(group), below(group));
    }
    let leases = groups.iter().map(|group| group.leases.len()).sum();
    let unknown = groups.iter().filter(|group| !group.leases_known).count();
    let failing = groups.iter().filter(|group| group.last_error.is_some()).count();
    let mut summary = format!("{}, {}", counted(groups.len(), "group"), counted(leases, "lease"));
    if unknown > 0 {
        summary += &format!(" and those of {}", counted(unknown, "earlier group"));
    }
    if failing > 0 {
        summary += &styled(WARNING, format_args!(", {failing} not given back"));
    }
    let mut lines = columns.lines();
    lines.push(summary);
    lines
}

fn row(group: &LeaseGroup) -> [String; 8] {
    let seconds = |time: Option<i64>| time.map(age).unwrap_or_default();
    let cause = if group.cause.is_empty() { String::new() } else { format!(" ({})", group.cause) };
    [
        group.namespace.clone(),
        group.pod.clone(),
        group.class.clone(),
        group.backend.clone(),
        super::state(group.state()).to_owned() + &cause,
        seconds(group.ends_in.map(|left| left.seconds)),
        seconds(group.next_in.map(|wait| wait.seconds)),
        group.id.clone(),
    ]
}

fn below(group: &LeaseGroup) -> Vec<String> {
    let mut lines: Vec<_> = group.leases.iter().map(lease).collect();
    if group.shared {
        let account = plain(&group.service_account);
        lines.push(format!("  of service account {account}, shown by {}", counted(group.volumes as usize, "volume")));
    }
    if !group.leases_known {
        lines.push(styled(FAINT, "  leases of an earlier start of the plugin: only their login is known"));
    }
    if let Some(error) = &group.last_error {
        let times = if group.failures > 1 { format!(" ({} times)", group.failures) } else { String::new() };
        let kind = styled(WARNING, format_args!("{}{times}:", plain(&error.kind)));
        lines.push(format!("  {kind} {}", plain(&error.message)));
    }
    lines
}

fn lease(lease: &Lease) -> String {
    let renewable = if lease.renewable { ", renewable" } else { "" };
    let ends = lease.ends_in.map(|left| format!("  ends in {}", age(left.seconds))).unwrap_or_default();
    let digest: String = lease.id_digest.chars().take(DIGEST).collect();
    format!("  {}  {}{ends}{renewable}", plain(&lease.path), plain(&digest))
}

fn style(group: &LeaseGroup) -> Style {
    match group.state() {
        LeaseState::Shown => GOOD,
        LeaseState::Returning if group.last_error.is_some() => WARNING,
        LeaseState::Delivering | LeaseState::Replaced | LeaseState::Returning | LeaseState::Found => NOTE,
        LeaseState::Unspecified => ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evanesce_proto::node::Failure;

    fn group(id: &str, state: LeaseState) -> LeaseGroup {
        LeaseGroup {
            id: id.to_owned(),
            state: state.into(),
            namespace: "payments".to_owned(),
            pod: "web-0".to_owned(),
            class: "db".to_owned(),
            backend: "vault".to_owned(),
            leases_known: true,
            ..LeaseGroup::default()
        }
    }

    #[test]
    fn a_group_has_its_leases_and_its_failure_below_it() {
        let ends_in = std::time::Duration::from_secs(600).try_into().ok();
        let lease = Lease {
            path: "database/creds/app".to_owned(),
            id_digest: "0123456789abcdef0123".to_owned(),
            renewable: true,
            ends_in,
        };
        let shown = LeaseGroup { ends_in, leases: vec![lease], ..group("00aa", LeaseState::Shown) };
        let why = Failure { kind: "unavailable".to_owned(), message: "cannot be reached".to_owned() };
        let returning = LeaseGroup {
            cause: "unmounted".to_owned(),
            failures: 3,
            last_error: Some(why),
            ..group("11bb", LeaseState::Returning)
        };
        let account = "web".to_owned();
        let earlier = LeaseGroup {
            leases_known: false,
            shared: true,
            volumes: 2,
            service_account: account,
            ..group("22cc", LeaseState::Shown)
        };
        let text = lines(&[shown, returning, earlier]).join("\n");
        let expected = "
NAMESPACE  POD    CLASS  BACKEND  STATE                  ENDS  NEXT  GROUP
payments   web-0  db     vault    shown                  10m   -     00aa
  database/creds/app  0123456789abcdef  ends in 10m, renewable
payments   web-0  db     vault    returning (unmounted)  -     -     11bb
  unavailable (3 times): cannot be reached
payments   web-0  db     vault    shown                  -     -     22cc
  of service account web, shown by 2 volumes
  leases of an earlier start of the plugin: only their login is known
3 groups, 1 lease and those of 1 earlier group, 1 not given back";
        assert_eq!(format!("\n{}", anstream::adapter::strip_str(&text)), expected);
        assert_eq!(lines(&[]), ["0 groups, 0 leases"]);
    }
}
