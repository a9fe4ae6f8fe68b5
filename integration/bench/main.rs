// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Measures the built plugin: see `docs/benchmarks.md`. Started by `integration/bench/run`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints what it found")]

mod bare;
mod benches;
mod limit;
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
use crate::report::Figure;
use crate::rows::ROWS;
use crate::samples::Samples;
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
    /// Writes the figures into docs/benchmarks.md, with their picture beside it.
    #[arg(long, conflicts_with = "names")]
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
    let rounds = if args.quick { ", a tenth of the rounds" } else { "" };
    let place = report::place()? + rounds;
    let pictures = binaries::target_directory()?.join("bench");
    fs::create_dir_all(&pictures)?;
    let mut figures = Vec::new();
    let mut panels: Vec<(&str, Vec<Samples>)> = Vec::new();
    for bench in benches {
        eprintln!("bench: {bench}");
        let found =
            benches::run(bench, &site, Effort { quick: args.quick }).await.with_context(|| (*bench).to_owned())?;
        let new = figures_of(bench, &found);
        match args.output {
            Output::Table => println!("{}\n{}", report::table(&new), report::distributions(&found.samples)),
            Output::Json => new.iter().for_each(|figure| println!("{}", report::line(figure))),
        }
        figures.extend(new);
        if !found.samples.is_empty() {
            let picture = svg::draw(&[Panel { title: bench, samples: &found.samples }], &place);
            fs::write(pictures.join(format!("{bench}.svg")), picture)?;
            panels.push((bench, found.samples));
        }
    }
    eprintln!("bench: pictures are in {}", pictures.display());
    if args.docs {
        let docs = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"));
        let all: Vec<Panel<'_>> = panels.iter().map(|(title, samples)| Panel { title, samples }).collect();
        fs::write(docs.join("benchmarks.svg"), svg::draw(&all, &place))?;
        let samples: Vec<Samples> = panels.iter().flat_map(|(_, samples)| samples.iter().cloned()).collect();
        let path = docs.join("benchmarks.md");
        fs::write(&path, report::page(&fs::read_to_string(&path)?, &figures, &samples, &place)?)?;
    }
    Ok(())
}

fn figures_of(bench: &str, found: &Found) -> Vec<Figure> {
    let value = |name| found.values.iter().find(|(found, _)| *found == name).map(|(_, value)| *value);
    ROWS.iter().filter(|row| row.bench == bench).map(|row| Figure { row, value: value(row.name) }).collect()
}
