// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Credentials that are made for a pod, in a real PostgreSQL: always one that logs in, and none left behind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ground;
mod kills;
mod listing;
mod logins;
mod memory;
mod oddities;
