// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Whether what the file names is on this machine. A program that is not in the image now never will be; a pid file may
//! come with the application, so nothing is said of those.

use std::ffi::OsStr;
use std::path::Path;

use rustix::fs::{Access, access};

use super::{Action, Config};

/// What can never work here, each with field and cure.
pub fn missing(config: &Config, search: &OsStr) -> Vec<String> {
    let mut found = Vec::new();
    for (volume, settings) in config.volumes.iter().enumerate() {
        for (hook, settings) in settings.hooks.iter().enumerate() {
            if let Action::Command(line) = &settings.action
                && let Err(wrong) = program(&line.program, search)
            {
                found.push(format!("volumes[{volume}].hooks[{hook}].command.run: {wrong}"));
            }
        }
    }
    found
}

/// That `program` is there and may be run.
fn program(program: &str, search: &OsStr) -> Result<(), String> {
    let runs = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    if program.starts_with('/') {
        let path = Path::new(program);
        return match (path.exists(), runs(path)) {
            (_, true) => Ok(()),
            (true, false) => Err(format!("{program} is no program that may be run here: see its mode and owner")),
            (false, _) => Err(format!("{program} is not in this image: put it there, or mount it")),
        };
    }
    if std::env::split_paths(search).any(|folder| runs(&folder.join(program))) {
        return Ok(());
    }
    Err(format!("no program {program:?} in PATH ({}): correct the name, or write its whole path", search.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_told_from_one_that_may_not_be_run() {
        let path = OsStr::new("/usr/bin:/bin");
        assert_eq!(program("sh", path), Ok(()));
        assert_eq!(program("/bin/sh", path), Ok(()));
        for (wrong, says) in [
            ("ngnix-of-nobody", "no program \"ngnix-of-nobody\" in PATH (/usr/bin:/bin)"),
            ("/opt/nobody/reload", "/opt/nobody/reload is not in this image"),
            ("/etc/passwd", "/etc/passwd is no program that may be run here"),
            ("/tmp", "/tmp is no program"),
        ] {
            let heard = program(wrong, path).expect_err(wrong);
            assert!(heard.contains(says), "{heard}");
        }
    }
}
