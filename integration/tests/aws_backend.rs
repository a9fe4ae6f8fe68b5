// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The aws backend on moto: the contract suite, and what only Secrets Manager and STS have.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use evanesce_engine::backend::aws::AwsBackend;
use evanesce_engine::backend::contract::{self, Fixture};
use evanesce_engine::backend::{Backend, BackendError, BackendErrorKind as Kind, Caller, Session};
use evanesce_engine::credentials::CredentialFiles;
use evanesce_engine::error::Error;
use evanesce_engine::keep::HeapKeep;
use evanesce_engine::names::BackendName;
use evanesce_engine::policy::Grant;
use evanesce_engine::secret::{Secret, SecretBytes, ValueKind};
use evanesce_engine::spec::backend::{AwsSpec, Limits};
use evanesce_engine::workload::Workload;
use evanesce_integration::moto::{AUDIENCE, Aws, REGION, ROLE, Role};
use evanesce_integration::token_review::{Claims, ServiceAccountTokens, WorkloadName};
use serde_json::{Value, json};

/// No credentials file is needed here.
struct NoFiles;

#[async_trait]
impl CredentialFiles for NoFiles {
    async fn read(&self, name: &str) -> Result<SecretBytes, Error> {
        Err(Error::missing(name.to_owned()))
    }
}

struct Amazon {
    aws: Aws,
    cluster: Arc<ServiceAccountTokens>,
    backend: AwsBackend,
}

impl Amazon {
    async fn start() -> Self {
        let cluster = Arc::new(ServiceAccountTokens::new().unwrap());
        let aws = Aws::start(Arc::clone(&cluster)).await.unwrap();
        let backend = backend("aws", spec(&aws));
        Self { aws, cluster, backend }
    }

    /// The same, with a place for credentials between sessions.
    async fn keeping() -> Self {
        let amazon = Self::start().await;
        Self { backend: amazon.backend.keeping(Some(Arc::new(HeapKeep))), ..amazon }
    }

    fn mint(&self, name: &WorkloadName, change: impl FnOnce(Claims) -> Claims) -> String {
        self.cluster.mint(&change(Claims::new(name, AUDIENCE))).unwrap().token
    }

    async fn open_with(&self, backend: &AwsBackend, token: &str) -> Result<Box<dyn Session>, BackendError> {
        let workload = contract::workload();
        let token = contract::parse_token(token);
        let caller = Caller { workload: &workload, token: Some(&token) };
        let identity = backend.identity(&caller, None).unwrap();
        backend.open(&caller, &identity).await
    }

    async fn open(&self) -> Box<dyn Session> {
        self.open_with(&self.backend, &self.mint(&app(), |claims| claims)).await.unwrap()
    }

    fn asked(&self, path: &str, args: &[(&str, &str)]) -> Grant {
        let args = args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        contract::grant(&self.backend, path, None, args)
    }
}

fn spec(aws: &Aws) -> AwsSpec {
    AwsSpec {
        region: REGION.into(),
        role: ROLE.into(),
        audience: AUDIENCE.into(),
        endpoint: Some(aws.address()),
        sts_endpoint: Some(aws.address()),
        ca: None,
    }
}

fn backend(name: &str, spec: AwsSpec) -> AwsBackend {
    AwsBackend::new(&spec, BackendName::parse(name).unwrap(), Limits::default(), Arc::new(NoFiles)).unwrap()
}

fn app() -> WorkloadName {
    WorkloadName::new("payments", "app", "app-0")
}

fn error<T>(answer: Result<T, BackendError>) -> BackendError {
    answer.err().unwrap()
}

fn value<'a>(secret: &'a Secret, key: &str) -> &'a str {
    std::str::from_utf8(secret.values[key].bytes.expose()).unwrap()
}

#[async_trait]
impl Fixture for Amazon {
    fn backend(&self) -> &dyn Backend {
        &self.backend
    }

    fn variations(&self) -> Vec<Box<dyn Backend>> {
        let usual = || spec(&self.aws);
        vec![
            Box::new(backend("other", usual())),
            Box::new(backend("aws", AwsSpec { sts_endpoint: Some("http://127.0.0.1:1".into()), ..usual() })),
            Box::new(backend("aws", AwsSpec { role: format!("{ROLE}-other"), ..usual() })),
            Box::new(backend("aws", AwsSpec { audience: "other".into(), ..usual() })),
        ]
    }

    async fn token(&self, workload: &Workload) -> Option<String> {
        let name = WorkloadName::new(workload.namespace.as_str(), workload.service_account.as_str(), "app-0");
        Some(self.mint(&name, |claims| claims))
    }

    async fn write(&self, name: &str, values: &[(&str, &str)]) -> String {
        let values: BTreeMap<_, _> = values.iter().copied().collect();
        let path = format!("payments/{name}");
        self.aws.put(&path, &json!(values).to_string()).await.unwrap();
        path
    }

    async fn delete(&self, name: &str) {
        self.aws.delete(&format!("payments/{name}")).await.unwrap();
    }

    async fn denied(&self) -> Option<String> {
        self.aws.put("other/db", "{}").await.unwrap();
        Some("other/db".into())
    }

    async fn leased(&self) -> Option<(String, BTreeMap<String, String>)> {
        None
    }

    async fn expiring(&self) -> Option<(String, BTreeMap<String, String>)> {
        None
    }

    fn numbered(&self) -> bool {
        false
    }

    async fn throttle(&self) -> Option<Duration> {
        self.aws.throttle(7);
        Some(Duration::from_secs(7))
    }
}

evanesce_engine::backend_contract!(Amazon::start());

#[tokio::test]
async fn a_secret_is_found_by_name_by_arn_by_version_and_by_stage() {
    let amazon = Amazon::start().await;
    let first = amazon.aws.put("payments/db", r#"{"password":"one"}"#).await.unwrap();
    let second = amazon.aws.put("payments/db", r#"{"password":"two"}"#).await.unwrap();
    let pending = amazon.aws.put_pending("payments/db", r#"{"password":"three"}"#).await.unwrap();
    let arn = amazon.aws.arn("payments/db").await.unwrap();
    let session = amazon.open().await;
    for (path, args, password, version) in [
        ("payments/db", vec![], "two", second.clone()),
        (arn.as_str(), vec![], "two", second.clone()),
        ("payments/db", vec![("versionId", first.as_str())], "one", first.clone()),
        ("payments/db", vec![("versionStage", "AWSCURRENT")], "two", second.clone()),
        ("payments/db", vec![("versionStage", "AWSPREVIOUS")], "one", format!("AWSPREVIOUS:{first}")),
        (arn.as_str(), vec![("versionStage", "AWSPENDING")], "three", format!("AWSPENDING:{pending}")),
        (
            "payments/db",
            vec![("versionId", first.as_str()), ("versionStage", "AWSPREVIOUS")],
            "one",
            format!("AWSPREVIOUS:{first}"),
        ),
    ] {
        let grant = amazon.asked(path, &args);
        let secret = session.fetch(&grant).await.unwrap();
        assert_eq!(value(&secret, "password"), password, "{path} {args:?}");
        assert_eq!(secret.version.as_ref().unwrap().as_str(), version, "{path} {args:?}");
        assert_eq!(session.version(&grant).await.unwrap(), secret.version, "{path} {args:?}");
        let call = amazon.aws.calls().into_iter().rfind(|call| call.action == "GetSecretValue").unwrap();
        let sent: Value = serde_json::from_str(&call.body).unwrap();
        assert_eq!(sent["SecretId"], grant.path().as_str(), "what policy saw is what is sent");
    }
}

#[tokio::test]
async fn a_secret_that_is_no_json_object_is_one_value() {
    let amazon = Amazon::start().await;
    amazon.aws.put("payments/plain", "hunter2").await.unwrap();
    amazon.aws.put_binary("payments/bytes", "AP8A").await.unwrap();
    amazon.aws.put("payments/json", r#"{"port": 5432, "more": {"a": null}}"#).await.unwrap();
    let session = amazon.open().await;
    let plain = session.fetch(&amazon.asked("payments/plain", &[])).await.unwrap();
    assert_eq!((plain.values.len(), value(&plain, "value")), (1, "hunter2"));
    let bytes = session.fetch(&amazon.asked("payments/bytes", &[])).await.unwrap();
    assert_eq!(
        (bytes.values["value"].bytes.expose(), bytes.values["value"].kind),
        (&[0, 255, 0][..], ValueKind::Binary)
    );
    let json = session.fetch(&amazon.asked("payments/json", &[])).await.unwrap();
    assert_eq!((value(&json, "port"), value(&json, "more")), ("5432", r#"{"a": null}"#));
}

#[tokio::test]
async fn the_cheap_check_reads_no_value() {
    let amazon = Amazon::start().await;
    amazon.aws.put("payments/db", "{}").await.unwrap();
    let session = amazon.open().await;
    let grant = amazon.asked("payments/db", &[]);
    let version = session.fetch(&grant).await.unwrap().version;
    for _ in 0..3 {
        assert_eq!(session.version(&grant).await.unwrap(), version);
    }
    let counts = ["GetSecretValue", "DescribeSecret"].map(|action| amazon.aws.count(action));
    assert_eq!(counts, [1, 3]);
}

#[tokio::test]
async fn a_rotation_is_seen_when_its_stage_moves_and_not_before() {
    let amazon = Amazon::start().await;
    let first = amazon.aws.put("payments/db", r#"{"password":"old"}"#).await.unwrap();
    let session = amazon.open().await;
    let (current, previous) =
        (amazon.asked("payments/db", &[]), amazon.asked("payments/db", &[("versionStage", "AWSPREVIOUS")]));
    let before = session.fetch(&current).await.unwrap().version;
    let pending = amazon.aws.put_pending("payments/db", r#"{"password":"new"}"#).await.unwrap();
    assert_eq!(session.version(&current).await.unwrap(), before);
    assert_eq!(value(&session.fetch(&current).await.unwrap(), "password"), "old");
    assert_eq!(session.version(&previous).await.unwrap(), None);

    amazon.aws.promote("payments/db", &first, &pending).await.unwrap();
    assert_ne!(session.version(&current).await.unwrap(), before);
    assert_eq!(value(&session.fetch(&current).await.unwrap(), "password"), "new");
    assert_eq!(value(&session.fetch(&previous).await.unwrap(), "password"), "old");
}

#[tokio::test]
async fn a_login_that_aws_refuses_is_unauthenticated_and_says_what_to_mend() {
    let amazon = Amazon::start().await;
    let other = WorkloadName::new("payments", "other", "x");
    let foreign = ServiceAccountTokens::new().unwrap().mint(&Claims::new(&app(), AUDIENCE)).unwrap().token;
    for (token, cure) in [
        (amazon.mint(&app(), Claims::expired), "kubelet brings a new one"),
        (amazon.mint(&app(), |claims| Claims { audience: "elsewhere".into(), ..claims }), "OIDC provider"),
        (foreign, "OIDC provider"),
        (amazon.mint(&other, |claims| claims), "trust policy"),
    ] {
        let error = error(amazon.open_with(&amazon.backend, &token).await);
        assert_eq!(error.kind, Kind::Unauthenticated);
        assert!(error.message.contains(cure), "{error}");
    }
    let wrong_role = backend("aws", AwsSpec { role: format!("{ROLE}-other"), ..spec(&amazon.aws) });
    let error = error(amazon.open_with(&wrong_role, &amazon.mint(&app(), |claims| claims)).await);
    assert_eq!(error.kind, Kind::Unauthenticated);
    assert!(error.message.contains(&format!("{ROLE}-other")) && error.message.contains("trust policy"), "{error}");
}

#[tokio::test]
async fn every_refusal_says_what_to_do_and_nothing_of_what_was_answered() {
    let amazon = Amazon::start().await;
    amazon.aws.put("payments/gone", "canary").await.unwrap();
    amazon.aws.delete("payments/gone").await.unwrap();
    amazon.aws.put("payments/db", "canary").await.unwrap();
    amazon.aws.put("other/db", "canary").await.unwrap();
    let session = amazon.open().await;
    let nobody = "0".repeat(32);
    for (path, args, kind, cure) in [
        ("payments/none", vec![], Kind::NotFound, "no such secret"),
        ("payments/gone", vec![], Kind::NotFound, "restore it"),
        ("payments/db", vec![("versionStage", "AWSPENDING")], Kind::NotFound, ""),
        ("payments/db", vec![("versionId", nobody.as_str())], Kind::NotFound, "stage or id"),
        ("other/db", vec![], Kind::Denied, "secretsmanager:GetSecretValue"),
    ] {
        let grant = amazon.asked(path, &args);
        let error = error(session.fetch(&grant).await);
        assert_eq!(error.kind, kind, "{path} {args:?}: {error}");
        assert!(error.message.contains(cure) && error.message.contains(path), "{path} {args:?}: {error}");
        assert!(!format!("{error:?}").contains("canary"));
    }
    // A role that may not describe a secret says nothing about the secret.
    assert_eq!(session.version(&amazon.asked("other/db", &[])).await.unwrap(), None);
    assert_eq!(error(session.version(&amazon.asked("payments/gone", &[])).await).kind, Kind::NotFound);
}

#[tokio::test]
async fn a_role_that_may_not_describe_a_secret_keeps_its_credentials() {
    let amazon = Amazon::keeping().await;
    amazon.aws.put("other/db", "canary").await.unwrap();
    let grant = amazon.asked("other/db", &[]);
    let token = amazon.mint(&app(), |claims| claims);
    let mut performed = Vec::new();
    for _ in 0..3 {
        let session = amazon.open_with(&amazon.backend, &token).await.unwrap();
        assert_eq!(session.version(&grant).await.unwrap(), None);
        performed.push(session.login().performed);
    }
    assert_eq!(performed, [true, false, false]);
}

#[tokio::test]
async fn credentials_serve_their_identity_again_and_no_other() {
    let amazon = Amazon::keeping().await;
    amazon.aws.put("payments/db", "{}").await.unwrap();
    let grant = amazon.asked("payments/db", &[]);
    let (one, two) = (app(), app());
    // The same service account twice, then one of its name that was made anew: its uid is another.
    let tokens = [&one, &one, &two].map(|name| amazon.mint(name, |claims| claims));
    let mut performed = Vec::new();
    for token in &tokens {
        let session = amazon.open_with(&amazon.backend, token).await.unwrap();
        session.fetch(&grant).await.unwrap();
        performed.push(session.login().performed);
    }
    assert_eq!(performed, [true, false, true]);
    assert_eq!(amazon.aws.count("AssumeRoleWithWebIdentity"), 2);
    let keys: Vec<_> = amazon
        .aws
        .calls()
        .into_iter()
        .filter(|call| call.action == "GetSecretValue")
        .map(|call| call.access_key)
        .collect();
    assert!(keys[0] == keys[1] && keys[1] != keys[2], "{keys:?}");
}

#[tokio::test]
async fn two_roles_of_one_account_never_share_credentials_or_an_answer() {
    let amazon = Amazon::keeping().await;
    amazon.aws.put("payments/db", "{}").await.unwrap();
    let narrow = format!("{ROLE}-narrow");
    amazon.aws.trust(
        &narrow,
        Role { namespace: "payments".into(), service_account: "app".into(), secrets: "nothing/".into() },
    );
    let (workload, token) = (contract::workload(), contract::parse_token(&amazon.mint(&app(), |claims| claims)));
    let caller = Caller { workload: &workload, token: Some(&token) };
    let grant = amazon.asked("payments/db", &[]);
    for (role, allowed) in [(None, true), (Some(narrow.as_str()), false), (None, true)] {
        let identity = amazon.backend.identity(&caller, role).unwrap();
        let answer = amazon.backend.open(&caller, &identity).await.unwrap().fetch(&grant).await;
        assert_eq!(answer.is_ok(), allowed, "{role:?}");
    }
    let roles: Vec<_> =
        amazon.aws.calls().into_iter().filter(|call| call.action == "GetSecretValue").map(|call| call.role).collect();
    assert_eq!(roles, [ROLE, narrow.as_str(), ROLE]);
}

#[tokio::test]
async fn credentials_that_aws_no_longer_takes_are_asked_for_anew() {
    let amazon = Amazon::keeping().await;
    amazon.aws.put("payments/db", "{}").await.unwrap();
    let grant = amazon.asked("payments/db", &[]);
    let token = amazon.mint(&app(), |claims| claims);
    let open = async || amazon.open_with(&amazon.backend, &token).await.unwrap();
    open().await.fetch(&grant).await.unwrap();
    amazon.aws.expire_credentials();
    let error = error(open().await.fetch(&grant).await);
    assert_eq!(error.kind, Kind::Unauthenticated, "{error}");
    open().await.fetch(&grant).await.unwrap();
    assert_eq!(amazon.aws.count("AssumeRoleWithWebIdentity"), 2);
}

#[tokio::test]
async fn nothing_of_the_nodes_own_is_used_to_log_in() {
    let amazon = Amazon::start().await;
    amazon.aws.put("payments/db", "{}").await.unwrap();
    let session = amazon.open().await;
    session.fetch(&amazon.asked("payments/db", &[])).await.unwrap();
    let calls = amazon.aws.calls();
    let actions: Vec<_> = calls.iter().map(|call| (call.action.as_str(), call.role.as_str())).collect();
    assert_eq!(actions, [("AssumeRoleWithWebIdentity", ROLE), ("GetSecretValue", ROLE)]);
}
