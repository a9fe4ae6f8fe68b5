// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What users write: `SecretBackend` and `SecretVolume`, parsed at the border.
//!
//! One language, whichever door it comes through: a file, later a custom resource or the sidecar's own file. Unknown
//! keys are errors that name the line and the nearest known key; keys of a later release are refused by name.
//!
//! [`document`] reads a file, [`backend`] and [`volume`] hold what comes out; [`keys`] is every key there is, and
//! `section` reads a map against it, so that what is documented, what is accepted and what is used are one list.
//! [`settings`] lends that reader to a program whose own file is to be as strict.

pub mod backend;
pub mod crd;
pub mod document;
pub mod form;
pub mod keys;
mod read_backend;
mod read_volume;
pub mod reference;
pub mod rules;
mod section;
pub mod settings;
mod values;
pub mod volume;

pub use backend::BackendSpec;
pub use document::{ClassName, Document, Documents, Reading};
pub use volume::VolumeSpec;
