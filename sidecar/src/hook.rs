// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! One attempt of a hook: within its time, counted, and with an error that names what failed and the cure.

pub mod command;
pub mod http;
pub mod signal;
pub mod touch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Action, Hook};
use crate::metrics::{self, HookKind, Metrics};
use crate::teller::{Attempt, News};

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// What it did failed.
    #[error("{0}")]
    Failed(String),
    /// It took too long.
    #[error("not done within {0:?}: raise `timeout`, or see what it waits for")]
    TimedOut(Duration),
}

impl Failure {
    fn failed(what: impl Into<String>) -> Self {
        Self::Failed(what.into())
    }
}

/// Does it in earnest.
#[derive(Clone)]
pub struct Real(pub Arc<Metrics>);

impl Attempt for Real {
    async fn attempt(&self, hook: &Hook, news: &News) -> Result<(), Failure> {
        let (kind, since) = (HookKind::from(&hook.action), Instant::now());
        let result = match &hook.action {
            // It ends what it started, which takes a moment longer.
            Action::Command(line) => command::run(line, news, hook.timeout).await,
            Action::Http(request) => tokio::time::timeout(hook.timeout, http::send(request, news))
                .await
                .unwrap_or(Err(Failure::TimedOut(hook.timeout))),
            Action::Signal(recipient) => signal::send(recipient),
            Action::Touch(path) => touch::touch(path),
        };
        let outcome = match &result {
            Ok(()) => metrics::Attempt::Ok,
            Err(Failure::Failed(_)) => metrics::Attempt::Failed,
            Err(Failure::TimedOut(_)) => metrics::Attempt::TimedOut,
        };
        self.0.attempts.inc((kind, outcome));
        self.0.attempt_seconds.observe((kind,), since.elapsed().as_secs_f64());
        result
    }
}
