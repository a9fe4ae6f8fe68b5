// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The domain of Evanesce: from a workload's request to a complete set of files, audited.
//!
//! It knows no gRPC server, no kubelet, no Kubernetes API and no mount(2); programs bring those.
//!
//! # The straight line
//! [`deliver`] calls, in order: [`policy`] (workload and reference → [`policy::Grant`]), a [`backend`]
//! (grant → [`secret::Secret`]), [`render`] (secrets and spec → [`projection::Projection`]), and the program's
//! [`target::Target`], which makes the projection what readers see in one step. [`audit`] records how it ended.
//!
//! # The rooms
//! - Nouns: [`names`], [`workload`], [`token`], [`secret`], [`secret_ref`], [`spec`], [`projection`], [`error`], [`clock`].
//! - One verb each: [`policy`], [`backend`], [`render`], [`audit`], [`keep`], [`sealing`], [`credentials`], [`class_source`] ([`class_dir`]), [`folder_watch`].
//! - Verbs with a place: [`fetch`] (many questions), [`generation`] (the swap), [`schedule`] (deadlines).
//! - The sentence: [`deliver`].

pub mod audit;
pub mod backend;
pub mod class_dir;
pub mod class_source;
pub mod clock;
pub mod crash;
pub mod credentials;
pub mod deliver;
pub mod error;
pub mod fetch;
pub mod folder_watch;
pub mod generation;
pub mod keep;
pub mod lease;
pub mod names;
pub mod policy;
pub mod projection;
pub mod proxy;
pub mod reach;
pub mod render;
pub mod schedule;
pub mod sealing;
pub mod secret;
pub mod secret_ref;
pub mod spec;
pub mod target;
pub mod token;
pub mod workload;
mod yaml;
