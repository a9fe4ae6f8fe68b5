// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The CSI node plugin: one file, three processes. The *warden* is root and mounts, the *launcher* starts programs, the
//! *engine half* has no privilege and does everything else.

pub mod protocol;
