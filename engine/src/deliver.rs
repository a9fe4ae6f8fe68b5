// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The straight line: from a workload's request to files its pod can read.
//!
//! Nothing before [`Target::place`] touches a mount or a file, so a refused or failed delivery needs no clean-up.

use std::sync::Arc;
use std::time::Duration;

use crate::audit::{Auditor, Event, Purpose, Scope, Shown, Subject};
use crate::clock::Clock;
use crate::error::Error;
use crate::fetch::{Answers, Backends, Fetch};
use crate::policy;
use crate::projection::{Digest, DigestKey};
use crate::render::render;
use crate::spec::VolumeSpec;
use crate::target::{Placed, Target};
use crate::token::Tokens;

/// What deliveries need besides their request.
pub struct Deliverer {
    /// Finds backends.
    pub backends: Arc<dyn Backends>,
    /// Hears what happened.
    pub auditor: Arc<dyn Auditor>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Tells whether files changed without keeping them.
    pub digests: DigestKey,
}

/// One delivery.
pub struct Request<'a> {
    /// Whose volume.
    pub subject: Subject,
    /// What it shows.
    pub spec: &'a VolumeSpec,
    /// What the pod proves itself by.
    pub tokens: &'a Tokens,
    /// The pod's fsGroup.
    pub group: Option<u32>,
    /// What the volume shows now; absent for a first delivery.
    pub before: Option<&'a Before>,
    /// Where the volume is, for the event.
    pub target_path: &'a str,
}

/// What a volume shows, remembered without its values.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Before {
    /// The secrets, by name and version.
    pub secrets: Vec<Shown>,
    /// The keyed digest of the files.
    pub digest: Digest,
    /// Which spec made them: with another one, versions alone say nothing.
    pub revision: u64,
}

/// What a delivery did.
#[derive(Debug)]
pub enum Delivered {
    /// Readers see new files.
    Placed {
        /// What the target did.
        placed: Placed,
        /// The secrets, by name and version.
        secrets: Vec<Shown>,
        /// The keyed digest of the files.
        digest: Digest,
        /// The files, by path.
        files: Vec<String>,
    },
    /// The backends have what is shown already.
    Unchanged {
        /// The secrets, by name and version; a version may be new where the values are not.
        secrets: Vec<Shown>,
    },
}

impl Deliverer {
    /// Delivers `request` to `target`; a first delivery if the request has no `before`. `revision` is the spec's.
    ///
    /// # Errors
    /// Whatever the steps say; the target's readers see what they saw before, and the audit has the reason.
    pub async fn deliver(
        &self,
        request: Request<'_>,
        revision: u64,
        limit: Duration,
        target: &dyn Target,
    ) -> Result<Delivered, Error> {
        let purpose = if request.before.is_some() { Purpose::Refresh } else { Purpose::First };
        let scope = Scope::open(Arc::clone(&self.auditor), request.subject.clone(), purpose);
        let result = match tokio::time::timeout(limit, self.steps(&scope, &request, revision)).await {
            // Placing is outside the deadline: it is short, local, and must not be left half-way.
            Ok(Ok(Steps::Place(answers))) => self.place(&request, answers, target).await,
            Ok(Ok(Steps::Keep(secrets))) => Ok(Delivered::Unchanged { secrets }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::new(
                crate::error::Kind::TimedOut,
                format!("the backends did not answer within {limit:?}; the volume is tried again"),
            )),
        };
        scope.close(&result, |subject, delivered| event(subject, &request, delivered));
        result
    }

    /// Authorise and fetch: everything that can be refused, before anything is touched.
    async fn steps(&self, scope: &Scope, request: &Request<'_>, revision: u64) -> Result<Steps, Error> {
        let workload = &request.subject.workload;
        request.tokens.check_holder(workload)?;
        let mut grants = Vec::with_capacity(request.spec.files.len());
        for file in &request.spec.files {
            let handle = self.backends.find(&file.from.backend)?;
            let grant = policy::authorise(handle.backend.as_ref(), &handle.allow, workload, &file.from)?;
            grants.push((handle, grant));
        }
        let known = request.before.filter(|before| before.revision == revision).map(|before| before.secrets.as_slice());
        match Fetch::plan(scope, request.tokens, self.clock.now(), grants)?.run(known).await? {
            Some(answers) => Ok(Steps::Place(answers)),
            None => Ok(Steps::Keep(known.unwrap_or_default().to_vec())),
        }
    }

    async fn place(&self, request: &Request<'_>, answers: Answers, target: &dyn Target) -> Result<Delivered, Error> {
        let Answers { secrets, shown } = answers;
        let projection = render(request.spec, request.group, &secrets)?;
        drop(secrets);
        let digest = projection.digest(&self.digests);
        if request.before.is_some_and(|before| before.digest == digest) {
            return Ok(Delivered::Unchanged { secrets: shown });
        }
        let placed = target.place(&projection).await?;
        let files = projection.files().map(|(path, _)| path.to_string()).collect();
        Ok(Delivered::Placed { placed, secrets: shown, digest, files })
    }
}

/// What the steps before the target ask for.
enum Steps {
    Keep(Vec<Shown>),
    Place(Answers),
}

fn event(subject: Subject, request: &Request<'_>, delivered: &Delivered) -> Option<Event> {
    let Delivered::Placed { placed, secrets, files, .. } = delivered else { return None };
    Some(match request.before {
        Some(before) => Event::Refreshed {
            subject,
            generation: placed.generation,
            before: before.secrets.clone(),
            after: secrets.clone(),
        },
        None => Event::Mounted {
            subject,
            target: request.target_path.to_owned(),
            files: files.clone(),
            secrets: secrets.clone(),
            options: placed.options.clone(),
        },
    })
}
