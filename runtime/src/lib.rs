// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A daemon's plumbing, without the domain: what any careful Linux daemon that holds secrets needs around its work.
//!
//! This crate knows no secret store, no kubelet and no wire format; every program of Evanesce uses it, and it uses none.
//!
//! **Memory.** [`alloc`] is the global allocator that wipes each block before it goes back to the heap, so that the
//! copies made by libraries we do not control die too. [`arena`] is for the few values that must live on: pages that
//! not even root may read through `/proc`.
//!
//! **The process.** [`harden`] gives up core dumps, capabilities and a life beyond the parent's; [`seccomp`] the system
//! calls that each half goes without, [`landlock`] the ports. All belong at the very start of `main`, before any thread.
//!
//! **Saying what happens.** [`telemetry`] sets up logs and keeps libraries from printing what they are handed;
//! [`metrics`] has every metric declared once, with labels whose values are known; [`ready`] names what start-up still
//! waits for; [`http`] serves the answers.

pub mod alloc;
pub mod arena;
pub mod harden;
pub mod http;
pub mod landlock;
pub mod metrics;
pub mod ready;
pub mod seccomp;
pub mod telemetry;
