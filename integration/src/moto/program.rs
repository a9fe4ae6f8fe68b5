// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Getting moto: once per build directory, from the Python packages that it is.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::wheel;

/// Moto, and of what its extra `server` would bring all that these services need.
const PACKAGES: [&str; 3] = ["moto==5.2.5", "flask==3.1.3", "flask-cors==6.0.2"];
/// Its name in the build directory: another one for other versions.
const NAME: &str = "moto-5.2.5";

/// A command that serves, with its arguments still to come; fetched if this build directory does not have it yet.
pub(super) fn moto() -> Result<Command> {
    let packages = wheel::once("moto", NAME, fetch)?;
    let mut command = Command::new("python3");
    command.args(["-c", "from moto.server import main; main()"]).env("PYTHONPATH", packages);
    // The node's own credentials, if there are any, are no business of a test.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    Ok(command)
}

fn fetch(work: &Path) -> Result<PathBuf> {
    let packages = work.join(NAME);
    let output = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-warn-conflicts"])
        .args(["--root-user-action", "ignore", "--only-binary", ":all:", "--target"])
        .arg(&packages)
        .args(PACKAGES)
        .output()
        .context("python3 is needed to fetch moto: `apt-get install python3-pip`")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("moto could not be fetched (is pip there? `apt-get install python3-pip`):\n{said}");
    }
    Ok(packages)
}
