// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The journal of lease groups: what the next engine half needs to end the logins that this one began.
//!
//! One file for each group, on the node's disk. The engine half has sealed what is in it; here it is bytes. That the disk
//! has them when power fails is not waited for: the key is gone then, and this thread serves every mount of the node
//! (decision 0024).

use std::collections::BTreeSet;
use std::io;
use std::ops::Bound;
use std::path::Path;

use evanesce_engine::crash_point;

use super::failure::{failed, invalid, no_space};
use super::folder::{Folder, FolderError};
use crate::protocol::{LeaseGroupId, MAX_RECORD, WardenError};

/// The most entries; more logins than that, one node does not have.
const MAX_ENTRIES: usize = 4096;

const SUFFIX: &str = ".lease";

/// All entries.
#[derive(Debug)]
pub struct Journal {
    folder: Folder,
    groups: BTreeSet<LeaseGroupId>,
}

impl Journal {
    /// Opens the directory, made with mode 0700 if there was none, and reads which entries there are. What is half-written
    /// is removed, what is none is left alone.
    ///
    /// # Errors
    /// When it cannot be made or read, is a link, or belongs to somebody else.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let folder = Folder::open("--journal-dir", path)?;
        let names = folder.names()?;
        let groups = names.iter().filter_map(|name| name.strip_suffix(SUFFIX)?.parse().ok()).collect();
        Ok(Self { folder, groups })
    }

    /// Keeps an entry, in place of the group's earlier one.
    ///
    /// # Errors
    /// `Invalid` when it is too long; `NoSpace` where there are too many, or the disk is full. The earlier one then stays.
    pub fn put(&mut self, group: LeaseGroupId, entry: &[u8]) -> Result<(), WardenError> {
        if entry.len() > MAX_RECORD {
            return Err(invalid(format!("lease group {group}: its entry is longer than {MAX_RECORD} bytes")));
        }
        if self.groups.len() >= MAX_ENTRIES && !self.groups.contains(&group) {
            return Err(no_space(format!("the journal of lease groups is full: {MAX_ENTRIES} have not ended")));
        }
        let name = file_name(&group);
        self.folder.write(&name, entry).map_err(failed("writing a lease group's entry"))?;
        crash_point!("lease:written");
        self.folder.show(&name).map_err(failed("keeping a lease group's entry"))?;
        crash_point!("lease:renamed");
        self.groups.insert(group);
        Ok(())
    }

    /// Forgets an entry. Done twice, it is done.
    ///
    /// # Errors
    /// `Internal` when the file cannot be removed.
    pub fn drop_entry(&mut self, group: &LeaseGroupId) -> Result<(), WardenError> {
        self.folder.remove(&file_name(group)).map_err(failed("removing a lease group's entry"))?;
        crash_point!("lease:removed");
        self.groups.remove(group);
        Ok(())
    }

    /// The first entry whose group sorts after the given one. One that cannot be read is passed over and left alone.
    #[must_use]
    pub fn next(&self, after: Option<&LeaseGroupId>) -> Option<(LeaseGroupId, Vec<u8>)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut groups = self.groups.range::<LeaseGroupId, _>((from, Bound::Unbounded));
        groups.find_map(|group| match self.read(group) {
            Ok(entry) => Some((group.clone(), entry)),
            Err(error) => {
                tracing::warn!(%group, %error, "a lease group's entry was changed by somebody else and is left alone");
                None
            }
        })
    }

    fn read(&self, group: &LeaseGroupId) -> io::Result<Vec<u8>> {
        let entry = self.folder.read(&file_name(group), MAX_RECORD as u64 + 1)?;
        if entry.len() > MAX_RECORD { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(entry) }
    }
}

fn file_name(group: &LeaseGroupId) -> String {
    format!("{group}{SUFFIX}")
}
