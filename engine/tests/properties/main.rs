// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What holds for every input and not for some examples.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod files;
mod patterns;
