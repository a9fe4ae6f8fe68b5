// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The CSI node plugin: one file, three processes. The *warden* is root and mounts, the *launcher* starts programs, the
//! *engine half* has no privilege and does everything else.
//!
//! A program that embeds the plugin begins its `main` with
//! `if let Some(role) = Role::of_this_process() { return role.run() }`, for the plugin starts its own file again.

pub mod args;
pub mod confine;
pub mod engine_half;
pub mod kubernetes;
pub mod launcher;
pub mod mount;
pub mod private_root;
pub mod protocol;
pub mod role;
pub mod warden;

pub use role::Role;
