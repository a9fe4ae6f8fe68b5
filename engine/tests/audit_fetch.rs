// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What the log has of logins and reads that really went through `fetch`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use evanesce_engine::audit::recording::RecordingAuditor;
use evanesce_engine::audit::{Event, Outcome, Purpose, Scope, Subject};
use evanesce_engine::backend::BackendErrorKind;
use evanesce_engine::backend::contract::{self, CANARY};
use evanesce_engine::backend::fake::FakeBackend;
use evanesce_engine::clock::SystemClock;
use evanesce_engine::error::Kind;
use evanesce_engine::fetch::{BackendHandle, Bounds, Fetch, Fetcher};
use evanesce_engine::keep::HeapKeep;
use evanesce_engine::lease::testing::lender;
use evanesce_engine::names::VolumeClassName;
use evanesce_engine::policy::{self, Allow, Glob, SecretPattern};
use evanesce_engine::secret::SecretBytes;
use evanesce_engine::secret_ref::{SecretPath, SecretRef};
use evanesce_engine::spec::backend::Limits;
use evanesce_engine::token::Tokens;

/// Asks the backend for `paths` as one delivery would, and answers what was audited.
async fn audited(fake: &FakeBackend, paths: &[&str]) -> Vec<Event> {
    let workload = contract::workload();
    let token = contract::unsigned_token(&workload, "0b1c8a6e");
    let json = format!(r#"{{"fake":{{"token":"{token}","expirationTimestamp":"2100-01-01T00:00:00Z"}}}}"#);
    let tokens = Tokens::parse(&SecretBytes::from(json.as_bytes()), &HeapKeep).unwrap();
    let allow = vec![Allow {
        namespaces: vec![Glob::parse("*")],
        service_accounts: vec![Glob::parse("*")],
        secrets: vec![SecretPattern::parse("*", fake).unwrap()],
        role: None,
    }];
    let limits = Limits { timeout: Duration::from_secs(60), parallel: 1, ..Limits::default() };
    let handle = Arc::new(BackendHandle::new(Arc::new(fake.clone()), allow, limits, 1));
    let grants = paths.iter().map(|path| {
        let reference = SecretRef {
            backend: handle.backend.name().clone(),
            path: SecretPath::parse(path).unwrap(),
            version: None,
            args: Default::default(),
        };
        let grant = policy::authorise(fake, &handle.allow, &workload, &reference).unwrap();
        (Arc::clone(&handle), grant)
    });
    let class = VolumeClassName::parse("app-db").unwrap();
    let subject = Subject { volume: "csi-3f2c".into(), workload: workload.clone(), class };
    let auditor = Arc::new(RecordingAuditor::default());
    let scope = Scope::open(Arc::clone(&auditor) as _, subject, Purpose::First);
    let bounds = Bounds { entries: 8, bytes: 1 << 16 };
    let fetcher =
        Fetcher::new((Arc::new(HeapKeep), bounds), (Arc::new(HeapKeep), bounds), Arc::new(SystemClock), Arc::new(()));
    let lender = lender(&fetcher, Arc::clone(&auditor) as _);
    let fetch = Fetch::plan(&fetcher, &lender, &scope, &tokens, SystemTime::now(), grants.collect(), None).unwrap();
    let answers = fetch.run(None).await;
    scope.close(&answers, |_, _| None);
    auditor.take()
}

#[tokio::test]
async fn a_login_and_each_read_are_audited_by_name_version_and_end() {
    let fake = FakeBackend::new("fake");
    fake.put("db", &[("password", "before")]);
    fake.put("db", &[("password", CANARY)]);
    fake.lease("db", Duration::from_secs(3600));
    let events = audited(&fake, &["db"]).await;
    let [Event::LoggedIn { login, outcome, identity, .. }, Event::Fetched { secret, ttl, outcome: read, .. }] =
        events.as_slice()
    else {
        panic!("{events:?}");
    };
    assert_eq!((login.method, outcome, read), ("fake", &Outcome::Success, &Outcome::Success));
    assert_eq!(identity.caller.as_ref().unwrap().to_string(), "payments/app/0b1c8a6e");
    assert_eq!((secret.path.as_str(), secret.version.as_ref().unwrap().as_str()), ("fake/db", "2"));
    assert_eq!(*ttl, Some(Duration::from_secs(3600)));
    assert!(!format!("{events:?}").contains(CANARY));
}

#[tokio::test]
async fn a_failed_login_says_how_and_where_it_was_tried() {
    let fake = FakeBackend::new("fake");
    let workload = contract::workload();
    fake.refuse_login(&workload.namespace, &workload.service_account);
    let events = audited(&fake, &["db"]).await;
    let [Event::LoggedIn { login, outcome, .. }, Event::Refused { kind, .. }] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!((login.method, login.endpoint.as_ref().unwrap().1), ("fake", 443));
    assert_eq!((outcome, *kind), (&Outcome::Failure(Kind::Unauthenticated), Kind::Unauthenticated));
}

#[tokio::test]
async fn where_nobody_logs_in_no_login_is_audited_even_if_the_backend_fails() {
    let fake = FakeBackend::new("fake").with_audience(None);
    fake.put("db", &[("password", "a")]);
    let codes = |events: Vec<Event>| events.iter().map(Event::code).collect::<Vec<_>>();
    assert_eq!(codes(audited(&fake, &["db"]).await), ["fetch"]);
    fake.fail_next(BackendErrorKind::Unavailable, None);
    assert_eq!(codes(audited(&fake, &["db"]).await), ["failed"]);
}

#[tokio::test]
async fn a_read_that_was_sent_is_audited_beside_one_that_failed() {
    let fake = FakeBackend::new("fake");
    fake.put("db", &[("password", "a")]);
    fake.deny("other");
    let events = audited(&fake, &["other", "db"]).await;
    let ends: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Fetched { secret, outcome, .. } => Some((secret.path.as_str(), outcome.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(ends, [("fake/other", Outcome::Failure(Kind::Refused)), ("fake/db", Outcome::Success)]);
    assert_eq!(events.last().map(Event::code), Some("refused"));
}
