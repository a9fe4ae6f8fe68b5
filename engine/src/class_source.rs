// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Where classes come from, and the difference between "there is none" and "not known yet".

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::Arc;

use tokio::sync::watch;

use crate::error::Error;
use crate::names::{BackendName, Namespace, VolumeClassName};
use crate::spec::{BackendSpec, VolumeSpec};

/// A source of classes. Looking up never waits and never fails for a reason of transport: a source answers from what
/// it knows. One that only learns what it is asked for begins to with the first question, in the runtime of whoever asks.
pub trait ClassSource: Send + Sync {
    /// The `SecretBackend` of this name.
    fn backend(&self, name: &BackendName) -> Lookup<BackendSpec>;

    /// The `SecretVolume` of this name in `namespace`.
    fn volume(&self, namespace: &Namespace, name: &VolumeClassName) -> Lookup<VolumeSpec>;

    /// Changes whenever a class may have; the value only grows.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// What a source knows about one class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup<T> {
    /// It exists.
    Found(Class<T>),
    /// It does not exist, with a hint where the source has one (a file that does not parse might have held it).
    Absent(Option<String>),
    /// It exists and cannot be read; what is wrong with it.
    Broken(String),
    /// The source has not seen it yet; what it waits for.
    NotKnownYet(String),
}

impl<T> Lookup<T> {
    /// The class, or why there is none, in words for whoever asked for `name`.
    ///
    /// # Errors
    /// [`Kind::Missing`](crate::error::Kind::Missing), [`Kind::Invalid`](crate::error::Kind::Invalid) or, while classes
    /// load, [`Kind::NotReady`](crate::error::Kind::NotReady).
    pub fn found(self, name: &str) -> Result<Class<T>, Error> {
        match self {
            Self::Found(class) => Ok(class),
            Self::Absent(hint) => {
                let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
                Err(Error::missing(format!("{name} does not exist{hint}: create it or correct the name")))
            }
            Self::Broken(why) => Err(Error::invalid(format!("{name} cannot be used: {why}"))),
            Self::NotKnownYet(why) => Err(Error::not_ready(format!("{name} is not known yet: {why}"))),
        }
    }
}

/// A class as a source has it.
#[derive(Debug)]
pub struct Class<T> {
    /// What it says.
    pub spec: Arc<T>,
    /// Differs whenever the spec does; equal for equal specs within one run.
    pub revision: u64,
}

impl<T> PartialEq for Class<T> {
    fn eq(&self, other: &Self) -> bool {
        self.revision == other.revision
    }
}

impl<T> Eq for Class<T> {}

impl<T: Hash> Class<T> {
    /// The class that says `spec`. The revision is a hash of it, and not of its text: a comment is no change.
    pub fn new(spec: Arc<T>) -> Self {
        let mut hasher = DefaultHasher::new();
        spec.hash(&mut hasher);
        Self { spec, revision: hasher.finish() }
    }
}

impl<T> Clone for Class<T> {
    fn clone(&self) -> Self {
        Self { spec: Arc::clone(&self.spec), revision: self.revision }
    }
}
