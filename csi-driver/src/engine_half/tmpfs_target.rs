// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Where files become visible: a new tmpfs that is attached once it is whole, or the next generation of one.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use evanesce_engine::crash_point;
use evanesce_engine::deliver::Before;
use evanesce_engine::error::{Error, Kind};
use evanesce_engine::generation::{Generations, Written};
use evanesce_engine::projection::Projection;
use evanesce_engine::spec::VolumeSpec;
use evanesce_engine::target::{Placed, Target};
use tokio::time::Instant;

use crate::engine_half::budget::{Budget, Reservation};
use crate::engine_half::mounts::Mounts;
use crate::engine_half::publish_request::PublishRequest;
use crate::engine_half::record::Record;
use crate::engine_half::volume::{State, Volume};
use crate::protocol::{InvalidName, Owner, VolumePath, inodes_for};

/// What a volume starts with where its class names no size: two generations of a hundred small files fit.
const DEFAULT_SIZE: u64 = 1 << 20;
/// The number of a volume's first generation.
const FIRST: u64 = 1;

/// The target of a first delivery.
pub struct FirstTarget<'a> {
    /// Makes and attaches.
    pub mounts: &'a dyn Mounts,
    /// Whose memory it is.
    pub budget: &'a Arc<Budget>,
    /// What kubelet asked for.
    pub request: &'a PublishRequest,
    /// Whether anything was begun that a failure has to undo.
    pub begun: AtomicBool,
    /// What was made, for whoever keeps the volume.
    pub made: Mutex<Option<(Arc<Generations>, Reservation)>>,
}

#[async_trait]
impl Target for FirstTarget<'_> {
    async fn place(&self, spec: &VolumeSpec, projection: Projection, shows: &Before) -> Result<Placed, Error> {
        let PublishRequest { volume, target, subject, group, .. } = self.request;
        let size = size_for(spec, &projection)?;
        let reservation = self.budget.reserve(&subject.workload.namespace, size)?;
        let root = self.mounts.make(volume, size, inodes_for(size)).await?;
        self.begun.store(true, Ordering::Relaxed);
        crash_point!("place:made");
        let generations = Arc::new(Generations::new(root));
        // Nobody sees it before it is attached: files are shown as they are written, and owned later.
        let there = Arc::clone(&generations);
        let written = blocking(move || {
            let written = there.write(FIRST, &projection)?;
            there.show(FIRST).map_err(|error| failed("shown", FIRST, &error))?;
            Ok::<_, Error>(written)
        });
        let written = written.await??;
        crash_point!("place:shown");
        let mut record = Record::new(subject, target.clone(), *group, size);
        (record.generation, record.before) = (Some(FIRST), Some(shows.clone()));
        let options = self.mounts.show(volume, target, record.to_json()?, owners(written)?).await?;
        crash_point!("place:attached");
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = Some((generations, reservation));
        Ok(Placed { generation: FIRST, options })
    }
}

/// The target of a refresh: the caller holds the volume's state.
pub struct RefreshTarget<'a> {
    /// Resizes and gives files to their owners.
    pub mounts: &'a dyn Mounts,
    /// The volume.
    pub volume: &'a Volume,
    /// Its state.
    pub state: tokio::sync::Mutex<&'a mut State>,
    /// Until when the generation that is shown now stays after it is not.
    pub keep_until: Instant,
}

#[async_trait]
impl Target for RefreshTarget<'_> {
    async fn place(&self, spec: &VolumeSpec, projection: Projection, _shows: &Before) -> Result<Placed, Error> {
        let mut state = self.state.lock().await;
        self.grow(&mut state, size_for(spec, &projection)?).await?;
        let generation = self.swap(&mut state, Arc::new(projection), false).await?;
        Ok(Placed { generation, options: Vec::new() })
    }
}

impl RefreshTarget<'_> {
    /// Takes the files away: a generation that has nothing but the mark of what is too old. Says its number.
    ///
    /// # Errors
    /// As [`Target::place`].
    pub async fn clear(&self) -> Result<u64, Error> {
        let mut state = self.state.lock().await;
        self.swap(&mut state, Arc::default(), true).await
    }

    /// Shows the next generation, marked or not.
    async fn swap(&self, state: &mut State, projection: Arc<Projection>, marked: bool) -> Result<u64, Error> {
        let generations = &self.volume.generations;
        let (_, there) = numbers(generations).await?;
        let next = there.last().copied().unwrap_or(0) + 1;
        // Old generations stay as long as they fit; the one that is shown always does.
        loop {
            match self.write(next, &projection, marked).await {
                Err(error) if error.kind() == Kind::Exhausted => match state.retired.pop_front() {
                    Some((oldest, _)) => remove(generations, oldest).await?,
                    None => return Err(error),
                },
                other => break other?,
            }
        }
        crash_point!("refresh:written");
        let shown = show(generations, next).await;
        crash_point!("refresh:shown");
        // Also where that failed, which may have been before the swap or after it.
        self.retire(state).await?;
        shown.map(|()| next)
    }

    /// Writes a generation and gives its files to their owners. What fails leaves nothing.
    async fn write(&self, number: u64, projection: &Arc<Projection>, marked: bool) -> Result<(), Error> {
        let Volume { id, generations, .. } = self.volume;
        let (there, what) = (Arc::clone(generations), Arc::clone(projection));
        let written = blocking(move || there.write(number, &what)).await??;
        let owned = async {
            if marked {
                mark(generations, number).await?;
            }
            self.mounts.own(id, owners(written)?).await
        };
        if let Err(error) = owned.await {
            remove(generations, number).await?;
            return Err(error);
        }
        Ok(())
    }

    /// Sees what is there and is not shown: an earlier generation may have readers, a later one was never seen by anybody.
    async fn retire(&self, state: &mut State) -> Result<(), Error> {
        let generations = &self.volume.generations;
        let (shown, there) = numbers(generations).await?;
        for number in there {
            if Some(number) > shown {
                remove(generations, number).await?;
            } else if Some(number) < shown && !state.retired.iter().any(|(retired, _)| *retired == number) {
                state.retired.push_back((number, self.keep_until));
            }
        }
        Ok(())
    }

    /// Makes room. What is reserved is given back if the kernel refuses.
    async fn grow(&self, state: &mut State, size: u64) -> Result<(), Error> {
        let before = state.size.bytes();
        if size <= before {
            return Ok(());
        }
        state.size.resize(size)?;
        let resized = self.mounts.resize(&self.volume.id, size).await;
        crash_point!("refresh:grown");
        if resized.is_err() {
            state.size.resize(before)?;
        }
        resized
    }
}

/// How large the volume has to be: two generations fit.
fn size_for(spec: &VolumeSpec, projection: &Projection) -> Result<u64, Error> {
    let two = 2 * projection.size_on_tmpfs();
    match spec.size {
        Some(size) if size < two => Err(Error::exhausted(format!(
            "the files need a volume of {two} bytes, so that two generations fit, and spec.size is {size}: raise it"
        ))),
        Some(size) => Ok(size),
        None => Ok(two.max(DEFAULT_SIZE)),
    }
}

/// A generation's files, for the warden.
fn owners(written: Written) -> Result<Vec<(VolumePath, Owner)>, Error> {
    let owner = |(path, uid, gid)| Ok((VolumePath::try_from(path)?, Owner { uid: Some(uid), gid: Some(gid) }));
    let files: Result<_, InvalidName> = written.owners.into_iter().map(owner).collect();
    files.map_err(|error| Error::internal("a file has no owner").with_detail(error.to_string()))
}

async fn show(generations: &Arc<Generations>, number: u64) -> Result<(), Error> {
    let there = Arc::clone(generations);
    blocking(move || there.show(number)).await?.map_err(|error| failed("shown", number, &error))
}

/// Marks a generation as too old.
///
/// # Errors
/// [`Kind::Internal`], with what the kernel said.
pub async fn mark(generations: &Arc<Generations>, number: u64) -> Result<(), Error> {
    let there = Arc::clone(generations);
    blocking(move || there.mark(number)).await?.map_err(|error| failed("marked", number, &error))
}

/// Takes the mark away.
///
/// # Errors
/// [`Kind::Internal`], with what the kernel said.
pub async fn unmark(generations: &Arc<Generations>, number: u64) -> Result<(), Error> {
    let there = Arc::clone(generations);
    blocking(move || there.unmark(number)).await?.map_err(|error| failed("unmarked", number, &error))
}

/// Removes a generation; nothing where there is none.
///
/// # Errors
/// [`Kind::Internal`], with what the kernel said.
pub async fn remove(generations: &Arc<Generations>, number: u64) -> Result<(), Error> {
    let there = Arc::clone(generations);
    blocking(move || there.remove(number)).await?.map_err(|error| failed("removed", number, &error))
}

/// The generation that is shown, and every one there is.
///
/// # Errors
/// [`Kind::Internal`], with what the kernel said.
pub async fn numbers(generations: &Arc<Generations>) -> Result<(Option<u64>, BTreeSet<u64>), Error> {
    let there = Arc::clone(generations);
    let read = move || Ok((there.shown()?, there.numbers()?));
    blocking(read).await?.map_err(|error: std::io::Error| failed("found", 0, &error))
}

fn failed(what: &str, number: u64, error: &std::io::Error) -> Error {
    Error::internal("the volume's files could not be changed")
        .with_detail(format!("generation {number} could not be {what}: {error}"))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal("a volume's files were left half-way").with_detail(error.to_string()))
}
