// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Which class is where: from files to the answers of lookups. Pure.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;

use crate::class_dir::Counts;
use crate::class_dir::files::Files;
use crate::class_source::{Class, Lookup};
use crate::names::{BackendName, Namespace, VolumeClassName};
use crate::spec::{BackendSpec, ClassName, Document, VolumeSpec};

/// Every class, and everything that is wrong.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Index {
    classes: BTreeMap<ClassName, Entry>,
    /// Files with something in them whose name nobody knows: what is looked for in vain might be there.
    unread: Vec<String>,
    problems: Vec<String>,
}

#[derive(PartialEq, Eq)]
enum Entry {
    Backend(Arc<BackendSpec>),
    Broken(String),
    Volume(Arc<VolumeSpec>),
}

impl Index {
    pub(super) fn new(files: &Files) -> Self {
        let mut index = Self::default();
        let mut places: BTreeMap<ClassName, String> = BTreeMap::new();
        for (file, contents) in files.iter() {
            let readings = match &contents.readings {
                Ok(readings) => readings,
                Err(problem) => {
                    let problem = format!("{file}: {problem}");
                    for name in &contents.held {
                        index.add(name.clone(), Entry::Broken(problem.clone()), file.to_owned(), &mut places);
                    }
                    index.unread.push(file.to_owned());
                    index.problems.push(problem);
                    continue;
                }
            };
            for reading in readings {
                let entry = match &reading.document {
                    Ok(Document::Backend(spec)) => Entry::Backend(Arc::new(spec.clone())),
                    Ok(Document::Volume { spec, .. }) => Entry::Volume(Arc::new(spec.clone())),
                    Err(error) => {
                        let problem = format!("{file}: {error}");
                        index.problems.push(problem.clone());
                        Entry::Broken(problem)
                    }
                };
                match &reading.name {
                    Some(name) => {
                        let place = format!("{file} (line {})", reading.line);
                        index.add(name.clone(), entry, place, &mut places);
                    }
                    None => index.unread.push(file.to_owned()),
                }
            }
        }
        index.unread.dedup();
        index
    }

    /// Adds a class; a name that is taken belongs to nobody, because which one is meant depends on the files' names.
    fn add(&mut self, name: ClassName, entry: Entry, place: String, places: &mut BTreeMap<ClassName, String>) {
        let Some(first) = places.get(&name) else {
            places.insert(name.clone(), place);
            self.classes.insert(name, entry);
            return;
        };
        let problem = format!("{name} is defined in {first} and in {place}: remove one");
        self.problems.push(problem.clone());
        self.classes.insert(name, Entry::Broken(problem));
    }

    pub(super) fn backend(&self, name: &BackendName) -> Lookup<BackendSpec> {
        match self.classes.get(&ClassName::Backend(name.clone())) {
            Some(Entry::Backend(spec)) => found(spec),
            other => self.not_found(other),
        }
    }

    pub(super) fn volume(&self, namespace: &Namespace, name: &VolumeClassName) -> Lookup<VolumeSpec> {
        match self.classes.get(&ClassName::Volume(namespace.clone(), name.clone())) {
            Some(Entry::Volume(spec)) => found(spec),
            other => self.not_found(other),
        }
    }

    /// The hint names files only: what is wrong in them may be another tenant's, and is in the log.
    fn not_found<T>(&self, entry: Option<&Entry>) -> Lookup<T> {
        match entry {
            Some(Entry::Broken(problem)) => Lookup::Broken(problem.clone()),
            _ if self.unread.is_empty() => Lookup::Absent(None),
            _ => Lookup::Absent(Some(format!(
                "it may be in {}, which cannot be read: the log of the node plugin says why",
                self.unread.join(" or in ")
            ))),
        }
    }

    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    pub(super) fn counts(&self) -> Counts {
        let count = |of: fn(&Entry) -> bool| self.classes.values().filter(|entry| of(entry)).count();
        Counts {
            backends: count(|entry| matches!(entry, Entry::Backend(_))),
            volumes: count(|entry| matches!(entry, Entry::Volume(_))),
            problems: self.problems.len(),
        }
    }
}

fn found<T: Hash>(spec: &Arc<T>) -> Lookup<T> {
    Lookup::Found(Class::new(Arc::clone(spec)))
}
