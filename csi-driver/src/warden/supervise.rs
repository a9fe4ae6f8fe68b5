// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The warden's loop: one thread that keeps one engine half running and does what it asks, until told to stop.
//!
//! Whatever the engine half does – end, hang, send garbage – costs it its channel and its life, and nothing else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use evanesce_engine::crash_point;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::backoff::Backoff;
use super::requests::Requests;
use super::signals;
use crate::mount::Kernel;
use crate::protocol::{
    Channel, ChannelError, DigestKey, EngineConfig, EngineFrame, FromLauncher, Hello, PROTOCOL, Request, ToLauncher,
    WardenFrame,
};

/// How long the engine half may take to answer the hello.
const GREETING: Duration = Duration::from_secs(20);
/// How long the engine half may take to finish what it has begun.
const DRAIN: Duration = Duration::from_secs(20);
/// How long a killed engine half may take to be gone.
const DYING: Duration = Duration::from_secs(5);
/// How long an engine half that closed its channel may take to end by itself, and so say how it ended.
const ENDING: Duration = Duration::from_secs(2);
/// How long the engine half may leave an answer unread.
const UNREAD: Duration = Duration::from_secs(5);

/// Why the warden cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// Without the launcher no engine half can be started, and the warden may start nothing itself.
    #[error("the launcher is gone: restart the container")]
    Launcher,
    /// The engine half is from another build; trying again would not help.
    #[error(transparent)]
    OtherProtocol(ChannelError),
    /// Waiting failed.
    #[error("poll: {0}")]
    Poll(#[from] rustix::io::Errno),
}

/// What every engine half is given.
pub struct Greeting {
    /// What the command line decided.
    pub config: EngineConfig,
    /// The key for digests in records.
    pub digest_key: DigestKey,
    /// The CSI listener, the registration listener, the admin listener, the audit file if there is one.
    pub fds: Vec<OwnedFd>,
}

/// Keeps an engine half running.
pub struct Supervisor<K> {
    requests: Requests<K>,
    greeting: Greeting,
    launcher: Channel,
    signals: OwnedFd,
    backoff: Backoff,
    restarts: u64,
    started: Instant,
    engine: Engine,
    stopping: bool,
}

/// Where the engine half is in its life.
enum Engine {
    /// There is none until then.
    Absent { until: Instant },
    /// The launcher was asked for one.
    Starting,
    /// It has been told hello.
    Greeted { channel: Channel, deadline: Instant },
    /// It works, and serves since it said so; with a deadline, it has been asked to finish.
    Working { channel: Channel, serves: Option<Instant>, deadline: Option<Instant> },
    /// It closed its channel and has to be gone by the deadline.
    Ending { served: Option<Duration>, deadline: Instant },
    /// It was killed and has to be gone by the deadline.
    Dying { served: Option<Duration>, deadline: Instant },
}

/// What `poll` found.
struct Ready {
    signal: bool,
    launcher: bool,
    channel: bool,
}

impl<K: Kernel> Supervisor<K> {
    /// Ready to start the first engine half at once. `launcher` is the launcher's control channel; `signals` becomes
    /// readable when it is time to stop.
    pub fn new(requests: Requests<K>, greeting: Greeting, launcher: Channel, signals: OwnedFd) -> Self {
        let started = Instant::now();
        let engine = Engine::Absent { until: started };
        Self {
            requests,
            greeting,
            launcher,
            signals,
            backoff: Backoff::default(),
            restarts: 0,
            started,
            engine,
            stopping: false,
        }
    }

    /// Runs until a signal asks to stop and the engine half is gone.
    ///
    /// # Errors
    /// [`Fatal`]: the warden has to be started again.
    pub fn run(&mut self) -> Result<(), Fatal> {
        loop {
            self.act_on_time()?;
            if self.stopping && matches!(self.engine, Engine::Absent { .. }) {
                return Ok(());
            }
            let ready = self.wait()?;
            // The channel first: what the engine half said before it ended is answered or at least heard.
            if ready.channel {
                self.hear_engine()?;
            }
            if ready.launcher {
                self.hear_launcher()?;
            }
            if ready.signal {
                signals::take(&self.signals);
                self.stop()?;
            }
        }
    }

    fn act_on_time(&mut self) -> Result<(), Fatal> {
        let now = Instant::now();
        match &self.engine {
            Engine::Absent { until } if now >= *until && !self.stopping => {
                self.tell_launcher(&ToLauncher::Start)?;
                self.started = now;
                self.engine = Engine::Starting;
            }
            Engine::Greeted { deadline, .. } if now >= *deadline => self.kill("it does not answer the hello")?,
            Engine::Working { deadline: Some(deadline), .. } if now >= *deadline => {
                self.kill("it has not finished in time")?;
            }
            Engine::Ending { deadline, .. } if now >= *deadline => self.kill("it closed its channel and lives on")?,
            // The launcher has been told and has not reported: it hangs, or the kernel cannot end the process.
            Engine::Dying { deadline, .. } if now >= *deadline => return Err(Fatal::Launcher),
            _ => {}
        }
        Ok(())
    }

    fn wait(&self) -> Result<Ready, Fatal> {
        let (channel, deadline) = match &self.engine {
            Engine::Absent { until } => (None, Some(*until)),
            Engine::Starting => (None, None),
            Engine::Greeted { channel, deadline } => (Some(channel), Some(*deadline)),
            Engine::Working { channel, deadline, .. } => (Some(channel), *deadline),
            Engine::Ending { deadline, .. } | Engine::Dying { deadline, .. } => (None, Some(*deadline)),
        };
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&self.launcher, PollFlags::IN)];
        fds.extend(channel.map(|channel| PollFd::new(channel, PollFlags::IN)));
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // Out of range only for a wait of 292 billion years.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        rustix::io::retry_on_intr(|| poll(&mut fds, timeout.as_ref()))?;
        let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        Ok(Ready { signal: ready(0), launcher: ready(1), channel: ready(2) })
    }

    fn hear_launcher(&mut self) -> Result<(), Fatal> {
        let report = self.launcher.receive().ok().flatten().ok_or(Fatal::Launcher)?;
        match report {
            (FromLauncher::Started { pid }, fds) => {
                let channel = fds.into_iter().next().map(Channel::from_fd);
                let Some(Ok(channel)) = channel else { return Err(Fatal::Launcher) };
                tracing::debug!(pid, "engine half started");
                self.greet(channel)?;
            }
            (FromLauncher::Failed { message }, _) => {
                let wait = self.backoff.after(None);
                tracing::error!(%message, deaths = self.backoff.deaths(), ?wait, "engine half not started");
                self.engine = Engine::Absent { until: Instant::now() + wait };
            }
            (FromLauncher::Exited { how }, _) => {
                let served = self.served();
                self.requests.engine_ended();
                let wait = self.backoff.after(served);
                if self.stopping {
                    tracing::info!(%how, "engine half ended");
                } else {
                    self.restarts += 1;
                    let (restarts, deaths) = (self.restarts, self.backoff.deaths());
                    tracing::error!(%how, ?served, deaths, restarts, ?wait, "engine half ended; it is started again");
                }
                self.engine = Engine::Absent { until: Instant::now() + wait };
            }
        }
        Ok(())
    }

    fn greet(&mut self, channel: Channel) -> Result<(), Fatal> {
        let hello = Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            restarts: self.restarts,
            config: self.greeting.config.clone(),
            digest_key: DigestKey::new(self.greeting.digest_key.as_bytes()),
        };
        let fds: Vec<BorrowedFd<'_>> = self.greeting.fds.iter().map(AsFd::as_fd).collect();
        let sent =
            channel.set_send_timeout(UNREAD).and_then(|()| channel.send(&WardenFrame::Hello(Box::new(hello)), &fds));
        crash_point!("hello:sent");
        self.engine = Engine::Greeted { channel, deadline: Instant::now() + GREETING };
        match sent {
            Err(error) => self.kill(&error.to_string()),
            Ok(()) if self.stopping => self.kill("it is no longer needed"),
            Ok(()) => Ok(()),
        }
    }

    fn hear_engine(&mut self) -> Result<(), Fatal> {
        match &mut self.engine {
            Engine::Greeted { channel, .. } => match channel.receive_greeting() {
                Ok(Some((EngineFrame::HelloBack(_), fds))) if fds.is_empty() => {
                    let Engine::Greeted { channel, .. } =
                        std::mem::replace(&mut self.engine, Engine::Absent { until: Instant::now() })
                    else {
                        unreachable!("matched above");
                    };
                    self.engine = Engine::Working { channel, serves: None, deadline: None };
                    Ok(())
                }
                Err(error @ ChannelError::OtherProtocol { .. }) => Err(Fatal::OtherProtocol(error)),
                Ok(Some(_)) => self.kill("its first message is no hello"),
                Ok(None) => self.kill("it closed its channel"),
                Err(error) => self.kill(&error.to_string()),
            },
            Engine::Working { channel, serves, .. } => match channel.receive() {
                Ok(Some((_, fds))) if !fds.is_empty() => self.kill("it sends descriptors"),
                Ok(Some((EngineFrame::Request { id, body }, _))) => {
                    if body == Request::Ready {
                        tracing::info!(took = ?self.started.elapsed(), "engine half ready");
                        serves.get_or_insert_with(Instant::now);
                    }
                    let (result, fd) = match self.requests.answer(body) {
                        Ok((reply, fd)) => (Ok(reply), fd),
                        Err(error) => {
                            tracing::debug!(kind = ?error.kind, %error, "request refused");
                            (Err(error), None)
                        }
                    };
                    let fds: Vec<BorrowedFd<'_>> = fd.iter().map(AsFd::as_fd).collect();
                    match channel.send(&WardenFrame::Reply { id, result }, &fds) {
                        Ok(()) => Ok(()),
                        Err(error) => self.kill(&error.to_string()),
                    }
                }
                Ok(Some((EngineFrame::HelloBack(_), _))) => self.kill("it greets twice"),
                Ok(None) => {
                    self.engine = Engine::Ending { served: self.served(), deadline: Instant::now() + ENDING };
                    Ok(())
                }
                Err(error) => self.kill(&error.to_string()),
            },
            Engine::Absent { .. } | Engine::Starting | Engine::Ending { .. } | Engine::Dying { .. } => Ok(()),
        }
    }

    /// How long the engine half has served; `None` where it never came to that.
    fn served(&self) -> Option<Duration> {
        match &self.engine {
            Engine::Working { serves, .. } => serves.map(|since| since.elapsed()),
            Engine::Ending { served, .. } | Engine::Dying { served, .. } => *served,
            Engine::Absent { .. } | Engine::Starting | Engine::Greeted { .. } => None,
        }
    }

    /// Asked once, the engine half may finish; asked again, it may not.
    fn stop(&mut self) -> Result<(), Fatal> {
        let again = std::mem::replace(&mut self.stopping, true);
        match &mut self.engine {
            Engine::Working { channel, deadline, .. } if !again => {
                tracing::info!("stopping: the engine half has {DRAIN:?} to finish");
                *deadline = Some(Instant::now() + DRAIN);
                match channel.send(&WardenFrame::Drain, &[]) {
                    Ok(()) => Ok(()),
                    Err(error) => self.kill(&error.to_string()),
                }
            }
            Engine::Working { .. } | Engine::Greeted { .. } | Engine::Ending { .. } => {
                self.kill("it is no longer needed")
            }
            // The first ends the loop, the second is killed when it is there, the third is ending anyway.
            Engine::Absent { .. } | Engine::Starting | Engine::Dying { .. } => Ok(()),
        }
    }

    /// Closes the channel and has the engine half killed, whether it still lives or not.
    fn kill(&mut self, why: &str) -> Result<(), Fatal> {
        let served = self.served();
        if !self.stopping {
            tracing::warn!(why, "engine half dismissed");
        }
        self.engine = Engine::Dying { served, deadline: Instant::now() + DYING };
        self.tell_launcher(&ToLauncher::Kill)
    }

    fn tell_launcher(&self, command: &ToLauncher) -> Result<(), Fatal> {
        self.launcher.send(command, &[]).map_err(|_| Fatal::Launcher)
    }
}
