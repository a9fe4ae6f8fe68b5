// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Distributions as a picture: for each duration, the part of all that took no longer. One panel per bench.

use std::fmt::Write as _;

use crate::samples::Samples;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 40.0;
const LINE: f64 = 16.0;
/// Told apart by those who see no red or no green, too (after Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
/// Points of a curve.
const STEPS: usize = 200;

/// One panel.
pub(crate) struct Panel<'a> {
    /// What stands above it.
    pub title: &'a str,
    /// A curve each.
    pub samples: &'a [Samples],
}

/// A panel as it stands in a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Drawn(String);

impl Drawn {
    /// The first word above it.
    pub(crate) fn title(&self) -> &str {
        let text = self.0.split_once(TITLE).map_or("", |(_, rest)| rest);
        text.split(['<', ' ']).next().unwrap_or_default()
    }

    fn height(&self) -> f64 {
        HEIGHT + LINE * self.0.matches("<polyline").count() as f64 + LINE
    }
}

/// What a panel's title follows, and nothing else.
const TITLE: &str = r#" font-weight="bold">"#;

/// The panels of a picture that [`join`] made.
pub(crate) fn panels(picture: &str) -> Vec<Drawn> {
    let groups = picture.split("<g transform=").skip(1);
    groups.filter_map(|group| Some(Drawn(group.split_once('>')?.1.split_once("</g>")?.0.to_owned()))).collect()
}

/// One panel by itself.
pub(crate) fn draw(panel: &Panel<'_>) -> Drawn {
    let mut body = String::new();
    draw_panel(&mut body, panel);
    Drawn(body)
}

/// Panels below each other, and a line of text below them all.
pub(crate) fn join(panels: &[Drawn], caption: &str) -> String {
    let mut body = String::new();
    let mut y = 0.0;
    for panel in panels {
        let _ = write!(body, r#"<g transform="translate(0 {y})">"#);
        body.push_str(&panel.0);
        body.push_str("</g>\n");
        y += panel.height();
    }
    let total = y + 2.0 * LINE;
    let _ = writeln!(body, r#"<text x="{LEFT}" y="{}">{}</text>"#, y + LINE, escape(caption));
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" width="{WIDTH}" height="{total}" font-family="sans-serif" font-size="11" fill="#222">
<rect width="100%" height="100%" fill="#fff"/>
{body}</svg>
"##
    )
}

fn draw_panel(out: &mut String, panel: &Panel<'_>) {
    let _ = writeln!(out, r#"<text x="{LEFT}" y="20" font-size="14"{TITLE}{}</text>"#, escape(panel.title));
    let axis = Axis::around(panel.samples);
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    for (value, label) in axis.ticks() {
        let x = axis.x(value);
        let _ = writeln!(
            out,
            r##"<path d="M{x:.1} {TOP}V{bottom}" stroke="#ddd"/><text x="{x:.1}" y="{}" text-anchor="middle">{label}</text>"##,
            bottom + LINE
        );
    }
    for percent in [0, 25, 50, 75, 100] {
        let y = part_y(f64::from(percent) / 100.0);
        let _ = writeln!(
            out,
            r##"<path d="M{LEFT} {y:.1}H{right}" stroke="#ddd"/><text x="{}" y="{:.1}" text-anchor="end">{percent} %</text>"##,
            LEFT - 6.0,
            y + 4.0
        );
    }
    for (number, samples) in panel.samples.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let points: String = (0..=STEPS)
            .map(|step| {
                let part = step as f64 / STEPS as f64;
                format!("{:.1},{:.1} ", axis.x(samples.quantile(part)), part_y(part))
            })
            .collect();
        let y = HEIGHT + LINE * number as f64;
        let _ = writeln!(
            out,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="1.8"/><path d="M{LEFT} {:.1}h18" stroke="{colour}" stroke-width="3"/><text x="{}" y="{y:.1}">{}: p50 {}, p99 {} (n = {})</text>"#,
            points.trim_end(),
            y - 4.0,
            LEFT + 26.0,
            escape(&samples.name),
            time(samples.median()),
            time(samples.quantile(0.99)),
            samples.len(),
        );
    }
}

fn part_y(part: f64) -> f64 {
    HEIGHT - BOTTOM - part * (HEIGHT - BOTTOM - TOP)
}

/// Logarithmic: what is twice as long is as far away everywhere.
struct Axis {
    from: f64,
    to: f64,
}

impl Axis {
    /// From the shortest to nearly the longest: the last thousandth would take half of the picture.
    fn around(samples: &[Samples]) -> Self {
        let from = samples.iter().map(|each| each.quantile(0.0)).fold(f64::INFINITY, f64::min);
        let to = samples.iter().map(|each| each.quantile(0.999)).fold(0.0, f64::max);
        Self { from: from * 0.9, to: to * 1.1 }
    }

    fn x(&self, value: f64) -> f64 {
        let part = (value.clamp(self.from, self.to) / self.from).ln() / (self.to / self.from).ln();
        LEFT + part * (WIDTH - LEFT - RIGHT)
    }

    /// 1, 2 and 5 of each decade.
    fn ticks(&self) -> Vec<(f64, String)> {
        (-4..6)
            .flat_map(|decade| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(decade)))
            .filter(|value| (self.from..=self.to).contains(value))
            .map(|value| (value, time(value)))
            .collect()
    }
}

/// Milliseconds as people say them.
pub(crate) fn time(milliseconds: f64) -> String {
    let (value, unit) = match milliseconds {
        short if short < 1.0 => (short * 1e3, "µs"),
        middle if middle < 1e3 => (middle, "ms"),
        long => (long / 1e3, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {unit}")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
