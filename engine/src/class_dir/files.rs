// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The files of a folder of classes, and what each of them held when it last could be read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use crate::spec::{ClassName, Documents, Reading};
use crate::yaml;

/// Every file, by its name.
#[derive(Default)]
pub(super) struct Files(BTreeMap<String, Contents>);

/// What is known of one file.
pub(super) struct Contents {
    /// Its documents, or why there is nothing to say about any of them.
    pub(super) readings: Result<Vec<Reading>, String>,
    /// The classes that it held when its documents could last be told apart.
    pub(super) held: BTreeSet<ClassName>,
}

impl Files {
    /// Every file, in the order of their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Contents)> {
        self.0.iter().map(|(name, contents)| (name.as_str(), contents))
    }

    /// Reads the folder again.
    ///
    /// # Errors
    /// Where the folder itself cannot be read; then nothing changes.
    pub(super) fn read(&mut self, folder: &Path) -> io::Result<()> {
        let mut before = std::mem::take(&mut self.0);
        let listed: io::Result<Vec<_>> = fs::read_dir(folder).and_then(Iterator::collect);
        let listed = match listed {
            Ok(listed) => listed,
            Err(error) => {
                self.0 = before;
                return Err(error);
            }
        };
        for entry in listed {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !is_class_file(&name) {
                continue;
            }
            let readings = match text(&entry.path()) {
                Ok(text) => Documents::read(&text).map_err(|error| error.message().to_owned()),
                // Gone between the listing and now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => Err(error.to_string()),
            };
            let held = match &readings {
                Ok(readings) => readings.iter().filter_map(|reading| reading.name.clone()).collect(),
                Err(_) => before.remove(&name).map(|before| before.held).unwrap_or_default(),
            };
            self.0.insert(name, Contents { readings, held });
        }
        Ok(())
    }
}

/// Whether a file of this name is read: editors' files and kubelet's own begin with `.`.
pub fn is_class_file(name: &str) -> bool {
    !name.starts_with('.') && (name.ends_with(".yaml") || name.ends_with(".yml"))
}

/// The text of a file; links are followed, because that is what a mounted ConfigMap consists of.
fn text(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("is not a file"));
    }
    let mut text = String::new();
    File::open(path)?.take(yaml::LONGEST as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}
