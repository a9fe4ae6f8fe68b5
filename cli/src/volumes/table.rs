// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Volumes for people: a line each, and below it why it is not fresh.

use anstyle::Style;
use evanesce_proto::node::{State, Volume};

use crate::columns::{Columns, age, counted, plain};
use crate::output::{ERROR, GOOD, NOTE, WARNING, say, styled};

const HEAD: [&str; 8] = ["NAMESPACE", "POD", "CLASS", "STATE", "GENERATION", "AGE", "NEXT", "VOLUME"];
/// Which of these is the state.
const STATE: usize = 3;
/// As much of an id as tells volumes apart and finds them in the log.
const ID: usize = 16;

/// Prints them.
pub(super) fn print(volumes: &[Volume]) -> anyhow::Result<()> {
    Ok(say(lines(volumes).join("\n"))?)
}

fn lines(volumes: &[Volume]) -> Vec<String> {
    let mut columns = Columns::new(HEAD, STATE);
    for volume in volumes {
        columns.row(row(volume), style(volume.state()), why(volume).into_iter().collect());
    }
    let failing = volumes.iter().filter(|volume| volume.last_error.is_some()).count();
    let failing = if failing == 0 { String::new() } else { styled(WARNING, format_args!(", {failing} not fresh")) };
    let mut lines = columns.lines();
    lines.push(counted(volumes.len(), "volume") + &failing);
    lines
}

fn row(volume: &Volume) -> [String; 8] {
    let seconds = |time: Option<i64>| time.map(age).unwrap_or_default();
    [
        volume.namespace.clone(),
        volume.pod.clone(),
        volume.class.clone(),
        super::state(volume.state()).replace('_', " "),
        volume.generation.map(|number| number.to_string()).unwrap_or_default(),
        seconds(volume.fresh_ago.map(|ago| ago.seconds)),
        seconds(volume.next_refresh_in.map(|wait| wait.seconds)),
        volume.id.chars().take(ID).collect(),
    ]
}

fn why(volume: &Volume) -> Option<String> {
    let error = volume.last_error.as_ref()?;
    let times = if volume.failures > 1 { format!(" ({} times)", volume.failures) } else { String::new() };
    let kind = styled(WARNING, format_args!("{}{times}:", plain(&error.kind)));
    Some(format!("  {kind} {}", plain(&error.message)))
}

fn style(state: State) -> Style {
    match state {
        State::Live => GOOD,
        State::Delivering | State::Leaving => NOTE,
        State::Stale => WARNING,
        State::LeftAlone | State::Unspecified => ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evanesce_proto::node::Failure;

    #[test]
    fn columns_stand_under_their_heads_whatever_the_colours() {
        let live = Volume {
            id: "csi-0123456789abcdef".to_owned(),
            state: State::Live.into(),
            namespace: "payments".to_owned(),
            pod: "web-0".to_owned(),
            class: "db".to_owned(),
            generation: Some(1),
            ..Volume::default()
        };
        let why = Failure { kind: "not_ready".to_owned(), message: "a newer build's".to_owned() };
        let state = State::LeftAlone.into();
        let other = Volume { id: "csi-1".to_owned(), state, last_error: Some(why), failures: 2, ..Volume::default() };
        let text = lines(&[live, other]).join("\n");
        let expected = "
NAMESPACE  POD    CLASS  STATE       GENERATION  AGE  NEXT  VOLUME
payments   web-0  db     live        1           -    -     csi-0123456789ab
-          -      -      left alone  -           -    -     csi-1
  not_ready (2 times): a newer build's
2 volumes, 1 not fresh";
        assert_eq!(format!("\n{}", anstream::adapter::strip_str(&text)), expected);
        assert_eq!(lines(&[]), ["0 volumes"]);
    }
}
