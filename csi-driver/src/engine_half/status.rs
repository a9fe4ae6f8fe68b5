// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Errors become gRPC codes, in one table.
//!
//! Kubelet keeps a volume's directory and tries again after `CANCELLED`, `DEADLINE_EXCEEDED`, `UNAVAILABLE`,
//! `RESOURCE_EXHAUSTED` and `ABORTED`; any other code is final to it: it removes the directory and starts over. What mends
//! itself gets one of the former. `status.details` stays empty, as the CSI specification demands.

use evanesce_engine::error::{Error, Kind};
use tonic::{Code, Status};

/// The code for a kind of failure.
pub fn code(kind: Kind) -> Code {
    match kind {
        Kind::Busy => Code::Aborted,
        Kind::Cancelled | Kind::Malformed | Kind::NotReady | Kind::Throttled | Kind::Unavailable => Code::Unavailable,
        Kind::Conflict => Code::AlreadyExists,
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::Internal => Code::Internal,
        Kind::Invalid => Code::InvalidArgument,
        Kind::Missing => Code::NotFound,
        Kind::Refused => Code::PermissionDenied,
        Kind::TimedOut => Code::DeadlineExceeded,
        Kind::Unauthenticated => Code::Unauthenticated,
    }
}

/// Whether kubelet takes the code for a volume that is certainly not mounted (`pkg/volume/csi`, `isFinalError`).
pub fn is_final(code: Code) -> bool {
    !matches!(
        code,
        Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable | Code::ResourceExhausted | Code::Aborted
    )
}

/// What kubelet hears: the code and the tenant's message. The operator's detail stays in the log.
pub fn status(error: &Error) -> Status {
    Status::new(code(error.kind()), error.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mends_itself_is_not_final_to_kubelet() {
        let mends = |kind| {
            use Kind::*;
            matches!(kind, Busy | Cancelled | Exhausted | Malformed | NotReady | Throttled | TimedOut | Unavailable)
        };
        for kind in Kind::ALL {
            assert_eq!(!is_final(code(kind)), mends(kind), "{}", kind.as_str());
        }
    }
}
