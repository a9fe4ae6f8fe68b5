// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! One live volume: where it is, whose it is, what it shows.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evanesce_engine::audit::Subject;
use evanesce_engine::clock::Clock;
use evanesce_engine::deliver::{Before, Delivered};
use evanesce_engine::error::{Error, Kind};
use evanesce_engine::generation::Generations;
use evanesce_engine::spec::VolumeSpec;
use evanesce_engine::spec::volume::{MaxStale, OnStale, Refresh};
use evanesce_engine::token::Tokens;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine_half::borrowed::Borrowed;
use crate::engine_half::budget::Reservation;
use crate::engine_half::freshness::Freshness;
use crate::engine_half::oddities::Oddities;
use crate::engine_half::publish_request::PublishRequest;
use crate::engine_half::record::Record;
use crate::protocol::{TargetPath, VolumeId};

/// A volume with a good generation.
pub struct Volume {
    /// Its id.
    pub id: VolumeId,
    /// Where it is attached.
    pub target: TargetPath,
    /// Whose it is.
    pub subject: Subject,
    /// The pod's fsGroup.
    pub group: Option<u32>,
    /// Its folder.
    pub generations: Arc<Generations>,
    /// What it shows; whoever holds this is the only one to change the files.
    pub state: tokio::sync::Mutex<State>,
    /// Whether that is what the backends have.
    pub freshness: Freshness,
    /// What was said of what it shows.
    pub oddities: Oddities,
    tokens: Mutex<Arc<Tokens>>,
    forced: Mutex<Vec<oneshot::Sender<Forced>>>,
    leaving: CancellationToken,
}

/// What changes with each generation.
pub struct State {
    /// What is shown, remembered without values; absent after an adoption that found none.
    pub before: Option<Before>,
    /// The generation that was shown when that was so.
    pub generation: u64,
    /// Generations that are not shown any more, with the time until which they stay, the oldest first.
    pub retired: VecDeque<(u64, Instant)>,
    /// What it was lent, and what it was lent before.
    pub borrowed: Borrowed,
    /// The volume's share of the node's memory.
    pub size: Reservation,
    /// When to ask again, as its class said last.
    pub refresh: Refresh,
    /// How long a generation stays after it is not shown any more, as its class said last.
    pub keep_previous: Duration,
    /// How long what was lent stays valid after something else took its place, as its class said last.
    pub overlap: Duration,
    /// How old files may be that the backends cannot confirm, as its class said last.
    pub max_stale: Option<MaxStale>,
    /// What became of what is shown because it is too old.
    pub mark: Option<OnStale>,
    /// Whether that was said.
    pub said_too_old: bool,
    /// Whether the record says what is shown.
    pub recorded: bool,
    /// When what ends is replaced, by the clock that is never set; the record has it by the other one.
    pub renew: Option<Instant>,
    /// How long that was from when it was read.
    pub life: Option<Duration>,
}

/// What a refresh that an operator asked for came to.
#[derive(Clone, Debug)]
pub enum Forced {
    /// The pod sees a new generation.
    Replaced(u64),
    /// The backends have what the pod sees.
    Unchanged,
    /// The pod keeps what it has: the kind of error, and its words.
    Failed(Kind, String),
}

impl Forced {
    /// What this delivery came to.
    pub fn of(result: &Result<Delivered, Error>) -> Self {
        match result {
            Ok(Delivered { placed: Some(placed), .. }) => Self::Replaced(placed.generation),
            Ok(Delivered { placed: None, .. }) => Self::Unchanged,
            Err(error) => Self::Failed(error.kind(), error.message().to_owned()),
        }
    }
}

impl State {
    /// A volume that shows this.
    pub fn new(before: Option<Before>, generation: u64, size: Reservation, clock: &dyn Clock) -> Self {
        let mut state = Self {
            before: None,
            generation,
            retired: VecDeque::new(),
            borrowed: Borrowed::default(),
            size,
            refresh: Refresh::default(),
            keep_previous: VolumeSpec::DEFAULT_KEEP_PREVIOUS,
            overlap: VolumeSpec::DEFAULT_OVERLAP,
            max_stale: None,
            mark: None,
            said_too_old: false,
            recorded: true,
            renew: None,
            life: None,
        };
        if let Some(before) = before {
            state.remember(before, clock);
        }
        state
    }

    /// Its class says this.
    pub fn follow(&mut self, spec: &VolumeSpec) {
        self.refresh = spec.refresh;
        self.keep_previous = spec.keep_previous;
        self.overlap = spec.overlap;
        self.max_stale = spec.max_stale;
    }

    /// It shows this now.
    pub fn remember(&mut self, before: Before, clock: &dyn Clock) {
        let renew = |before: &Before| before.due.and_then(|due| due.renew);
        // An end that was known keeps its deadline, whatever became of the wall clock since.
        if self.before.as_ref().and_then(renew) != renew(&before) {
            let now = clock.now();
            self.life = before.due.and_then(|due| due.renews_in(due.asked));
            self.renew = before.due.and_then(|due| due.renews_in(now)).map(|left| clock.monotonic() + left);
        }
        self.before = Some(before);
    }

    /// When something of the volume is to be cleared away: files, or credentials that others took the place of.
    pub fn next_sweep(&self) -> Option<Instant> {
        let files = self.retired.front().map(|(_, until)| *until);
        [files, self.borrowed.next_sweep()].into_iter().flatten().min()
    }

    /// Whether what ends is to be replaced: by either clock.
    pub fn renews(&self, clock: &dyn Clock) -> bool {
        let left = self.before.as_ref().and_then(|before| before.due?.renews_in(clock.now()));
        left.is_some_and(|left| left.is_zero()) || self.renew.is_some_and(|renew| renew <= clock.monotonic())
    }
}

impl Volume {
    /// A volume that is attached at `target`.
    pub fn new(
        id: VolumeId,
        target: TargetPath,
        subject: Subject,
        group: Option<u32>,
        tokens: Tokens,
        generations: Arc<Generations>,
        state: State,
    ) -> Self {
        let tokens = Mutex::new(Arc::new(tokens));
        let leaving = CancellationToken::new();
        Self {
            id,
            target,
            subject,
            group,
            generations,
            state: state.into(),
            freshness: Freshness::default(),
            oddities: Oddities::default(),
            tokens,
            forced: Mutex::default(),
            leaving,
        }
    }

    /// What the pod proves itself by.
    pub fn tokens(&self) -> Arc<Tokens> {
        Arc::clone(&self.tokens.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes kubelet's newer tokens; the older ones are wiped once nobody uses them.
    pub fn renew(&self, tokens: Tokens) {
        *self.tokens.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(tokens);
    }

    /// Has the next refresh read everything anew, and tell what it came to; nothing where the volume leaves before.
    pub fn force(&self) -> oneshot::Receiver<Forced> {
        let (tell, told) = oneshot::channel();
        self.forced.lock().unwrap_or_else(PoisonError::into_inner).push(tell);
        told
    }

    /// Who asked for the refresh that begins.
    pub fn forced(&self) -> Vec<oneshot::Sender<Forced>> {
        std::mem::take(&mut *self.forced.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells refreshes to stop.
    pub fn leave(&self) {
        self.leaving.cancel();
    }

    /// Ends when the volume is leaving.
    pub async fn left(&self) {
        self.leaving.cancelled().await;
    }

    /// Whether the volume is leaving.
    pub fn is_leaving(&self) -> bool {
        self.leaving.is_cancelled()
    }

    /// Whether a repeated request means this volume.
    ///
    /// # Errors
    /// [`Kind::Conflict`], naming the field that differs (CSI 1.13, `NodePublishVolume`: `ALREADY_EXISTS`).
    pub fn matches(&self, request: &PublishRequest) -> Result<(), Error> {
        let differs = |field: &str| {
            let text = format!("volume {} is published with another {field}: unpublish it first", self.id);
            Err(Error::new(Kind::Conflict, text))
        };
        let (ours, theirs) = (&self.subject.workload, &request.subject.workload);
        if self.target != request.target {
            differs("target_path")
        } else if self.group != request.group {
            differs("volume_mount_group")
        } else if self.subject.class != request.subject.class {
            differs("secretVolume")
        } else if (&ours.namespace, &ours.pod_uid, &ours.service_account)
            != (&theirs.namespace, &theirs.pod_uid, &theirs.service_account)
        {
            differs("pod or service account")
        } else {
            Ok(())
        }
    }

    /// What the next engine half has to know.
    pub fn record(&self, state: &State) -> Record {
        let mut record = Record::new(&self.subject, self.target.clone(), self.group, state.size.bytes());
        record.before.clone_from(&state.before);
        record.generation = Some(state.generation);
        record
    }
}
