// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What was read, and what was found wrong with it.

use std::collections::BTreeMap;

use evanesce_engine::spec::{ClassName, Document, Documents};
use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// The node plugin will not use the class.
    Error,
    /// It may not do what is meant.
    Warning,
    /// Worth knowing.
    Note,
}

/// One finding.
#[derive(Serialize)]
pub(super) struct Problem {
    pub(super) level: Level,
    /// Which class, as its place in [`Findings::classes`]; absent for a file as a whole.
    #[serde(skip)]
    pub(super) class: Option<usize>,
    pub(super) file: String,
    #[serde(rename = "class")]
    pub(super) name: Option<String>,
    pub(super) message: String,
}

/// One document.
pub(super) struct Class {
    pub(super) file: String,
    pub(super) line: u64,
    pub(super) name: Option<ClassName>,
    /// The class; absent where it could not be read.
    pub(super) document: Option<Document>,
}

impl Class {
    /// How to call it.
    pub(super) fn title(&self) -> String {
        self.name.as_ref().map_or_else(|| "a document without kind and name".to_owned(), ClassName::to_string)
    }
}

/// Everything that was read and found.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) files: Vec<String>,
    pub(super) classes: Vec<Class>,
    pub(super) problems: Vec<Problem>,
}

impl Findings {
    /// Reads a file's documents.
    pub(super) fn read(&mut self, file: &str, text: &[u8]) {
        self.files.push(file.to_owned());
        let Ok(text) = std::str::from_utf8(text) else {
            return self.add_to_file(Level::Error, file, "is not text in UTF-8");
        };
        let readings = match Documents::read(text) {
            Ok(readings) => readings,
            Err(error) => return self.add_to_file(Level::Error, file, error.message()),
        };
        if readings.is_empty() {
            self.add_to_file(Level::Warning, file, "holds no class");
        }
        for reading in readings {
            let index = self.classes.len();
            let (document, error) = match reading.document {
                Ok(document) => (Some(document), None),
                Err(error) => (None, Some(error)),
            };
            self.classes.push(Class { file: file.to_owned(), line: reading.line, name: reading.name, document });
            if let Some(error) = error {
                self.add(Level::Error, index, error.message());
            }
        }
    }

    /// A name that is defined twice belongs to neither.
    pub(super) fn check_names(&mut self) {
        let mut first: BTreeMap<&ClassName, &Class> = BTreeMap::new();
        let mut twice = Vec::new();
        for (index, class) in self.classes.iter().enumerate() {
            let Some(name) = &class.name else { continue };
            match first.get(name) {
                Some(Class { file, line, .. }) => {
                    twice.push((index, format!("is also defined in {file}, line {line}")))
                }
                None => {
                    first.insert(name, class);
                }
            }
        }
        for (index, message) in twice {
            self.add(Level::Error, index, &message);
        }
    }

    /// Adds a finding about a class.
    pub(super) fn add(&mut self, level: Level, class: usize, message: &str) {
        let Some(Class { file, .. }) = self.classes.get(class) else { return };
        let file = file.clone();
        let name = self.classes.get(class).and_then(|class| class.name.as_ref()).map(ClassName::to_string);
        self.problems.push(Problem { level, class: Some(class), file, name, message: message.to_owned() });
    }

    fn add_to_file(&mut self, level: Level, file: &str, message: &str) {
        let (file, message) = (file.to_owned(), message.to_owned());
        self.problems.push(Problem { level, class: None, file, name: None, message });
    }

    /// How many findings of a level.
    pub(super) fn count(&self, level: Level) -> usize {
        self.problems.iter().filter(|problem| problem.level == level).count()
    }

    /// Whether nothing is wrong.
    pub(super) fn ok(&self) -> bool {
        self.count(Level::Error) == 0
    }
}
