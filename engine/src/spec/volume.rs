// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `SecretVolume`: what a pod sees.

use std::time::Duration;

use crate::projection::{FilePath, Mode};
use crate::secret_ref::SecretRef;

/// A parsed `SecretVolume`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VolumeSpec {
    /// When to ask again.
    pub refresh: Refresh,
    /// How long the previous generation stays after a swap.
    pub keep_previous: Duration,
    /// How long what was lent stays valid after something else took its place; never less than `keep_previous`.
    pub overlap: Duration,
    /// Who shares what is lent.
    pub lease_scope: LeaseScope,
    /// What becomes of files that the backends could not confirm for long; nothing where absent.
    pub max_stale: Option<MaxStale>,
    /// Size of the tmpfs in bytes; where absent it starts at 1 MiB and grows with what has to fit.
    pub size: Option<u64>,
    /// What to show.
    pub files: Vec<FileSpec>,
}

impl VolumeSpec {
    /// How long the previous generation stays where the class does not say.
    pub const DEFAULT_KEEP_PREVIOUS: Duration = Duration::from_secs(10);
    /// How long what was lent stays valid after a swap where the class does not say.
    pub const DEFAULT_OVERLAP: Duration = Duration::from_secs(30);

    /// What is asked for its files.
    pub fn references(&self) -> impl Iterator<Item = &SecretRef> {
        self.files.iter().flat_map(FileSpec::references).map(|(_, reference)| reference)
    }
}

/// Who shares what is lent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LeaseScope {
    /// Each volume has its own.
    #[default]
    Volume,
    /// The volumes of a service account on a node have one for each path that they ask.
    ServiceAccount,
}

impl LeaseScope {
    /// What a class says for each.
    pub const WORDS: &[&str] = &["volume", "serviceAccount"];

    /// As a class says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Volume => "volume",
            Self::ServiceAccount => "serviceAccount",
        }
    }
}

/// How old files may be that the backends cannot confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MaxStale {
    /// So old.
    pub after: Duration,
    /// What becomes of older ones.
    pub then: OnStale,
}

/// What becomes of files that are too old, until a refresh succeeds. The later ones hold what the earlier ones do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OnStale {
    /// A mark appears beside them.
    Mark,
    /// They go, and the mark stays alone.
    Remove,
}

impl OnStale {
    /// What a class says for each.
    pub const WORDS: &[&str] = &["mark", "remove"];

    /// As a class says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mark => "mark",
            Self::Remove => "remove",
        }
    }
}

/// When to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Refresh {
    /// How often.
    pub every: Duration,
    /// Spread of `every` to each side, in percent (0–50).
    pub jitter_percent: u8,
}

impl Default for Refresh {
    fn default() -> Self {
        Self { every: Duration::from_secs(300), jitter_percent: 10 }
    }
}

/// One entry of `files`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileSpec {
    /// The file, or with `allKeys` the folder of files.
    pub path: FilePath,
    /// Where the value comes from.
    pub from: SecretRef,
    /// Which part of the secret.
    pub select: Select,
    /// Permission bits; the volume's default where absent.
    pub mode: Option<Mode>,
    /// Owner; root where absent.
    pub uid: Option<u32>,
    /// Group; the pod's fsGroup, or root, where absent.
    pub gid: Option<u32>,
}

impl FileSpec {
    /// What is asked for it, with the key of the class that says so.
    pub fn references(&self) -> impl Iterator<Item = (&'static str, &SecretRef)> {
        let password = match &self.select {
            Select::Whole(Format::Pkcs12 { password: Some(password) }) => Some(("passwordFrom", &password.from)),
            _ => None,
        };
        [("from", &self.from)].into_iter().chain(password)
    }
}

/// Which part of a secret a file holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Select {
    /// `allKeys: true`: one file for each key, below the path.
    EachKey,
    /// `key: NAME`: that value as it is.
    Key(String),
    /// Neither: the whole secret in one file.
    Whole(Format),
}

/// How one file holds a whole secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Lines `KEY='value'`.
    Dotenv,
    /// One JSON object.
    Json,
    /// A certificate, those that lead to its authority, and its private key.
    PemBundle,
    /// The same as a key store.
    Pkcs12 {
        /// Its password; a fixed one where absent.
        password: Option<Password>,
    },
}

impl Format {
    /// What a class says for each.
    pub const WORDS: &[&str] = &["dotenv", "json", "pem-bundle", "pkcs12"];

    /// As a class says it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Dotenv => "dotenv",
            Self::Json => "json",
            Self::PemBundle => "pem-bundle",
            Self::Pkcs12 { .. } => "pkcs12",
        }
    }
}

/// Where a password is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Password {
    /// Which secret.
    pub from: SecretRef,
    /// Which key of it.
    pub key: String,
}
