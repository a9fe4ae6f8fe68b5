// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Short ways to write a [`WardenError`].

use std::fmt::Display;

use rustix::io::Errno;

use crate::protocol::{ErrorKind, WardenError};

pub(super) fn invalid(message: impl Into<String>) -> WardenError {
    WardenError { kind: ErrorKind::Invalid, message: message.into() }
}

pub(super) fn busy(message: impl Into<String>) -> WardenError {
    WardenError { kind: ErrorKind::Busy, message: message.into() }
}

pub(super) fn not_found(message: impl Into<String>) -> WardenError {
    WardenError { kind: ErrorKind::NotFound, message: message.into() }
}

pub(super) fn no_space(message: impl Into<String>) -> WardenError {
    WardenError { kind: ErrorKind::NoSpace, message: message.into() }
}

pub(super) fn internal(message: impl Into<String>) -> WardenError {
    WardenError { kind: ErrorKind::Internal, message: message.into() }
}

/// A system call that failed while `doing` something.
pub(super) fn failed(doing: impl Display) -> impl FnOnce(std::io::Error) -> WardenError {
    move |error| {
        let message = format!("{doing}: {error}");
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => no_space(message),
            Some(Errno::NOSYS | Errno::OPNOTSUPP) => WardenError { kind: ErrorKind::Unsupported, message },
            Some(Errno::BUSY) => busy(message),
            _ => internal(message),
        }
    }
}
