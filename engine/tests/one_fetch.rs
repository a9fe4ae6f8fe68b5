// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! One fetch for each identity: who shares an answer, who does not, how long it lives, what a backend has to bear, and what is audited.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod one_fetch {
    pub(crate) mod audit;
    pub(crate) mod bounds;
    pub(crate) mod ground;
    pub(crate) mod identity;
    pub(crate) mod logins;
    pub(crate) mod protection;
    pub(crate) mod sharing;
}
