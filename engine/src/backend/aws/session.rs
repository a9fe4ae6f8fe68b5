// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! One set of temporary credentials and the reads it makes, through `aws-sdk-secretsmanager`.
//!
//! The SDK signs, writes the question and reads the answer; it neither retries, nor keeps credentials, nor has a clock of its own for
//! anything but signatures: whoever asks decides that. Its one `String` of a value becomes bytes of ours where it comes out.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::retry::RetryConfig;
use aws_sdk_secretsmanager::config::timeout::TimeoutConfig;
use aws_sdk_secretsmanager::config::{
    BehaviorVersion, Credentials, IdentityCache, Region, StalledStreamProtectionConfig,
};
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::operation::RequestId as _;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::connections::Connections;
use super::credentials::Shelf;
use super::failure;
use super::names::Wanted;
use crate::backend::fields::{self, Fields};
use crate::backend::{BackendError, BackendErrorKind, Identity, Login, Session, https};
use crate::policy::Grant;
use crate::secret::{Secret, SecretBytes, Value, ValueKind, Version};

/// The key of a secret that is not a JSON object.
const VALUE: &str = "value";

/// A session. Its connections and its copy of the credentials go with it.
pub(super) struct AwsSession {
    client: Client,
    server: String,
    endpoint: (String, u16),
    identity: Identity,
    shelf: Option<Arc<Shelf>>,
    login: Login,
}

impl AwsSession {
    pub(super) fn new(
        connections: Connections,
        region: &str,
        credentials: Credentials,
        identity: Identity,
        shelf: Option<Arc<Shelf>>,
        login: Login,
    ) -> Self {
        let (server, endpoint) = (connections.name().to_owned(), connections.host_and_port());
        let config = aws_sdk_secretsmanager::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .endpoint_url(connections.url())
            .credentials_provider(credentials)
            .identity_cache(IdentityCache::no_cache())
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .http_client(connections)
            .build();
        Self { client: Client::from_conf(config), server, endpoint, identity, shelf, login }
    }

    fn failed<E: ProvideErrorMetadata>(
        &self,
        call: &str,
        path: &str,
        error: &SdkError<E, HttpResponse>,
    ) -> BackendError {
        self.heed(self.named(call, path, error))
    }

    /// A role's sessions can be revoked as a whole: new credentials may then do what these may not.
    fn heed(&self, error: BackendError) -> BackendError {
        if let (Some(shelf), BackendErrorKind::Denied | BackendErrorKind::Unauthenticated) = (&self.shelf, error.kind) {
            shelf.forget(&self.identity);
        }
        error
    }

    fn named<E: ProvideErrorMetadata>(
        &self,
        call: &str,
        path: &str,
        error: &SdkError<E, HttpResponse>,
    ) -> BackendError {
        failure::of_sdk(&self.server, &format!("{call} of {path}"), error)
    }

    fn malformed(&self, path: &str, what: &str) -> BackendError {
        BackendError::new(BackendErrorKind::Malformed, format!("{} answered {path} {what}", self.server))
    }
}

#[async_trait]
impl Session for AwsSession {
    async fn fetch(&self, grant: &Grant) -> Result<Secret, BackendError> {
        let (path, wanted) = (grant.path().as_str(), Wanted::of(grant));
        let question = self.client.get_secret_value().secret_id(path);
        let question = question.set_version_id(wanted.id.map(str::to_owned));
        let question = question.set_version_stage(wanted.stage.map(str::to_owned));
        let answer = question.send().await.map_err(|error| self.failed("GetSecretValue", path, &error))?;
        let request_id = answer.request_id().and_then(|id| https::printable_id(id.to_owned()));
        let version = answer.version_id.ok_or_else(|| self.malformed(path, "without a version"))?;
        let values = match (answer.secret_string, answer.secret_binary) {
            (Some(text), _) => values(SecretBytes::new(text.into_bytes())),
            (None, Some(binary)) => Some(only(SecretBytes::new(binary.into_inner()), ValueKind::Binary)),
            (None, None) => None,
        };
        Ok(Secret {
            values: values.ok_or_else(|| self.malformed(path, "with neither text nor bytes"))?,
            version: Some(Version::new(wanted.version(&version))),
            lease: None,
            expires_at: None,
            rotates_in: None,
            request_id,
        })
    }

    /// Asks which version has the stage: names and dates, and no value. A role that may read a secret but not describe it is
    /// answered with `None`; so is a version that has no stage, which AWS does not list.
    async fn version(&self, grant: &Grant) -> Result<Option<Version>, BackendError> {
        let (path, wanted) = (grant.path().as_str(), Wanted::of(grant));
        let answer = match self.client.describe_secret().secret_id(path).send().await {
            Ok(answer) => answer,
            Err(error) => {
                let error = self.named("DescribeSecret", path, &error);
                // What a role may not be told for good is no reason to log in anew each time.
                return if error.kind == BackendErrorKind::Denied { Ok(None) } else { Err(self.heed(error)) };
            }
        };
        if answer.deleted_date.is_some() {
            let message = format!("{} answered {path} with its end: the secret is marked for deletion", self.server);
            return Err(BackendError::new(BackendErrorKind::NotFound, message));
        }
        let versions = answer.version_ids_to_stages.unwrap_or_default();
        let fits = |id: &str, stages: &[String]| {
            wanted.id.is_none_or(|wanted| wanted == id)
                && wanted.stage.is_none_or(|wanted| stages.iter().any(|stage| stage == wanted))
        };
        let found = versions.iter().find(|(id, stages)| fits(id, stages));
        Ok(found.map(|(id, _)| Version::new(wanted.version(id))))
    }

    fn login(&self) -> &Login {
        &self.login
    }

    fn endpoint(&self) -> Option<(String, u16)> {
        Some(self.endpoint.clone())
    }
}

/// The fields of a JSON object; anything else as it is. `None` for an object with a string that is none.
fn values(text: SecretBytes) -> Option<BTreeMap<String, Value>> {
    match serde_json::from_slice::<Fields<'_>>(text.expose()) {
        Ok(fields) => fields::values(fields),
        Err(_) => Some(only(text, ValueKind::Text)),
    }
}

fn only(bytes: SecretBytes, kind: ValueKind) -> BTreeMap<String, Value> {
    [(VALUE.to_owned(), Value { bytes, kind })].into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_json_object_has_its_fields_and_anything_else_is_one_value() {
        let read = |text: &str| {
            let values = values(SecretBytes::from(text.as_bytes())).unwrap();
            let text = |value: &Value| std::str::from_utf8(value.bytes.expose()).unwrap().to_owned();
            values.iter().map(|(key, value)| format!("{key}={}", text(value))).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            read(r#"{"user": "a\"b", "port": 5432, "more": {"x": []}}"#),
            r#"more={"x": []} port=5432 user=a"b"#
        );
        for plain in ["hunter2", "\"quoted\"", "[1]", "{", "{\"a\"}", "", "17"] {
            assert_eq!(read(plain), format!("value={plain}"));
        }
        assert!(values(SecretBytes::from(&br#"{"a":"\ud800"}"#[..])).is_none());
    }
}
