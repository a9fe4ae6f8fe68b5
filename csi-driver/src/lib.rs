// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The CSI node plugin: one file, three processes. The *warden* is root and mounts, the *launcher* starts programs, the
//! *engine half* has no privilege and does everything else.
//!
//! A program that embeds the plugin begins its `main` with
//! `if let Some(role) = Role::of_this_process() { return role.run() }`, for the plugin starts its own file again.

pub mod adoption;
pub mod args;
pub mod budget;
pub mod confine;
pub mod engine_half;
pub mod keeping;
pub mod launcher;
pub mod metrics;
pub mod mount;
pub mod mounts;
pub mod plugin;
pub mod probe;
pub mod protocol;
pub mod publish_request;
pub mod record;
pub mod refresher;
pub mod role;
pub mod server;
pub mod service;
pub mod status;
pub mod tmpfs_target;
pub mod volume;
pub mod volumes;
pub mod warden;
pub mod warden_client;

#[cfg(test)]
mod testing;

pub use role::Role;
