// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Measures the built plugin: see `docs/benchmarks.md`. Started by `integration/bench/run`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints what it found")]

mod bare;
mod benches;
mod limit;
mod page;
mod processor;
mod report;
mod rows;
mod samples;
mod site;
mod svg;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use evanesce_integration::binaries;

use crate::benches::{Effort, Found};
use crate::limit::Work;
use crate::page::Measured;
use crate::report::{Figure, Place};
use crate::rows::ROWS;
use crate::site::Site;
use crate::svg::Panel;

/// Measures the node plugin against its targets, on this machine.
#[derive(Parser)]
#[command(name = "integration/bench/run")]
struct Args {
    /// Benches, or rows of theirs; all if there is none.
    names: Vec<String>,
    /// Says which rows there are.
    #[arg(long)]
    list: bool,
    /// How to print what was found.
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    /// A tenth of the rounds: to see that it works.
    #[arg(long)]
    quick: bool,
    /// Writes the figures into docs/benchmarks.md, with their picture beside it; what is not measured now stays as it is.
    #[arg(long, conflicts_with = "quick")]
    docs: bool,
    /// Is the server to compare with, at this socket.
    #[arg(long, hide = true, num_args = 2, value_names = ["WORK", "SOCKET"])]
    serve: Option<Vec<String>>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// One line for each row.
    Json,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some([work, socket]) = args.serve.as_deref() {
        return limit::serve(Work::from_str(work, false).map_err(anyhow::Error::msg)?, Path::new(socket));
    }
    let benches = chosen(&args.names)?;
    if args.list {
        for row in ROWS.iter().filter(|row| benches.contains(&row.bench)) {
            println!("{:11} {:20} {}", row.bench, row.name, row.what);
        }
        return Ok(());
    }
    // One thread: it measures others, and has nobody to wake on another processor.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(&args, &benches))
}

/// The benches that bring what is named.
fn chosen(names: &[String]) -> Result<Vec<&'static str>> {
    for name in names {
        let known = ROWS.iter().any(|row| row.name == name || row.bench == name);
        ensure!(known, "there is no bench and no row {name:?}: --list says which there are");
    }
    let wanted = |bench, row| names.is_empty() || names.iter().any(|name| name == bench || name == row);
    let mut benches: Vec<_> = ROWS.iter().filter(|row| wanted(row.bench, row.name)).map(|row| row.bench).collect();
    benches.dedup();
    Ok(benches)
}

async fn measure(args: &Args, benches: &[&'static str]) -> Result<()> {
    let site = Site::start().await?;
    let place = Place::here()?;
    let rounds = if args.quick { ", a tenth of the rounds" } else { "" };
    let caption = format!("{}, {}{rounds}", place.day, place.machine);
    let pictures = binaries::target_directory()?.join("bench");
    fs::create_dir_all(&pictures)?;
    let mut all = Vec::new();
    for bench in benches {
        eprintln!("bench: {bench}");
        let found =
            benches::run(bench, &site, Effort { quick: args.quick }).await.with_context(|| (*bench).to_owned())?;
        let figures = figures_of(bench, &found);
        match args.output {
            Output::Table => println!("{}\n{}", report::table(&figures), report::distributions(&found.samples)),
            Output::Json => figures.iter().for_each(|figure| println!("{}", report::line(figure))),
        }
        if !found.samples.is_empty() {
            let picture = svg::draw(&Panel { title: bench, samples: &found.samples });
            fs::write(pictures.join(format!("{bench}.svg")), svg::join(&[picture], &caption))?;
        }
        all.push(Measured { bench, figures, samples: found.samples });
    }
    eprintln!("bench: pictures are in {}", pictures.display());
    if args.docs {
        let docs = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"));
        let write = |file: &str, renew: &dyn Fn(&str) -> Result<String>| -> Result<()> {
            let path = docs.join(file);
            let old = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(fs::write(&path, renew(&old)?)?)
        };
        write("benchmarks.svg", &|old| Ok(page::picture(old, &all, &place)))?;
        write("benchmarks.md", &|old| page::text(old, &all, &place))?;
    }
    Ok(())
}

fn figures_of(bench: &str, found: &Found) -> Vec<Figure> {
    let value = |name| found.values.iter().find(|(found, _)| *found == name).map(|(_, value)| *value);
    ROWS.iter().filter(|row| row.bench == bench).map(|row| Figure { row, value: value(row.name) }).collect()
}
