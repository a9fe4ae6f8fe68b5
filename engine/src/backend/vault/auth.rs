// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! How a backend logs in, as its class says: whom the server then sees, where the proof comes from, and what to look at
//! where it is refused. What is sent is [`login`](super::login)'s.
//!
//! With a pod's own token the server sees the pod. With a credential of the platform's it sees the platform, whichever
//! pod asked: then nothing but the class's allow list tells pods apart.

use crate::backend::role::RoleTemplate;
use crate::backend::{BackendError, BackendErrorKind, Caller, Identity, Principal};
use crate::credentials::CredentialFiles;
use crate::error::Error;
use crate::names::BackendName;
use crate::secret::SecretBytes;
use crate::secret_ref::SecretPath;
use crate::spec::backend::{ClientCertificate, VaultAuth, VaultSpec};
use crate::token::Audience;

use super::login::{self, Proof};

/// How to log in. It names credentials files and holds none.
#[derive(Debug)]
pub(super) enum Auth {
    /// With the pod's own token.
    PodToken { method: PodMethod, mount: SecretPath, role: RoleTemplate, audience: Audience },
    /// With a role id and a secret id.
    AppRole { mount: SecretPath, role_id_file: String, secret_id_file: String },
    /// With the client certificate that every connection shows.
    Certificate { mount: SecretPath, role: Option<String>, file: String },
    /// Not at all: the token is there.
    TokenFile { file: String },
}

/// The methods that take a pod's token; both take it in the same request.
#[derive(Clone, Copy, Debug)]
pub(super) enum PodMethod {
    /// The server asks Kubernetes about the token: it knows the service account.
    Kubernetes,
    /// The server checks the signature and looks at claims, which may be the pod's.
    Jwt {
        /// The class says that no role looks at claims of the pod.
        share_pods: bool,
    },
}

impl Auth {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid), with the field.
    pub(super) fn new(spec: &VaultSpec) -> Result<Self, Error> {
        let mount = |key: &str, text: &str| {
            let mount = SecretPath::parse(text).map_err(|error| error.context(format!("auth.{key}.mount")))?;
            if mount.as_str().starts_with("auth/") {
                return Err(Error::invalid(format!("auth.{key}.mount is written without 'auth/'")));
            }
            Ok(mount)
        };
        let with_token = |key: &str, method, at: &str, role: &str, audience: &str| {
            let mount = mount(key, at)?;
            let role = RoleTemplate::parse(role).map_err(|error| error.context(format!("auth.{key}.role")))?;
            Ok(Self::PodToken { method, mount, role, audience: Audience::new(audience) })
        };
        match &spec.auth {
            VaultAuth::Kubernetes { mount, role, audience } => {
                with_token("kubernetes", PodMethod::Kubernetes, mount, role, audience)
            }
            VaultAuth::Jwt { mount, role, audience, share_pods } => {
                with_token("jwt", PodMethod::Jwt { share_pods: *share_pods }, mount, role, audience)
            }
            VaultAuth::AppRole { mount: at, role_id_file, secret_id_file } => Ok(Self::AppRole {
                mount: mount("appRole", at)?,
                role_id_file: role_id_file.clone(),
                secret_id_file: secret_id_file.clone(),
            }),
            VaultAuth::Cert { mount: at, role } => match &spec.client_certificate {
                Some(ClientCertificate { file, .. }) => {
                    Ok(Self::Certificate { mount: mount("cert", at)?, role: role.clone(), file: file.clone() })
                }
                None => Err(Error::invalid("auth.cert logs in with a client certificate: set clientCertFile")),
            },
            VaultAuth::TokenFile { file } => Ok(Self::TokenFile { file: file.clone() }),
        }
    }

    /// The method's name, for events.
    pub(super) fn method(&self) -> &'static str {
        match self {
            Self::PodToken { method: PodMethod::Kubernetes, .. } => "kubernetes",
            Self::PodToken { method: PodMethod::Jwt { .. }, .. } => "jwt",
            Self::AppRole { .. } => "approle",
            Self::Certificate { .. } => "cert",
            Self::TokenFile { .. } => "token-file",
        }
    }

    /// Whether anything is sent to log in.
    pub(super) fn performs(&self) -> bool {
        !matches!(self, Self::TokenFile { .. })
    }

    /// The audience of the pod's token; nothing where the platform logs in.
    pub(super) fn audience(&self) -> Option<&Audience> {
        match self {
            Self::PodToken { audience, .. } => Some(audience),
            Self::AppRole { .. } | Self::Certificate { .. } | Self::TokenFile { .. } => None,
        }
    }

    /// Whom the server takes the caller for.
    pub(super) fn identity(
        &self,
        backend: BackendName,
        caller: &Caller<'_>,
        role: Option<&str>,
    ) -> Result<Identity, Error> {
        let platform = |mount: &str, role: &str| Identity {
            backend: backend.clone(),
            mount: mount.to_owned(),
            role: role.to_owned(),
            audience: String::new(),
            caller: None,
        };
        Ok(match self {
            Self::AppRole { mount, .. } => platform(mount.as_str(), ""),
            Self::Certificate { mount, role, .. } => platform(mount.as_str(), role.as_deref().unwrap_or_default()),
            Self::TokenFile { .. } => platform("", ""),
            Self::PodToken { method, mount, role: default, audience } => {
                let account = Principal::service_account(caller);
                let sees_pods = matches!(method, PodMethod::Jwt { share_pods: false });
                Identity {
                    role: match role {
                        Some(role) => RoleTemplate::parse(role)?.fill(caller.workload),
                        None => default.fill(caller.workload),
                    },
                    audience: audience.to_string(),
                    caller: Some(Principal { pod_uid: sees_pods.then(|| caller.workload.pod_uid.clone()), ..account }),
                    ..platform(mount.as_str(), "")
                }
            }
        })
    }

    /// What to log in with, from credentials files as they are now.
    pub(super) async fn proof<'a>(
        &self,
        credentials: &dyn CredentialFiles,
        caller: &Caller<'a>,
    ) -> Result<Proof<'a>, BackendError> {
        Ok(match self {
            Self::PodToken { audience, .. } => Proof::PodToken(caller.token.ok_or_else(|| {
                let message = format!("there is no token for audience {:?} to log in with", audience.as_str());
                BackendError::new(BackendErrorKind::Unauthenticated, message)
            })?),
            Self::AppRole { role_id_file, secret_id_file, .. } => Proof::AppRole {
                role_id: word(credentials, role_id_file, "role id").await?,
                secret_id: word(credentials, secret_id_file, "secret id").await?,
            },
            Self::Certificate { .. } => Proof::Certificate,
            Self::TokenFile { file } => {
                let token = word(credentials, file, "token").await?;
                Proof::Token(login::header(token).ok_or_else(|| unusable(file, "token"))?)
            }
        })
    }

    /// What it means that the server refused, and what to look at.
    pub(super) fn refused(&self) -> (BackendErrorKind, String) {
        use BackendErrorKind::{Credential, Unauthenticated};
        match self {
            Self::PodToken { method: PodMethod::Kubernetes, .. } => (
                Unauthenticated,
                "it does not accept the pod's token for this role: look at the method's mount and token reviewer, and at the role's name, bound service accounts, namespaces and audience".to_owned(),
            ),
            Self::PodToken { method: PodMethod::Jwt { .. }, .. } => (
                Unauthenticated,
                "it does not accept the pod's token for this role: look at the method's mount, keys and issuer, and at the role's name, bound audiences, subject and claims".to_owned(),
            ),
            Self::AppRole { role_id_file, secret_id_file, .. } => (
                Credential,
                format!("it does not accept the role id of credentials file {role_id_file:?} with the secret id of {secret_id_file:?}, which may be used up or over: write a new secret id of the same role there"),
            ),
            Self::Certificate { role, file, .. } => (
                Credential,
                format!(
                    "it does not accept the certificate of credentials file {file:?} for {}: look at which authority the method's role trusts, at the names it wants, and at the certificate's end",
                    role.as_ref().map_or_else(|| "any role".to_owned(), |role| format!("role {role:?}"))
                ),
            ),
            Self::TokenFile { file } => (
                Credential,
                format!("it does not accept the token of credentials file {file:?}: write a new one there"),
            ),
        }
    }

    /// The key of the class where the mount stands.
    pub(super) fn key(&self) -> &'static str {
        match self {
            Self::PodToken { method: PodMethod::Kubernetes, .. } => "kubernetes",
            Self::PodToken { method: PodMethod::Jwt { .. }, .. } => "jwt",
            Self::AppRole { .. } => "appRole",
            Self::Certificate { .. } => "cert",
            Self::TokenFile { .. } => "tokenFile",
        }
    }
}

/// The one word that a credentials file holds.
async fn word(credentials: &dyn CredentialFiles, file: &str, what: &str) -> Result<SecretBytes, BackendError> {
    let contents = credentials.read(file).await.map_err(|error| {
        BackendError::new(BackendErrorKind::Credential, format!("the {what} cannot be read: {}", error.message()))
    })?;
    let word = contents.expose().trim_ascii();
    if word.is_empty() || word.len() > login::LONGEST || !word.iter().all(u8::is_ascii_graphic) {
        return Err(unusable(file, what));
    }
    Ok(SecretBytes::from(word))
}

fn unusable(file: &str, what: &str) -> BackendError {
    let message = format!(
        "credentials file {file:?} does not hold one {what}: it is empty, too long, or has spaces or control characters inside"
    );
    BackendError::new(BackendErrorKind::Credential, message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
impl Auth {
    /// The kubernetes method, for tests of what follows from a login.
    pub(super) fn of_a_pod() -> Self {
        Self::PodToken {
            method: PodMethod::Kubernetes,
            mount: SecretPath::parse("kubernetes").unwrap(),
            role: RoleTemplate::parse("app").unwrap(),
            audience: Audience::new("vault"),
        }
    }
}
