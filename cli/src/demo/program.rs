// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Servers that the demo starts and does not bring: where they are found.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, iter};

use super::End;

/// What to look for.
pub(crate) struct Wanted {
    /// The programs, which lie in one folder.
    pub(crate) programs: &'static [&'static str],
    /// The variable that names that folder, or the program itself where it is one.
    pub(crate) variable: &'static str,
    /// Where systems put them without a place on the path, the best first.
    pub(crate) folders: fn() -> Vec<PathBuf>,
    /// A Python package that carries them, and where in it.
    pub(crate) package: (&'static str, &'static str),
    /// What is to be done where none is found.
    pub(crate) cure: &'static str,
}

impl Wanted {
    /// The first of them: the variable's, or the one in a folder that holds all of them, which is on the path, a system's
    /// or inside the Python package.
    ///
    /// # Errors
    /// [`End::NotHere`], with the cure.
    pub(crate) fn find(&self) -> anyhow::Result<PathBuf> {
        if let Some(given) = std::env::var_os(self.variable).map(PathBuf::from) {
            // The demo's own folder hides another one: make sure that it is not this one that it hides.
            return self.given(&given).ok_or_else(|| {
                self.missing(&format!("{} is {}, and it is not there", self.variable, given.display()))
            });
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folder = std::env::split_paths(&path)
            .chain((self.folders)())
            .chain(iter::once_with(|| self.inside_the_package()).flatten())
            .find(|folder| self.is_in(folder));
        Ok(folder.ok_or_else(|| self.missing(self.cure))?.join(self.programs[0]))
    }

    fn given(&self, given: &Path) -> Option<PathBuf> {
        if self.is_in(given) {
            return Some(given.join(self.programs[0]));
        }
        (self.programs.len() == 1 && given.is_file()).then(|| given.to_owned())
    }

    fn is_in(&self, folder: &Path) -> bool {
        self.programs.iter().all(|program| fs::metadata(folder.join(program)).is_ok_and(|found| found.is_file()))
    }

    fn inside_the_package(&self) -> Option<PathBuf> {
        let (package, inside) = self.package;
        let script = format!("import {package}, pathlib; print(pathlib.Path({package}.__file__).parent / '{inside}')");
        let python = Command::new("python3").args(["-c", &script]).stderr(Stdio::null()).output().ok()?;
        let folder = PathBuf::from(String::from_utf8_lossy(&python.stdout).trim());
        python.status.success().then_some(folder)
    }

    fn missing(&self, why: &str) -> anyhow::Error {
        anyhow::Error::msg(End::NotHere(format!("the demo needs {} here: {why}", self.programs.join(", "))))
    }
}
