// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Wire types: what kubelet and the node's operator say to the node plugin, and what it answers.
//!
//! [`csi`] is the Container Storage Interface 1.13.0 (with the `VolumeCondition` of 1.12), [`registration`] is how a plugin
//! introduces itself to kubelet, [`node`] is our own. All are generated from the schema in `proto/` and committed (a test
//! keeps them in step), so that a build needs no code generator. [`kubelet`] knows what kubelet puts into the free-form
//! fields of the first.
//!
//! A message that may carry a token or a secret has a `Debug` that shows neither. There is no logic here: this crate
//! opens no socket and judges no request.

#[expect(clippy::allow_attributes_without_reason, missing_docs, unused_qualifications, reason = "generated")]
#[path = "gen/csi.v1.rs"]
#[rustfmt::skip]
pub mod csi;

#[expect(clippy::allow_attributes_without_reason, missing_docs, unused_qualifications, reason = "generated")]
#[path = "gen/pluginregistration.rs"]
#[rustfmt::skip]
pub mod registration;

#[expect(clippy::allow_attributes_without_reason, missing_docs, unused_qualifications, reason = "generated")]
#[path = "gen/evanesce.node.v1.rs"]
#[rustfmt::skip]
pub mod node;

pub mod kubelet;

#[cfg(feature = "testing")]
pub mod raw;

mod redact;
