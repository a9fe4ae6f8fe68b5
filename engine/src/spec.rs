// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What users write: `SecretBackend` and `SecretVolume`, parsed at the border.
//!
//! One language, whichever door it comes through: a file, later a custom resource or the sidecar's own file. Unknown
//! keys are errors that name the line and the nearest known key; keys of a later release are refused by name.

pub mod backend;
pub mod document;
pub mod volume;

pub use backend::BackendSpec;
pub use document::{Document, Documents};
pub use volume::VolumeSpec;
