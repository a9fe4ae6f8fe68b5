// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What each way of AWS's of not answering means.
//!
//! Messages are for the operator: server, question, status, AWS's code and the cure. What AWS wrote beside the code is looked at
//! where one code means several things, and never passed on.

use std::error::Error as _;
use std::time::{Duration, SystemTime};

use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::backend::{BackendError, BackendErrorKind, retry_after};

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// `AssumeRoleWithWebIdentity`.
    Login,
    /// `DescribeSecret` or `GetSecretValue`.
    Read,
}

/// An answer that is not the one hoped for.
pub(super) struct Refusal<'a> {
    /// Status.
    pub(super) status: u16,
    /// AWS's code; empty where there is none.
    pub(super) code: &'a str,
    /// AWS's words.
    pub(super) words: &'a str,
    /// When AWS wants to be asked again.
    pub(super) retry_after: Option<Duration>,
}

impl Refusal<'_> {
    /// The error; `what` was asked of `server`.
    pub(super) fn error(&self, doing: Doing, server: &str, what: &str) -> BackendError {
        let (kind, cure) = self.meaning(doing);
        // A code goes into the log: nothing but what a code looks like.
        let plain = (1..=64).contains(&self.code.len()) && self.code.bytes().all(|it| it.is_ascii_alphanumeric());
        let code = if plain { self.code } else { "no code" };
        let message = format!("{server} answered {} ({code}) to {what}: {cure}", self.status);
        BackendError { kind, message, retry_after: self.retry_after }
    }

    fn meaning(&self, doing: Doing) -> (BackendErrorKind, &'static str) {
        use BackendErrorKind as Kind;
        let says = |word: &str| self.words.contains(word);
        match (self.code.trim_end_matches("Exception"), doing) {
            (
                "Throttling" | "Throttled" | "TooManyRequests" | "RequestLimitExceeded" | "SlowDown" | "LimitExceeded",
                _,
            ) => {
                (Kind::Throttled, "it asks for fewer requests: refresh less often, or have the account's quota raised")
            }
            ("RegionDisabled", _) => {
                (Kind::Unavailable, "STS is switched off in this region: switch it on in the account's settings")
            }
            ("IDPCommunicationError", Doing::Login) => (
                Kind::Unavailable,
                "AWS could not reach the cluster's OIDC issuer to check the token: it has to be public",
            ),
            ("InvalidIdentityToken", Doing::Login) => (
                Kind::Unauthenticated,
                "it does not accept the pod's token: the account needs an IAM OIDC provider of the cluster's issuer, with the audience of spec.aws.auth.webIdentity",
            ),
            ("ExpiredToken", Doing::Login) => {
                (Kind::Unauthenticated, "the pod's token has expired: kubelet brings a new one within two minutes")
            }
            ("AccessDenied" | "IDPRejectedClaim", Doing::Login) => (
                Kind::Unauthenticated,
                "the role's trust policy does not let this service account assume it: look at the role's ARN and at the `sub` and `aud` conditions of its trust policy",
            ),
            (_, Doing::Login) if (400..=499).contains(&self.status) => {
                (Kind::Unauthenticated, "the login is not accepted: look at spec.aws.auth.webIdentity")
            }
            (
                "ExpiredToken"
                | "InvalidClientTokenId"
                | "UnrecognizedClient"
                | "InvalidSignature"
                | "SignatureDoesNotMatch"
                | "IncompleteSignature"
                | "RequestExpired",
                Doing::Read,
            ) => (
                Kind::Unauthenticated,
                "the temporary credentials are not accepted: set the node's clock, and look whether endpoint and stsEndpoint are of one region and partition",
            ),
            ("AccessDenied", Doing::Read) if says("KMS") => (
                Kind::Denied,
                "the role may not use the secret's KMS key: allow kms:Decrypt, in the role and in the key's policy",
            ),
            ("AccessDenied", Doing::Read) => (
                Kind::Denied,
                "no policy of the role, or of the secret, allows it: allow secretsmanager:GetSecretValue and, for the cheap check, secretsmanager:DescribeSecret",
            ),
            ("DecryptionFailure", Doing::Read) => (
                Kind::Denied,
                "the secret's KMS key cannot decrypt it: look whether the key is enabled, and at its policy",
            ),
            ("ResourceNotFound", Doing::Read) if says("staging label") || says("VersionId") => (
                Kind::NotFound,
                "the secret has no version with this stage or id: look at args, and whether a first rotation has ended",
            ),
            ("ResourceNotFound", Doing::Read) => (
                Kind::NotFound,
                "there is no such secret in this account and region: a secret of another account is asked for by its ARN",
            ),
            ("InvalidRequest", Doing::Read) if says("delet") => {
                (Kind::NotFound, "the secret is marked for deletion: restore it, or ask for another")
            }
            ("InvalidRequest" | "InvalidParameter" | "Validation", Doing::Read) => (
                Kind::Denied,
                "it does not accept the question: compare args.versionId and args.versionStage with the versions that the secret has",
            ),
            _ if self.status >= 500 || (300..=399).contains(&self.status) => {
                (Kind::Unavailable, "it cannot answer now: look at the health of AWS in this region")
            }
            _ => (
                Kind::Malformed,
                "AWS does not answer so: look at spec.aws.endpoint and spec.aws.stsEndpoint, and what stands before them",
            ),
        }
    }
}

/// What the SDK made of a failure. Neither its words nor its tree are passed on: both may hold what was answered.
pub(super) fn of_sdk<E: ProvideErrorMetadata>(
    server: &str,
    what: &str,
    error: &SdkError<E, HttpResponse>,
) -> BackendError {
    let (kind, why) = match error {
        SdkError::ServiceError(answered) => {
            let raw = answered.raw();
            let after = raw.headers().get("retry-after").and_then(|it| retry_after::parse(it, SystemTime::now()));
            let refusal = Refusal {
                status: raw.status().as_u16(),
                code: answered.err().code().unwrap_or_default(),
                words: answered.err().message().unwrap_or_default(),
                retry_after: after,
            };
            return refusal.error(Doing::Read, server, what);
        }
        SdkError::DispatchFailure(failure) => {
            // Ours, as `connections` made it.
            let ours = failure.as_connector_error().and_then(|it| it.source()?.downcast_ref::<BackendError>());
            match ours {
                Some(ours) => return ours.clone(),
                None => (BackendErrorKind::Unavailable, "the request could not be sent"),
            }
        }
        SdkError::TimeoutError(_) => (BackendErrorKind::TimedOut, "no answer in time"),
        SdkError::ResponseError(_) => (BackendErrorKind::Malformed, "the answer is none of Secrets Manager's"),
        _ => (BackendErrorKind::Malformed, "the request could not be made"),
    };
    BackendError::new(kind, format!("{server} did not answer {what}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_meaning() {
        use BackendErrorKind as Kind;
        for (doing, status, code, words, kind, cure) in [
            (Doing::Login, 400, "InvalidIdentityToken", "", Kind::Unauthenticated, "OIDC provider"),
            (Doing::Login, 400, "ExpiredTokenException", "", Kind::Unauthenticated, "kubelet brings"),
            (Doing::Login, 403, "AccessDenied", "", Kind::Unauthenticated, "trust policy"),
            (Doing::Login, 403, "IDPRejectedClaim", "", Kind::Unauthenticated, "trust policy"),
            (Doing::Login, 400, "ValidationError", "", Kind::Unauthenticated, "webIdentity"),
            (Doing::Login, 400, "IDPCommunicationError", "", Kind::Unavailable, "public"),
            (Doing::Login, 403, "RegionDisabledException", "", Kind::Unavailable, "switch it on"),
            (Doing::Login, 400, "Throttling", "", Kind::Throttled, "fewer"),
            (Doing::Login, 503, "", "", Kind::Unavailable, "health"),
            (Doing::Login, 200, "", "", Kind::Malformed, "stsEndpoint"),
            (Doing::Read, 400, "ResourceNotFoundException", "", Kind::NotFound, "no such secret"),
            (
                Doing::Read,
                400,
                "ResourceNotFoundException",
                "for staging label: AWSPENDING",
                Kind::NotFound,
                "stage or id",
            ),
            (Doing::Read, 400, "InvalidRequestException", "it was marked for deletion", Kind::NotFound, "restore"),
            (Doing::Read, 400, "InvalidRequestException", "", Kind::Denied, "args.versionId"),
            (Doing::Read, 400, "InvalidParameterException", "", Kind::Denied, "args.versionId"),
            (Doing::Read, 400, "AccessDeniedException", "", Kind::Denied, "secretsmanager:GetSecretValue"),
            (Doing::Read, 400, "AccessDeniedException", "Access to KMS is not allowed", Kind::Denied, "kms:Decrypt"),
            (Doing::Read, 400, "DecryptionFailure", "", Kind::Denied, "KMS key"),
            (Doing::Read, 400, "ExpiredTokenException", "", Kind::Unauthenticated, "clock"),
            (Doing::Read, 403, "UnrecognizedClientException", "", Kind::Unauthenticated, "clock"),
            (Doing::Read, 400, "ThrottlingException", "", Kind::Throttled, "fewer"),
            (Doing::Read, 500, "InternalServiceError", "", Kind::Unavailable, "health"),
            (Doing::Read, 404, "", "", Kind::Malformed, "spec.aws.endpoint"),
        ] {
            let error = Refusal { status, code, words, retry_after: None }.error(doing, "h:1", "a question");
            assert_eq!(error.kind, kind, "{code} to {doing:?}: {error}");
            assert!(error.message.contains(cure), "{code} to {doing:?}: {error}");
        }
    }

    #[test]
    fn nothing_that_aws_wrote_but_a_plain_code_is_passed_on() {
        let words = "canary";
        for code in ["canary\nforged line", "a b", ""] {
            let error = Refusal { status: 400, code, words, retry_after: None }.error(Doing::Read, "h:1", "a question");
            assert!(!error.message.contains("canary") && error.message.contains("no code"), "{error}");
        }
    }
}
