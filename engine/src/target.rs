// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Where a projection becomes what readers see: a program brings the place.

use async_trait::async_trait;

use crate::deliver::Before;
use crate::error::Error;
use crate::projection::Projection;
use crate::spec::VolumeSpec;

/// A place for one volume's files.
#[async_trait]
pub trait Target: Send + Sync {
    /// Makes `projection`, rendered from `spec`, what readers see: whole, in one step, or not at all. `shows` is what there
    /// is to remember of it.
    ///
    /// # Errors
    /// What readers saw before stays.
    async fn place(&self, spec: &VolumeSpec, projection: Projection, shows: &Before) -> Result<Placed, Error>;
}

/// What a target did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The number of the generation that is shown now.
    pub generation: u64,
    /// The options of the mount it is shown through; empty for a target that is no mount.
    pub options: Vec<String>,
}
