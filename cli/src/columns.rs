// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Rows in columns, for people: a head above them, and one column of each row in a style that says how it is.

use anstyle::Style;

use crate::output::{FAINT, styled};

/// Rows that are `N` cells wide; lines may stand between them.
pub(crate) struct Columns<const N: usize> {
    head: [&'static str; N],
    /// Which of the cells has the style.
    styled: usize,
    rows: Vec<([String; N], Style, Vec<String>)>,
}

impl<const N: usize> Columns<N> {
    /// None yet.
    pub(crate) fn new(head: [&'static str; N], styled: usize) -> Self {
        Self { head, styled, rows: Vec::new() }
    }

    /// One more row; a cell without a text says so. The lines below it are as they are.
    pub(crate) fn row(&mut self, cells: [String; N], style: Style, below: Vec<String>) {
        let cells = cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { plain(&cell) });
        self.rows.push((cells, style, below));
    }

    /// All of it; nothing where there is no row.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut widths = self.head.map(str::len);
        for (row, ..) in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut lines = Vec::new();
        if !self.rows.is_empty() {
            let head = self.line(&self.head.map(str::to_owned), widths, Style::new());
            lines.push(styled(FAINT, head));
        }
        for (row, style, below) in &self.rows {
            lines.push(self.line(row, widths, *style));
            lines.extend(below.iter().cloned());
        }
        lines
    }

    fn line(&self, row: &[String; N], widths: [usize; N], style: Style) -> String {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            // A colour has no width of its own, so the room after it is made by hand.
            let room = " ".repeat(width - cell.chars().count());
            let style = if column == self.styled { style } else { Style::new() };
            format!("{}{room}", styled(style, cell))
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }
}

/// A time in one unit, which is fine enough to see.
pub(crate) fn age(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// So many of them.
pub(crate) fn counted(number: usize, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// Text that moves no cursor and rings no bell: what is listed comes from a process that may be in wrong hands.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_something_is_called_cannot_write_to_the_terminal() {
        let mut columns = Columns::new(["POD"], 0);
        columns.row(["web\u{1b}[2J\r\n".to_owned()], Style::new(), Vec::new());
        assert!(
            !columns
                .lines()
                .concat()
                .replace(&format!("{FAINT}"), "")
                .replace(&format!("{FAINT:#}"), "")
                .contains(char::is_control)
        );
    }

    #[test]
    fn a_time_is_said_in_one_unit() {
        assert_eq!([0, 119, 120, 7_199, 7_200, 172_800].map(age), ["0s", "119s", "2m", "119m", "2h", "2d"]);
    }
}
