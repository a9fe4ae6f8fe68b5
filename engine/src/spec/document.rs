// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Documents, each one class: several to a YAML file, or one object of the Kubernetes API.

use std::fmt;

use crate::error::Error;
use crate::names::{BackendName, Namespace, VolumeClassName};
use crate::spec::section::{Field, Section};
use crate::spec::{BackendSpec, VolumeSpec, keys, read_backend, read_volume};
use crate::yaml::{self, Node, Value};

/// The version of the language.
pub const API_VERSION: &str = "evanesce.dev/v1alpha1";

/// One class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// A `SecretBackend`.
    Backend(BackendSpec),
    /// A `SecretVolume`.
    Volume {
        /// Its namespace.
        namespace: Namespace,
        /// Its name.
        name: VolumeClassName,
        /// What it says.
        spec: VolumeSpec,
    },
}

impl Document {
    /// Reads an object as the API server has it. Of `metadata` only `name` and `namespace` are looked at: the rest is the
    /// server's own, and its to judge.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid), in the words that a file with the same in it gets, with field and
    /// cure; without line and column, because there are none.
    pub fn from_object(object: &serde_json::Value) -> Result<Self, Error> {
        let mut node = Node::from_json(object);
        if let Value::Map(entries) = &mut node.value {
            let metadata = entries.iter_mut().filter(|entry| entry.key == "metadata");
            for entry in metadata {
                if let Value::Map(metadata) = &mut entry.value.value {
                    metadata.retain(|entry| matches!(entry.key.as_str(), "name" | "namespace"));
                }
            }
        }
        Section::read(&node, "", &keys::DOCUMENT, document)
    }

    /// Its kind and name.
    pub fn name(&self) -> ClassName {
        match self {
            Self::Backend(spec) => ClassName::Backend(spec.name.clone()),
            Self::Volume { namespace, name, .. } => ClassName::Volume(namespace.clone(), name.clone()),
        }
    }
}

/// A class's kind and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClassName {
    /// A `SecretBackend`.
    Backend(BackendName),
    /// A `SecretVolume`.
    Volume(Namespace, VolumeClassName),
}

impl fmt::Display for ClassName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backend(name) => write!(f, "SecretBackend {name}"),
            Self::Volume(namespace, name) => write!(f, "SecretVolume {namespace}/{name}"),
        }
    }
}

/// What became of one document.
#[derive(Debug)]
pub struct Reading {
    /// Which class it is, where that much could be read.
    pub name: Option<ClassName>,
    /// The line it begins in.
    pub line: u64,
    /// The class, or what is wrong with it.
    pub document: Result<Document, Error>,
}

/// The classes of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Documents(pub Vec<Document>);

impl Documents {
    /// Reads every document of `text`.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) for the first that is wrong, with line, column, field and cure.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::read(text)?.into_iter().map(|reading| reading.document).collect::<Result<_, _>>().map(Self)
    }

    /// Reads every document of `text`, each with its own result: one that is wrong takes no other with it.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) where the text is not YAML, so that nothing can be said of any.
    pub fn read(text: &str) -> Result<Vec<Reading>, Error> {
        let nodes = yaml::read(text).map_err(|error| Error::invalid(error.to_string()))?;
        let reading = |node: &Node| Reading {
            name: named(node),
            line: node.at.line,
            document: Section::read(node, "", &keys::DOCUMENT, document),
        };
        Ok(nodes.iter().map(reading).collect())
    }
}

fn document(document: &Section<'_>) -> Result<Document, Error> {
    let version = document.require("apiVersion")?;
    if version.text()? != API_VERSION {
        return Err(version.wrong(&format!("this release reads {API_VERSION}")));
    }
    let kind = document.require("kind")?;
    let metadata = document.require("metadata")?;
    match kind.text()? {
        "SecretBackend" => {
            let name = metadata.map(|metadata| {
                tolerate(metadata);
                if let Some(namespace) = metadata.get("namespace") {
                    return Err(namespace.wrong("a SecretBackend has no namespace: remove it"));
                }
                metadata.require("name")?.parse(BackendName::parse)
            })?;
            Ok(Document::Backend(read_backend::read(document.require("spec")?, name)?))
        }
        "SecretVolume" => {
            let (namespace, name) = metadata.map(|metadata| {
                tolerate(metadata);
                let namespace = metadata.require("namespace")?.parse(Namespace::parse)?;
                Ok((namespace, metadata.require("name")?.parse(VolumeClassName::parse)?))
            })?;
            Ok(Document::Volume { namespace, name, spec: read_volume::read(document.require("spec")?)? })
        }
        _ => Err(kind.wrong("expected SecretBackend or SecretVolume")),
    }
}

/// What other tools write on every object, and we do not read.
fn tolerate(metadata: &Section<'_>) {
    let _: [Option<&Field<'_>>; 2] = [metadata.get("labels"), metadata.get("annotations")];
}

/// The class that a document is about, whatever else is wrong with it: whoever looks for it should hear what is wrong
/// and not that there is none.
fn named(node: &Node) -> Option<ClassName> {
    fn value<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
        let Value::Map(entries) = &node.value else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }
    fn text<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
        if let Value::Text(text) = &value(node, key)?.value { Some(text) } else { None }
    }
    let metadata = value(node, "metadata")?;
    let name = text(metadata, "name")?;
    match text(node, "kind")? {
        "SecretBackend" => Some(ClassName::Backend(BackendName::parse(name).ok()?)),
        "SecretVolume" => {
            let namespace = Namespace::parse(text(metadata, "namespace")?).ok()?;
            Some(ClassName::Volume(namespace, VolumeClassName::parse(name).ok()?))
        }
        _ => None,
    }
}
