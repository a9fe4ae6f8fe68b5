// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Runs a program, without a shell, and ends it and what it started if it takes too long.

use std::io;
use std::os::fd::AsFd;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use evanesce_runtime::metrics::Label;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use super::Failure;
use crate::config::CommandLine;
use crate::teller::News;

/// How long a program that was asked to end has for it.
const KILL_AFTER: Duration = Duration::from_secs(2);

/// Runs it and waits for it.
pub async fn run(line: &CommandLine, news: &News, timeout: Duration) -> Result<(), Failure> {
    let mut running = Running::new(start(line, news)?);
    if let Ok(ended) = tokio::time::timeout(timeout, running.child.wait()).await {
        running.leave();
        return judge(line, ended);
    }
    running.signal(Signal::TERM);
    // The drop ends what is left.
    let _ = tokio::time::timeout(KILL_AFTER, running.child.wait()).await;
    Err(Failure::TimedOut(timeout))
}

fn start(line: &CommandLine, news: &News) -> Result<Child, Failure> {
    // Standard output may be read by somebody who expects ours, so both go to standard error.
    let output = || -> io::Result<Stdio> {
        if line.quiet { Ok(Stdio::null()) } else { Ok(io::stderr().as_fd().try_clone_to_owned()?.into()) }
    };
    let spawn = || {
        Command::new(&line.program)
            .args(&line.arguments)
            .env("EVANESCE_VOLUME", &news.volume)
            .env("EVANESCE_PATH", &*news.path)
            .env("EVANESCE_ON", news.on.as_str())
            .env("EVANESCE_GENERATION", news.generation.to_string())
            .stdin(Stdio::null())
            .stdout(output()?)
            .stderr(output()?)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    };
    spawn().map_err(|error| {
        let cure = match error.kind() {
            io::ErrorKind::NotFound => ": it has to be in the sidecar's image, in PATH or by its whole path",
            io::ErrorKind::PermissionDenied => ": it has to be a program that this uid may run",
            _ => "",
        };
        Failure::failed(format!("{} cannot be started: {error}{cure}", line.program))
    })
}

fn judge(line: &CommandLine, ended: io::Result<ExitStatus>) -> Result<(), Failure> {
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) if line.quiet => {
            Err(Failure::failed(format!("{} ended with {status}: `output: log` shows what it says", line.program)))
        }
        Ok(status) => Err(Failure::failed(format!("{} ended with {status}; what it said is above", line.program))),
        Err(error) => Err(Failure::failed(format!("{} cannot be waited for: {error}", line.program))),
    }
}

/// A program with its group, which does not outlive this unless it is left.
struct Running {
    child: Child,
    group: Option<Pid>,
}

impl Running {
    fn new(child: Child) -> Self {
        let group = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        Self { child, group }
    }

    /// It has ended, and what it has left running is meant to be.
    fn leave(&mut self) {
        self.group = None;
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // All of it may have ended by itself.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs;

    use rustix::process::test_kill_process;

    use super::*;
    use crate::config::On;
    use crate::sight::Generation;

    const LIMIT: Duration = Duration::from_secs(20);

    fn news() -> News {
        News {
            volume: "db".to_owned(),
            path: std::path::Path::new("/secrets").into(),
            on: On::Changed,
            generation: Generation::parse("..g7").unwrap(),
        }
    }

    fn shell(script: &str) -> CommandLine {
        CommandLine {
            program: "sh".to_owned(),
            arguments: vec!["-c".to_owned(), script.to_owned(), "sh".to_owned(), "$HOME; 'a b'".to_owned()],
            quiet: true,
        }
    }

    #[tokio::test]
    async fn a_program_hears_what_changed_and_gets_its_arguments_to_the_letter() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let names = "\"$EVANESCE_VOLUME\" \"$EVANESCE_PATH\" \"$EVANESCE_ON\" \"$EVANESCE_GENERATION\" \"$1\"";
        let script = format!("printf '%s|' {names} >{}", out.display());
        run(&shell(&script), &news(), LIMIT).await.unwrap();
        assert_eq!(fs::read_to_string(out).unwrap(), "db|/secrets|changed|..g7|$HOME; 'a b'|");
    }

    #[tokio::test]
    async fn an_exit_code_other_than_0_is_a_failure() {
        let failure = run(&shell("exit 3"), &news(), LIMIT).await.unwrap_err();
        assert_eq!(failure.to_string(), "sh ended with exit status: 3: `output: log` shows what it says");
        let nobody = CommandLine { program: "/nobody/reload".to_owned(), arguments: Vec::new(), quiet: true };
        let failure = run(&nobody, &news(), LIMIT).await.unwrap_err();
        assert!(failure.to_string().contains("has to be in the sidecar's image"), "{failure}");
    }

    #[tokio::test]
    async fn what_takes_too_long_is_ended_with_everything_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("pids");
        // Neither heeds SIGTERM.
        let script = format!("trap '' TERM; sleep 600 & echo $$ $! >{}; wait", out.display());
        let failure = run(&shell(&script), &news(), Duration::from_millis(300)).await.unwrap_err();
        assert_eq!(failure, Failure::TimedOut(Duration::from_millis(300)));
        for pid in fs::read_to_string(out).unwrap().split_whitespace() {
            let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
            let gone = async {
                // One of another parent may be a zombie for a moment.
                while test_kill_process(pid).is_ok() && !zombie(pid) {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(LIMIT, gone).await.expect("it is gone");
        }
    }

    fn zombie(pid: Pid) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
    }
}
