// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Where the built programs are, and building them when they are not.
//!
//! Cargo tells a test about the programs of its own package only. Ours lie in the same build
//! directory as the test itself.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::SystemTime,
};

use anyhow::{Context, Result, bail};

/// What the programs are made from, below the workspace.
const SOURCES: [&str; 8] =
    ["Cargo.toml", "Cargo.lock", "proto", "engine", "runtime", "csi-driver", "cli", "integration/src/bin"];

/// The node plugin: `EVANESCE_CSI_BIN`, or the one in the build directory.
///
/// # Errors
/// When it cannot be built.
pub fn evanesce_csi() -> Result<PathBuf> {
    locate("EVANESCE_CSI_BIN", "evanesce-csi", &BUILT, &["--bins"])
}

/// The command-line tool: `EVANESCE_BIN`, or the one in the build directory.
///
/// # Errors
/// When it cannot be built.
pub fn evanesce() -> Result<PathBuf> {
    locate("EVANESCE_BIN", "evanesce", &BUILT, &["--bins"])
}

/// The program that runs another on a kernel without some system calls; `src/bin/without.rs`.
///
/// # Errors
/// When it cannot be built.
pub fn without() -> Result<PathBuf> {
    locate("EVANESCE_WITHOUT_BIN", "without", &BUILT, &["--bins"])
}

/// The node plugin with its crash points: `EVANESCE_CRASH_POINTS_BIN`, or the one in the build directory. It has another
/// name than the real one and never takes its place.
///
/// # Errors
/// When it cannot be built.
pub fn evanesce_csi_crash_points() -> Result<PathBuf> {
    static BUILT: Build = Build::new();
    let arguments = ["--bin", "evanesce-csi-crash-points", "--features", "evanesce-csi-driver/crash-points"];
    locate("EVANESCE_CRASH_POINTS_BIN", "evanesce-csi-crash-points", &BUILT, &arguments)
}

/// Cargo's build directory, without the profile: `target`.
///
/// # Errors
/// When the test does not run from one.
pub fn target_directory() -> Result<PathBuf> {
    let profile = profile_directory()?;
    Ok(profile.parent().context("the build directory has no parent")?.to_owned())
}

/// The directory of the profile this test was built with, as `target/debug`.
fn profile_directory() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let deps = test.parent().context("the test has no directory")?;
    let profile = if deps.ends_with("deps") { deps.parent() } else { Some(deps) };
    Ok(profile.context("the test is not in a build directory")?.to_owned())
}

/// One build per test process is enough.
type Build = OnceLock<std::result::Result<(), String>>;

/// It brings both programs.
static BUILT: Build = Build::new();

fn locate(variable: &str, name: &str, built: &Build, what: &[&str]) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let program = profile_directory()?.join(name);
    if !is_fresh(&program) {
        built
            .get_or_init(|| build(what).map_err(|error| format!("{error:#}")))
            .as_ref()
            .map_err(|error| anyhow::anyhow!("{error}"))?;
    }
    Ok(program)
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in a workspace")
}

/// Builds with the features of the whole workspace: the same that `cargo test --workspace`
/// has built, so that nothing is compiled twice.
fn build(what: &[&str]) -> Result<()> {
    let profile = profile_directory()?;
    let profile = profile.file_name().and_then(|name| name.to_str()).context("odd profile")?;
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--workspace"])
        .args(what)
        .arg("--profile")
        .arg(if profile == "debug" { "dev" } else { profile })
        .arg("--target-dir")
        .arg(target_directory()?)
        .current_dir(workspace())
        .output()
        .context("cargo is needed to build the programs under test")?;
    if !output.status.success() {
        bail!("cargo cannot build:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Whether the program exists and no source is newer. Cargo knows better, and is asked when in
/// doubt; this only spares the question.
fn is_fresh(program: &Path) -> bool {
    let Ok(built) = fs::metadata(program).and_then(|metadata| metadata.modified()) else {
        return false;
    };
    SOURCES.iter().all(|source| newest(&workspace().join(source)) <= built)
}

fn newest(path: &Path) -> SystemTime {
    let own = fs::metadata(path).and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let Ok(entries) = fs::read_dir(path) else { return own };
    // A directory's own time tells of removed files.
    entries.flatten().map(|entry| newest(&entry.path())).fold(own, SystemTime::max)
}
