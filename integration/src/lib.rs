// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The integration harness: everything that stands around the node plugin, and nothing that is
//! inside it.
//!
//! Tests here start the **built** `evanesce-csi` and look at it from outside: over its sockets, in
//! the mount table, in `/proc`. The servers are real where a real one exists ([`openbao`], [`postgres`]), and
//! small stand-ins where it does not ([`moto`], [`token_review`], [`kubelet`], [`recorder`], [`gate`]). [`world`] puts
//! them together with one call.
//!
//! The tests need root, for mounts. A test that lacks something fails and says what to install;
//! none passes by skipping.

pub mod authority;
pub mod binaries;
pub mod cgroup;
pub mod chance;
pub mod child;
pub mod counts;
pub mod gate;
pub mod helm;
pub mod kubelet;
pub mod many;
pub mod memory;
pub mod moto;
pub mod mounts;
pub mod openbao;
pub mod outage;
pub mod plugin;
mod ports;
pub mod postgres;
pub mod processes;
pub mod recorder;
pub mod scratch;
pub mod sight;
pub mod slow_link;
pub mod tap;
pub mod token_review;
pub mod wait;
mod wheel;
pub mod world;
