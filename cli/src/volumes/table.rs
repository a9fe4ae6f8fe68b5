// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Volumes for people: a line each, and below it why it is not fresh.

use anstyle::Style;
use evanesce_proto::node::{State, Volume};

use crate::output::{ERROR, FAINT, GOOD, NOTE, WARNING, say, styled};

const HEAD: [&str; 8] = ["NAMESPACE", "POD", "CLASS", "STATE", "GENERATION", "AGE", "NEXT", "VOLUME"];
/// Which of these is the state.
const STATE: usize = 3;
/// As much of an id as tells volumes apart and finds them in the log.
const ID: usize = 16;

/// Prints them.
pub(crate) fn print(volumes: &[Volume]) -> anyhow::Result<()> {
    Ok(say(lines(volumes).join("\n"))?)
}

fn lines(volumes: &[Volume]) -> Vec<String> {
    let rows: Vec<_> = volumes.iter().map(row).collect();
    let mut widths = HEAD.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut lines = Vec::new();
    if !rows.is_empty() {
        lines.push(styled(FAINT, line(&HEAD.map(str::to_owned), widths, Style::new())));
    }
    for (volume, row) in volumes.iter().zip(&rows) {
        lines.push(line(row, widths, style(volume.state())));
        if let Some(error) = &volume.last_error {
            let times = if volume.failures > 1 { format!(" ({} times)", volume.failures) } else { String::new() };
            let kind = styled(WARNING, format_args!("{}{times}:", plain(&error.kind)));
            lines.push(format!("  {kind} {}", plain(&error.message)));
        }
    }
    let count = if rows.len() == 1 { "1 volume".to_owned() } else { format!("{} volumes", rows.len()) };
    let failing = volumes.iter().filter(|volume| volume.last_error.is_some()).count();
    let failing = if failing == 0 { String::new() } else { styled(WARNING, format_args!(", {failing} not fresh")) };
    lines.push(count + &failing);
    lines
}

fn row(volume: &Volume) -> [String; 8] {
    let seconds = |time: Option<i64>| time.map(age).unwrap_or_default();
    let cells = [
        volume.namespace.clone(),
        volume.pod.clone(),
        volume.class.clone(),
        super::state(volume.state()).replace('_', " "),
        volume.generation.map(|number| number.to_string()).unwrap_or_default(),
        seconds(volume.fresh_ago.map(|ago| ago.seconds)),
        seconds(volume.next_refresh_in.map(|wait| wait.seconds)),
        volume.id.chars().take(ID).collect(),
    ];
    cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { plain(&cell) })
}

/// A row in columns, the state in its style.
fn line(row: &[String; 8], widths: [usize; 8], style: Style) -> String {
    let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
        // A colour has no width of its own, so the room after it is made by hand.
        let room = " ".repeat(width - cell.chars().count());
        let style = if column == STATE { style } else { Style::new() };
        format!("{}{room}", styled(style, cell))
    });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

fn style(state: State) -> Style {
    match state {
        State::Live => GOOD,
        State::Delivering | State::Leaving => NOTE,
        State::Stale => WARNING,
        State::LeftAlone | State::Unspecified => ERROR,
    }
}

/// In one unit, which is fine enough to see.
fn age(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Text that moves no cursor and rings no bell: what is listed comes from a process that may be in wrong hands.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use evanesce_proto::node::Failure;

    #[test]
    fn what_a_volume_is_called_cannot_write_to_the_terminal() {
        let volume = Volume { pod: "web\u{1b}[2J\r\n".to_owned(), ..Volume::default() };
        assert!(!row(&volume).concat().contains(char::is_control));
    }

    #[test]
    fn a_time_is_said_in_one_unit() {
        assert_eq!([0, 119, 120, 7_199, 7_200, 172_800].map(age), ["0s", "119s", "2m", "119m", "2h", "2d"]);
    }

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
