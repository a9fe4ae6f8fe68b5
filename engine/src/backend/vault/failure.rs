// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What each way of not answering means.
//!
//! Messages are for the operator: server, path, status and the cure. They hold nothing the server wrote: a refusal's
//! body may quote the token or the request.

use std::error::Error as StdError;
use std::io;

use rustls::CertificateError;

use super::auth::Auth;
use super::transport::Answer;
use crate::backend::{BackendError, BackendErrorKind};

/// What was tried.
#[derive(Clone, Copy, Debug)]
pub(super) enum Doing<'a> {
    /// A login.
    Login(&'a Auth),
    /// A read.
    Read(What),
    /// A change of a lease or of the login itself.
    Lease,
    /// A look at its health.
    Probe,
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Below a mount that is declared to be KV version 1.
    Kv1,
    /// Below a mount that is declared to be KV version 2.
    Kv2,
    /// Any other path.
    Path,
    /// The same, with arguments.
    PathWithArgs,
}

impl What {
    /// What to try where the mount is of another version than its class says: the server then has nothing at the path, and
    /// no policy names it.
    fn other_version(self) -> &'static str {
        match self {
            Self::Kv1 | Self::Path => "; if its mount is KV version 2, name the mount in spec.vault.kvMounts",
            Self::Kv2 => "; if its mount is KV version 1, name the mount in spec.vault.kv1Mounts",
            Self::PathWithArgs => "",
        }
    }
}

/// An answer that is not the one hoped for.
pub(super) fn refusal(doing: Doing<'_>, server: &str, path: &str, answer: &Answer) -> BackendError {
    use BackendErrorKind as Kind;
    let (kind, cure) = match (answer.status, doing) {
        (300..=399, _) => (
            Kind::Unavailable,
            match &answer.location {
                Some(host) => format!(
                    "it redirects to {host}, which is not followed: set spec.vault.address to the server that answers itself"
                ),
                None => "it redirects, which is not followed: set spec.vault.address to the server that answers itself"
                    .to_owned(),
            },
        ),
        (501, Doing::Probe) => (Kind::Unavailable, "it is not initialised".to_owned()),
        (503, _) => (Kind::Unavailable, "it is sealed or down for maintenance: unseal it".to_owned()),
        (472, _) => (
            Kind::Unavailable,
            "it is of a disaster-recovery secondary, which serves nobody: name the primary".to_owned(),
        ),
        (429, Doing::Probe) | (473, _) => {
            (Kind::Unavailable, "it is a standby that does not answer itself: name the active server too".to_owned())
        }
        (429, _) => (Kind::Throttled, "it asks for fewer requests: look at its rate-limit quotas".to_owned()),
        (500, Doing::Login(Auth::Certificate { file, .. })) => (
            Kind::Unavailable,
            format!(
                "it cannot answer now, which it also says where a certificate is over: look at the end of the one of credentials file {file:?}, and at its log"
            ),
        ),
        (412 | 500..=599, _) => (Kind::Unavailable, "it cannot answer now: look at its log".to_owned()),
        // So OpenBao answers to a mount that it does not have, too.
        (403, Doing::Login(auth)) => {
            let (kind, cure) = auth.refused();
            (kind, format!("{cure}; or there is no such login: look at {}", place(auth)))
        }
        (400 | 401, Doing::Login(auth)) => auth.refused(),
        (404 | 405, Doing::Login(auth)) => {
            (auth.refused().0, format!("there is no such login, or no such namespace: look at {}", place(auth)))
        }
        // Of a token that is over it says no more than of one that may not.
        (400 | 401 | 403 | 404, Doing::Lease) => (
            Kind::Denied,
            "the login is over, or no policy of it allows this: the server's policy `default` does".to_owned(),
        ),
        (401 | 403, Doing::Read(what)) => (
            Kind::Denied,
            format!("no policy of this login allows it: extend the role's policies{}", what.other_version()),
        ),
        (400, Doing::Read(What::PathWithArgs)) => {
            (Kind::Denied, "it does not accept the arguments: compare args with what the path takes".to_owned())
        }
        (404, Doing::Read(what)) => {
            (Kind::NotFound, format!("there is nothing there, or that version is deleted{}", what.other_version()))
        }
        (400 | 405, Doing::Read(_)) => {
            (Kind::Malformed, "the path cannot be read: a secret's path was expected".to_owned())
        }
        _ => (
            Kind::Malformed,
            "no OpenBao or Vault answers so: look at spec.vault.address and what stands before it".to_owned(),
        ),
    };
    BackendError {
        kind,
        message: format!("{server} answered {} to {path}: {cure}", answer.status),
        retry_after: answer.retry_after,
    }
}

/// Where a class says where the login is.
fn place(auth: &Auth) -> String {
    format!("spec.vault.auth.{}.mount and spec.vault.namespace", auth.key())
}

/// No answer at all, or half of one.
pub(super) fn transport(server: &str, path: &str, error: &reqwest::Error) -> BackendError {
    lost(&FIELDS, server, path, error)
}

/// Where a class says what has to be mended when a server cannot be reached.
pub(in crate::backend) struct Fields {
    /// Its address.
    pub(in crate::backend) address: &'static str,
    /// Whom to trust.
    pub(in crate::backend) ca: &'static str,
    /// Whether it may say what is shown to the server.
    pub(in crate::backend) client_certificate: bool,
}

const FIELDS: Fields =
    Fields { address: "spec.vault.address", ca: "spec.vault.caBundle, or caFile,", client_certificate: true };

/// The same for a server of any kind.
pub(in crate::backend) fn lost(fields: &Fields, server: &str, path: &str, error: &reqwest::Error) -> BackendError {
    let (kind, what) = if error.is_timeout() {
        let what = if error.is_connect() { "no connection in time" } else { "no answer within limits.timeout" };
        (BackendErrorKind::TimedOut, what.to_owned())
    } else if fields.client_certificate
        && let Some(cure) = sources(error).find_map(|error| client_certificate(&error.to_string()))
    {
        (BackendErrorKind::Credential, cure.to_owned())
    } else if let Some(tls) = find_tls(error) {
        (BackendErrorKind::Unavailable, describe_tls(fields, tls))
    } else if error.is_dns() {
        (
            BackendErrorKind::Unavailable,
            format!("the host's name cannot be resolved: look at {} and the node's DNS", fields.address),
        )
    } else {
        let what = if error.is_connect() { "no connection" } else { "the connection broke" };
        // Only the kind: an error's text may hold more than one wants.
        let cause = sources(error).filter_map(|error| error.downcast_ref::<io::Error>()).last().map(io::Error::kind);
        let cause = cause.map_or_else(String::new, |kind| format!(": {kind}"));
        // The alert is lost where the server has closed before the request was written: the handshake was over for us.
        let shown = fields.client_certificate
            && error.is_request()
            && !error.is_connect()
            && error.url().is_some_and(|url| url.scheme() == "https");
        let hint = if shown { CLIENT_CERTIFICATE_HINT } else { "" };
        (BackendErrorKind::Unavailable, format!("{what}{cause}{hint}"))
    };
    BackendError::new(kind, format!("{server} did not answer {path}: {what}"))
}

fn describe_tls(fields: &Fields, error: &rustls::Error) -> String {
    use CertificateError as Wrong;
    match error {
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            Wrong::Expired | Wrong::ExpiredContext { .. } => {
                "its TLS certificate has expired: renew it, or set the node's clock".to_owned()
            }
            Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => {
                "its TLS certificate is not valid yet: set the node's clock".to_owned()
            }
            Wrong::NotValidForName | Wrong::NotValidForNameContext { .. } => {
                format!("its TLS certificate is for another name: use a name of the certificate in {}", fields.address)
            }
            // A new authority of the old name shows as a bad signature.
            Wrong::UnknownIssuer | Wrong::BadSignature => {
                format!(
                    "its TLS certificate has an issuer that is not trusted: set {} to the issuer's certificate",
                    fields.ca
                )
            }
            other => format!("its TLS certificate is not accepted: {other}"),
        },
        other => format!("the TLS handshake failed: {other}"),
    }
}

const CLIENT_CERTIFICATE_HINT: &str =
    ": if it wants a client certificate, look at spec.vault.clientCertFile, whose authority it has to trust";

/// What the server's alert says about our own certificate. By its text, because HTTP/2 keeps no more of it.
fn client_certificate(text: &str) -> Option<&'static str> {
    match text.strip_prefix("received fatal alert: ")? {
        "CertificateRequired" => {
            Some("it wants a client certificate: set spec.vault.clientCertFile and spec.vault.clientKeyFile")
        }
        "AccessDenied"
        | "BadCertificate"
        | "CertificateExpired"
        | "CertificateRevoked"
        | "CertificateUnknown"
        | "DecryptError"
        | "UnknownCA"
        | "UnsupportedCertificate" => Some(
            "it does not accept the client certificate of spec.vault.clientCertFile, or wants one: it has to be of an authority that the server trusts, and not over",
        ),
        _ => None,
    }
}

fn find_tls(error: &reqwest::Error) -> Option<&rustls::Error> {
    sources(error).find_map(|error| error.downcast_ref())
}

/// The error and what is below it; what an `io::Error` wraps is not among its sources.
fn sources<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => (**error).source(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use rustls::AlertDescription;

    use super::*;
    use crate::secret_ref::SecretPath;
    use zeroize::Zeroizing;

    /// A real server shows one of these or closes first, as it happens.
    #[test]
    fn an_alert_about_our_certificate_names_the_file_and_any_other_does_not() {
        for alert in [
            AlertDescription::CertificateRequired,
            AlertDescription::BadCertificate,
            AlertDescription::UnknownCA,
            AlertDescription::CertificateExpired,
        ] {
            let text = rustls::Error::AlertReceived(alert).to_string();
            assert!(client_certificate(&text).unwrap().contains("spec.vault.clientCertFile"), "{text}");
        }
        let other = rustls::Error::AlertReceived(AlertDescription::ProtocolVersion).to_string();
        assert!(client_certificate(&other).is_none());
    }

    #[test]
    fn every_status_has_its_meaning() {
        use BackendErrorKind as Kind;
        let read = Doing::Read(What::Path);
        let kubernetes = Auth::of_a_pod();
        let platform = Auth::TokenFile { file: "token".to_owned() };
        let mount = SecretPath::parse("cert").unwrap();
        let certificate = Auth::Certificate { mount, role: None, file: "client.pem".to_owned() };
        let login = Doing::Login(&kubernetes);
        for (status, doing, kind) in [
            (400, login, Kind::Unauthenticated),
            (403, login, Kind::Unauthenticated),
            (404, login, Kind::Unauthenticated),
            (500, login, Kind::Unavailable),
            (500, Doing::Login(&certificate), Kind::Unavailable),
            (302, login, Kind::Unavailable),
            (403, Doing::Login(&platform), Kind::Credential),
            (404, Doing::Login(&platform), Kind::Credential),
            (400, read, Kind::Malformed),
            (400, Doing::Read(What::PathWithArgs), Kind::Denied),
            (403, read, Kind::Denied),
            (404, read, Kind::NotFound),
            (405, read, Kind::Malformed),
            (412, read, Kind::Unavailable),
            (418, read, Kind::Malformed),
            (429, read, Kind::Throttled),
            (429, Doing::Probe, Kind::Unavailable),
            (472, login, Kind::Unavailable),
            (473, read, Kind::Unavailable),
            (204, read, Kind::Malformed),
            (307, read, Kind::Unavailable),
            (500, read, Kind::Unavailable),
            (503, Doing::Probe, Kind::Unavailable),
        ] {
            let answer = Answer { status, location: None, retry_after: None, body: Zeroizing::default() };
            assert_eq!(refusal(doing, "h:1", "kv/data/a", &answer).kind, kind, "{status} to {doing:?}");
        }
    }
}
