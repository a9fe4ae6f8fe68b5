// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

#![expect(unsafe_code, reason = "a child asks to die with us between fork and exec")]

//! A child process that does not outlive the test: killed by its pid on drop, and by the kernel
//! when the test process itself is killed.

use std::{
    fs::{File, OpenOptions},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{LazyLock, mpsc},
    thread,
};

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::wait;

/// A running program with its output in a file.
pub struct Child {
    process: std::process::Child,
    status: Option<ExitStatus>,
    output: PathBuf,
}

impl Child {
    /// Starts `command`; both of its output streams are appended to the file `output`.
    ///
    /// # Errors
    /// When the program or the file cannot be opened.
    pub fn spawn(mut command: Command, output: &Path) -> Result<Self> {
        let file = append(output)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let process = spawn_and_outlive_no_one(command)?;
        Ok(Self { process, status: None, output: output.to_owned() })
    }

    /// The process id. Valid until the child was waited for, which only this type does.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// What the program has printed so far, both streams.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read(&self.output).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The exit status, if the child is gone.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            // An error means that there is no such child any more: as gone as can be.
            self.status = self.process.try_wait().unwrap_or_else(|_| Some(ExitStatus::from_raw(0)));
        }
        self.status
    }

    /// Sends a signal, unless the child is gone.
    pub fn signal(&mut self, signal: Signal) {
        if self.exited().is_none() {
            // The child cannot have been reaped between the check and the call: only we reap.
            let _ = kill_process(self.pid(), signal);
        }
    }

    /// Waits until the child is gone.
    ///
    /// # Panics
    /// When it is not gone [soon](wait::SOON).
    pub async fn wait(&mut self) -> ExitStatus {
        let what = format!("process {} exits", self.pid().as_raw_nonzero());
        wait::until_some(&what, || self.exited()).await
    }

    /// Waits until `ready` finds something.
    ///
    /// # Errors
    /// With what it has printed, when it exits first.
    pub(crate) async fn until_ready<T>(&mut self, what: &str, mut ready: impl AsyncFnMut() -> Option<T>) -> Result<T> {
        let found = wait::until_ready(what, async || match ready().await {
            Some(found) => Some(Ok(found)),
            None => self.exited().map(Err),
        })
        .await;
        found.map_err(|status| anyhow!("it exited with {status} before {what}:\n{}", self.output()))
    }

    /// Kills the child and waits for it.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        if self.status.is_none() {
            self.status = self.process.wait().ok();
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

fn append(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("cannot write {}", path.display()))
}

type Answer = mpsc::Sender<std::io::Result<std::process::Child>>;

/// The kernel's "die with your parent" means the parent's *thread*. Test threads come and go, so
/// one thread that lives as long as the process starts every child.
static SPAWNER: LazyLock<mpsc::Sender<(Command, Answer)>> = LazyLock::new(|| {
    let (sender, orders) = mpsc::channel::<(Command, Answer)>();
    thread::spawn(move || {
        for (mut command, answer) in orders {
            // The one who asked may have panicked meanwhile; then nobody wants the child.
            if let Err(mpsc::SendError(Ok(mut unwanted))) = answer.send(command.spawn()) {
                let _ = unwanted.kill();
                let _ = unwanted.wait();
            }
        }
    });
    sender
});

fn spawn_and_outlive_no_one(mut command: Command) -> Result<std::process::Child> {
    let program = command.get_program().to_string_lossy().into_owned();
    // SAFETY: prctl is a plain system call; it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    let (answer, child) = mpsc::channel();
    SPAWNER.send((command, answer)).map_err(|_| anyhow!("the spawner thread is gone"))?;
    child.recv().map_err(|_| anyhow!("the spawner thread is gone"))?.with_context(|| format!("cannot start {program}"))
}
