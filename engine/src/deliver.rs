// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The straight line: from a workload's request to files its pod can read.
//!
//! Nothing before [`Target::place`] touches a mount or a file, so a refused or failed delivery needs no clean-up.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::audit::{Auditor, Event, Purpose, Scope, Shown, Subject};
use crate::class_source::{ClassSource, Lookup};
use crate::clock::Clock;
use crate::crash_point;
use crate::error::{Error, Kind};
use crate::fetch::{Answers, BackendHandle, Backends, Fetch, Fetcher, Offline};
use crate::lease::{GroupId, LeaseGroup, Lender};
use crate::names::BackendName;
use crate::policy;
use crate::projection::{Digest, DigestKey};
use crate::render::render;
use crate::schedule::{Due, Life, Wait, refresh_after};
use crate::spec::VolumeSpec;
use crate::spec::volume::LeaseScope;
use crate::target::{Placed, Target};
use crate::token::Tokens;

/// How long a delivery waits for classes that are not known yet. Short enough that whoever waits hears why.
const CLASSES: Duration = Duration::from_secs(5);

/// What deliveries need besides their request.
pub struct Deliverer {
    /// Where classes come from.
    pub classes: Arc<dyn ClassSource>,
    /// Asks them, for all deliveries together.
    pub fetcher: Arc<Fetcher>,
    /// Borrows for them.
    pub lender: Arc<Lender>,
    /// Finds backends.
    pub backends: Arc<dyn Backends>,
    /// Hears what happened.
    pub auditor: Arc<dyn Auditor>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Tells whether files changed without keeping them.
    pub digests: DigestKey,
    /// How long finding, logging in and fetching may take altogether.
    pub limit: Duration,
}

/// One delivery.
pub struct Request<'a> {
    /// Whose volume, and which class it shows.
    pub subject: &'a Subject,
    /// First delivery or refresh.
    pub purpose: Purpose,
    /// What the pod proves itself by.
    pub tokens: &'a Tokens,
    /// The pod's fsGroup.
    pub group: Option<u32>,
    /// What the volume shows now; absent for a first delivery, and where it was not remembered.
    pub before: Option<&'a Before>,
    /// What the volume was lent and shows.
    pub lent: &'a [GroupId],
    /// Whether everything is read anew: what ends is to be replaced, or somebody wants it.
    pub anew: bool,
    /// How long what ends is good for from now on, where it was prolonged.
    pub prolonged: Option<Duration>,
    /// Where in the spread of its class the volume falls: 0 to 1.
    pub chance: f64,
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
    /// Which classes made them: with other ones, versions alone say nothing.
    pub revision: u64,
    /// When they are asked for again; absent where an earlier release remembered.
    #[serde(default)]
    pub due: Option<Due>,
}

/// What a delivery did.
#[derive(Debug)]
pub struct Delivered {
    /// What the volume is to show, for the time of its next refresh.
    pub spec: Arc<VolumeSpec>,
    /// What it shows now.
    pub before: Before,
    /// What the target did; absent where the backends had what is shown already.
    pub placed: Option<Placed>,
    /// The files, by path; empty where nothing was placed.
    pub files: Vec<String>,
    /// What was borrowed for it, in the place of what was borrowed before; absent where nobody was asked.
    pub borrowed: Option<Vec<LeaseGroup>>,
    /// What of it was remembered, because a backend is away.
    pub offline: Option<Offline>,
}

/// The classes of one volume, found.
struct Classes {
    spec: Arc<VolumeSpec>,
    handles: Vec<Arc<BackendHandle>>,
    revision: u64,
}

impl Deliverer {
    /// Delivers `request` to `target`.
    ///
    /// # Errors
    /// Whatever the steps say; the target's readers see what they saw before, and the audit has the reason.
    pub async fn deliver(&self, request: &Request<'_>, target: &dyn Target) -> Result<Delivered, Error> {
        let scope = Scope::open(Arc::clone(&self.auditor), request.subject.clone(), request.purpose);
        // Lives count from before the first question, so that none is thought longer than it is.
        let asked = self.clock.now();
        let result = match tokio::time::timeout(self.limit, self.ask(&scope, request, asked)).await {
            // Placing is outside the deadline: it is short, local, and must not be left half-way.
            Ok(Ok((classes, Some(answers)))) => self.place(request, classes, (answers, asked), target).await,
            Ok(Ok((classes, None))) => self.unchanged(request, classes),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::new(
                Kind::TimedOut,
                format!("the backends did not answer within {:?}; the volume is tried again", self.limit),
            )),
        };
        if let Ok(Delivered { offline: Some(offline), .. }) = &result {
            let (subject, message) = (request.subject.clone(), offline.error.message().to_owned());
            scope.record(Event::Offline { subject, age: offline.age, message });
        }
        scope.close(&result, |subject, delivered| event(subject, request, delivered));
        result
    }

    /// A number that differs whenever a class of the volume does; an error is one more way to differ.
    pub fn revision(&self, subject: &Subject) -> Result<u64, Error> {
        self.classes(subject).map(|classes| classes.revision)
    }

    /// The class of the volume as it is now, where it is known.
    pub fn class(&self, subject: &Subject) -> Option<Arc<VolumeSpec>> {
        match self.classes.volume(&subject.workload.namespace, &subject.class) {
            Lookup::Found(class) => Some(class.spec),
            Lookup::Absent(_) | Lookup::Broken(_) | Lookup::NotKnownYet(_) => None,
        }
    }

    /// Whether a file of the volume comes from `backend`, as far as its class is known.
    pub fn asks(&self, subject: &Subject, backend: &BackendName) -> bool {
        self.class(subject).is_some_and(|spec| spec.references().any(|it| it.backend == *backend))
    }

    /// Finds classes, authorises, logs in and fetches: everything that can be refused, before anything is touched.
    /// Without answers, all is as before.
    async fn ask(
        &self,
        scope: &Scope,
        request: &Request<'_>,
        asked: SystemTime,
    ) -> Result<(Classes, Option<Answers>), Error> {
        let workload = &request.subject.workload;
        request.tokens.check_holder(workload)?;
        let classes = self.classes_once_known(request.subject).await?;
        let mut grants = Vec::with_capacity(classes.handles.len());
        for (reference, handle) in classes.spec.references().zip(&classes.handles) {
            let grant = policy::authorise(handle.backend.as_ref(), &handle.allow, workload, reference)?;
            grants.push((Arc::clone(handle), grant));
        }
        crash_point!("deliver:authorised");
        let same =
            |before: &&Before| !request.anew && before.revision == classes.revision && !before.secrets.is_empty();
        let known = request.before.filter(same).map(|before| before.secrets.as_slice());
        let share = (classes.spec.lease_scope == LeaseScope::ServiceAccount).then_some(request.lent);
        let fetch = Fetch::plan(&self.fetcher, &self.lender, scope, request.tokens, asked, grants, share)?;
        let answers = fetch.run(known).await?;
        crash_point!("deliver:fetched");
        Ok((classes, answers))
    }

    /// The same as [`Self::classes`], after a source that has to ask for them first has had its time.
    async fn classes_once_known(&self, subject: &Subject) -> Result<Classes, Error> {
        let mut changes = self.classes.changes();
        let known = async {
            loop {
                changes.mark_unchanged();
                match self.classes(subject) {
                    Err(error) if error.kind() == Kind::NotReady => {}
                    known => return known,
                }
                if changes.changed().await.is_err() {
                    // The source is gone.
                    return self.classes(subject);
                }
            }
        };
        tokio::time::timeout(CLASSES, known).await.unwrap_or_else(|_| self.classes(subject))
    }

    /// The volume's class and, for each of its references, the backend.
    fn classes(&self, subject: &Subject) -> Result<Classes, Error> {
        let namespace = &subject.workload.namespace;
        let name = format!("SecretVolume {namespace}/{}", subject.class);
        let class = self.classes.volume(namespace, &subject.class).found(&name)?;
        let mut revision = DefaultHasher::new();
        class.revision.hash(&mut revision);
        let mut handles = Vec::with_capacity(class.spec.files.len());
        for reference in class.spec.references() {
            let handle = self.backends.find(&reference.backend).map_err(|error| error.context(&name))?;
            handle.revision.hash(&mut revision);
            handles.push(handle);
        }
        Ok(Classes { spec: class.spec, handles, revision: revision.finish() })
    }

    /// Shows what is shown.
    fn unchanged(&self, request: &Request<'_>, classes: Classes) -> Result<Delivered, Error> {
        let Some(before) = request.before.cloned() else {
            return Err(Error::internal("a volume without a memory was found unchanged"));
        };
        let (spec, now) = (classes.spec, self.clock.now());
        let every = refresh_after(spec.refresh, request.chance);
        let due = match (before.due, request.prolonged) {
            (Some(due), None) => due.again(every, now),
            (_, prolonged) => {
                let lives = before
                    .secrets
                    .iter()
                    .map(|shown| Life { ends_in: prolonged.filter(|_| shown.ends), rotates_in: None });
                Due::after(Wait::of(lives, spec.refresh, request.chance), now)
            }
        };
        let before = Before { due: Some(due), ..before };
        Ok(Delivered { spec, before, placed: None, files: Vec::new(), borrowed: None, offline: None })
    }

    async fn place(
        &self,
        request: &Request<'_>,
        classes: Classes,
        (answers, asked): (Answers, SystemTime),
        target: &dyn Target,
    ) -> Result<Delivered, Error> {
        let Classes { spec, revision, .. } = classes;
        let offline = answers.offline;
        let age = offline.as_ref().map_or(Duration::ZERO, |offline| offline.age);
        let offline = match (offline, spec.max_stale) {
            // Too old for a pod that runs is too old for one that starts.
            (Some(offline), Some(most)) if age >= most.after => return Err(offline.error),
            (offline, _) => offline,
        };
        let projection = render(&spec, request.group, &answers.secrets)?;
        drop(answers.secrets);
        crash_point!("deliver:rendered");
        let wait = Wait::of(answers.lives, spec.refresh, request.chance);
        let due = Some(Due::after(wait, asked - age));
        let before = Before { secrets: answers.shown, digest: projection.digest(&self.digests), revision, due };
        let borrowed = Some(answers.borrowed);
        if request.before.is_some_and(|earlier| earlier.digest == before.digest) {
            return Ok(Delivered { spec, before, placed: None, files: Vec::new(), borrowed, offline });
        }
        let files = projection.files().map(|(path, _)| path.to_string()).collect();
        let placed = target.place(&spec, projection, &before).await?;
        Ok(Delivered { spec, before, placed: Some(placed), files, borrowed, offline })
    }
}

fn event(subject: Subject, request: &Request<'_>, delivered: &Delivered) -> Option<Event> {
    let placed = delivered.placed.as_ref()?;
    let after = delivered.before.secrets.clone();
    Some(match request.purpose {
        Purpose::Refresh => Event::Refreshed {
            subject,
            generation: placed.generation,
            before: request.before.map(|before| before.secrets.clone()).unwrap_or_default(),
            after,
        },
        Purpose::First => Event::Mounted {
            subject,
            target: request.target_path.to_owned(),
            files: delivered.files.clone(),
            secrets: after,
            options: placed.options.clone(),
        },
    })
}
