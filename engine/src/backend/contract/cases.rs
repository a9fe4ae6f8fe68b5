// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The cases, one function each; a failure is a panic that says what was expected.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;

use super::{CANARY, Fixture, grant, named, parse_token, stranger, unsigned_token, workload};
use crate::backend::{Backend, BackendError, BackendErrorKind, Caller, Identity, Session};
use crate::policy::{Grant, SecretPattern};
use crate::secret::Secret;
use crate::workload::Workload;

async fn open(fixture: &dyn Fixture, workload: &Workload) -> Result<(Box<dyn Session>, Identity), BackendError> {
    let token = fixture.token(workload).await.map(|text| parse_token(&text));
    let caller = Caller { workload, token: token.as_deref() };
    let identity = fixture.backend().identity(&caller, None).expect("an identity");
    Ok((fixture.backend().open(&caller, &identity).await?, identity))
}

async fn session(fixture: &dyn Fixture) -> Box<dyn Session> {
    open(fixture, &workload()).await.expect("a login").0
}

fn newest(fixture: &dyn Fixture, path: &str) -> Grant {
    grant(fixture.backend(), path, None, BTreeMap::new())
}

fn text<'a>(secret: &'a Secret, key: &str) -> &'a str {
    std::str::from_utf8(secret.values[key].bytes.expose()).expect("text")
}

fn kind<T>(answer: Result<T, BackendError>) -> BackendErrorKind {
    answer.err().expect("a failure").kind
}

/// What was written is what is read.
pub async fn a_secret_reads_back_as_it_was_written(fixture: &dyn Fixture) {
    let path = fixture.write("db", &[("user", "app"), ("password", "a\nb\"c ä"), ("empty", "")]).await;
    let session = session(fixture).await;
    let secret = session.fetch(&newest(fixture, &path)).await.expect("the secret");
    assert_eq!(secret.values.keys().collect::<Vec<_>>(), ["empty", "password", "user"]);
    assert_eq!((text(&secret, "user"), text(&secret, "password"), text(&secret, "empty")), ("app", "a\nb\"c ä", ""));
}

/// A login says that it took place and where.
pub async fn a_login_says_where_it_was_made(fixture: &dyn Fixture) {
    let session = session(fixture).await;
    let login = session.login();
    // Who takes a pod's token logs it in; the platform's own credential may need a login or be one.
    assert!(login.performed || fixture.backend().audience().is_none());
    let before = fixture.backend().login();
    assert_eq!(before.performed, login.performed);
    if login.performed {
        assert!(!login.method.is_empty());
        assert!(login.endpoint.is_some());
        assert_eq!((before.method, before.endpoint.as_ref()), (login.method, login.endpoint.as_ref()));
    }
    fixture.backend().probe().await.expect("it is there");
}

/// Nobody logs in whom the backend does not know.
pub async fn a_caller_it_does_not_know_is_not_logged_in(fixture: &dyn Fixture) {
    if fixture.backend().audience().is_none() {
        return;
    }
    assert_eq!(kind(open(fixture, &stranger()).await), BackendErrorKind::Unauthenticated);
    let workload = workload();
    let caller = Caller { workload: &workload, token: None };
    let identity = fixture.backend().identity(&caller, None).expect("an identity");
    let without = fixture.backend().open(&caller, &identity).await;
    assert_eq!(kind(without), BackendErrorKind::Unauthenticated, "without a token");
}

/// What is not there is not found.
pub async fn a_missing_secret_is_not_found(fixture: &dyn Fixture) {
    let path = fixture.write("db", &[("a", "b")]).await;
    let session = session(fixture).await;
    let missing = format!("{path}-missing");
    assert_eq!(kind(session.fetch(&newest(fixture, &missing)).await), BackendErrorKind::NotFound);
}

/// What was deleted is not found, by reading and by asking for its version.
pub async fn a_deleted_secret_is_not_found(fixture: &dyn Fixture) {
    let path = fixture.write("db", &[("a", "b")]).await;
    let session = session(fixture).await;
    session.fetch(&newest(fixture, &path)).await.expect("before");
    fixture.delete("db").await;
    assert_eq!(kind(session.fetch(&newest(fixture, &path)).await), BackendErrorKind::NotFound);
    match session.version(&newest(fixture, &path)).await {
        Ok(None) => {}
        answer => assert_eq!(kind(answer), BackendErrorKind::NotFound),
    }
}

/// The backend's own refusal is told apart from absence.
pub async fn a_refusal_is_told_apart_from_absence(fixture: &dyn Fixture) {
    let Some(path) = fixture.denied().await else { return };
    let session = session(fixture).await;
    assert_eq!(kind(session.fetch(&newest(fixture, &path)).await), BackendErrorKind::Denied);
}

/// The version changes with a write and with nothing else, however it is asked for.
pub async fn a_version_changes_with_a_write_and_only_then(fixture: &dyn Fixture) {
    let path = fixture.write("db", &[("a", "1")]).await;
    let session = session(fixture).await;
    let newest = newest(fixture, &path);
    let mut seen = Vec::new();
    for value in ["2", "3"] {
        let fetched = session.fetch(&newest).await.expect("the secret").version;
        assert_eq!(session.fetch(&newest).await.expect("again").version, fetched);
        if let Some(version) = session.version(&newest).await.expect("its version") {
            assert_eq!(Some(version), fetched, "asked for and fetched");
        }
        assert!(fetched.is_none() || !seen.contains(&fetched), "a version came back");
        seen.push(fetched);
        fixture.write("db", &[("a", value)]).await;
    }
}

/// A fixed version keeps its values.
pub async fn a_fixed_version_keeps_its_values(fixture: &dyn Fixture) {
    if !fixture.numbered() {
        return;
    }
    fixture.write("db", &[("a", "old")]).await;
    let path = fixture.write("db", &[("a", "new")]).await;
    let session = session(fixture).await;
    let at = |version| grant(fixture.backend(), &path, Some(version), BTreeMap::new());
    for (version, value) in [(1, "old"), (2, "new")] {
        let secret = session.fetch(&at(version)).await.expect("the version");
        assert_eq!(text(&secret, "a"), value);
        assert_eq!(secret.version.as_ref().expect("a number").as_str(), version.to_string());
        if let Some(found) = session.version(&at(version)).await.expect("its version") {
            assert_eq!(Some(found), secret.version);
        }
    }
    assert_eq!(kind(session.fetch(&at(3)).await), BackendErrorKind::NotFound);
}

/// A lease comes with its id, its length and whether it can be renewed; each answer has its own.
pub async fn a_lease_comes_with_its_id_and_its_end(fixture: &dyn Fixture) {
    let Some((path, args)) = fixture.leased().await else { return };
    let session = session(fixture).await;
    let granted = grant(fixture.backend(), &path, None, args);
    let first = session.fetch(&granted).await.expect("a leased secret").lease.expect("a lease");
    let second = session.fetch(&granted).await.expect("another").lease.expect("a lease");
    assert!(!first.id.is_empty() && first.duration > Duration::ZERO);
    assert!(first.id.expose() != second.id.expose(), "two answers, two leases");
}

/// A secret that ends says when.
pub async fn a_secret_that_ends_says_when(fixture: &dyn Fixture) {
    let Some((path, args)) = fixture.expiring().await else { return };
    let session = session(fixture).await;
    let secret = session.fetch(&grant(fixture.backend(), &path, None, args)).await.expect("a secret with an end");
    assert!(secret.expires_at.expect("an end") > SystemTime::now());
}

/// A wish for fewer requests reaches the caller with its time.
pub async fn a_wish_for_fewer_requests_carries_its_time(fixture: &dyn Fixture) {
    let path = fixture.write("db", &[("a", "b")]).await;
    let session = session(fixture).await;
    let Some(after) = fixture.throttle().await else { return };
    let mut last = None;
    // A real server throttles by rate: one of many requests is the first too many.
    for _ in 0..200 {
        if let Err(error) = session.fetch(&newest(fixture, &path)).await {
            last = Some(error);
            break;
        }
    }
    let error = last.expect("a throttled request");
    assert_eq!(error.kind, BackendErrorKind::Throttled);
    let wish = error.retry_after.expect("a time");
    assert!(wish > Duration::ZERO && wish <= after, "{wish:?} of {after:?}");
}

/// Two callers have one identity only if the backend cannot tell them apart.
pub async fn an_identity_differs_if_any_part_of_it_does(fixture: &dyn Fixture) {
    let identity = |backend: &dyn Backend, namespace: &str, account: &str, uid: &str| {
        let workload = named(namespace, account);
        let token = backend.audience().map(|_| parse_token(&unsigned_token(&workload, uid)));
        backend.identity(&Caller { workload: &workload, token: token.as_deref() }, None).expect("an identity")
    };
    let backend = fixture.backend();
    let usual = identity(backend, "payments", "app", "uid-1");
    assert_eq!(usual, identity(backend, "payments", "app", "uid-1"), "the same caller twice");
    let mut all = vec![usual];
    if backend.audience().is_some() {
        all.push(identity(backend, "other", "app", "uid-1"));
        all.push(identity(backend, "payments", "other", "uid-1"));
        all.push(identity(backend, "payments", "app", "uid-2"));
    }
    all.extend(fixture.variations().iter().map(|backend| identity(backend.as_ref(), "payments", "app", "uid-1")));
    for (index, one) in all.iter().enumerate() {
        assert!(!all[..index].contains(one), "{one:?} stands for two");
    }
}

/// What ends was made for whoever asked; what does not end may serve everybody of one identity.
pub async fn only_what_has_no_end_is_called_shareable(fixture: &dyn Fixture) {
    let backend = fixture.backend();
    assert!(backend.shareable(&newest(fixture, &fixture.write("one", &[("a", "1")]).await)));
    for (path, args) in [fixture.leased().await, fixture.expiring().await].into_iter().flatten() {
        assert!(!backend.shareable(&grant(backend, &path, None, args)), "{path}");
    }
}

/// A batch answers in the order of its questions, and one failure leaves the others alone.
pub async fn a_batch_answers_each_question_in_its_place(fixture: &dyn Fixture) {
    let first = fixture.write("one", &[("a", "1")]).await;
    let second = fixture.write("two", &[("a", "2")]).await;
    let session = session(fixture).await;
    let missing = newest(fixture, &format!("{first}-missing"));
    let (first, second) = (newest(fixture, &first), newest(fixture, &second));
    let answers = session.fetch_batch(&[&second, &missing, &first]).await;
    let answers: Vec<_> = answers
        .iter()
        .map(|answer| answer.as_ref().map(|secret| text(secret, "a")).map_err(|error| error.kind))
        .collect();
    assert_eq!(answers, [Ok("2"), Err(BackendErrorKind::NotFound), Ok("1")]);
    assert!(fixture.backend().batch_size() >= 1);
}

/// Questions side by side get their own answers.
pub async fn questions_side_by_side_get_their_own_answers(fixture: &dyn Fixture) {
    let mut grants = Vec::new();
    for number in 0..12 {
        let path = fixture.write(&format!("n{number}"), &[("a", &number.to_string())]).await;
        grants.push(newest(fixture, &path));
    }
    let session = session(fixture).await;
    let answers = join_all(grants.iter().map(|grant| session.fetch(grant))).await;
    for (number, answer) in answers.into_iter().enumerate() {
        assert_eq!(text(&answer.expect("an answer"), "a"), number.to_string());
    }
}

/// A pattern that is written as a path is written fits that path, and policy is asked about what is sent.
pub async fn a_pattern_fits_the_path_it_was_written_for(fixture: &dyn Fixture) {
    let path = fixture.write("db", &[("a", "b")]).await;
    let backend = fixture.backend();
    let wire = newest(fixture, &path).path().clone();
    let folder = path.rsplit_once('/').map_or("*".to_owned(), |(folder, _)| format!("{folder}/*"));
    for pattern in [path.clone(), folder] {
        assert!(SecretPattern::parse(&pattern, backend).expect("a pattern").matches(&wire), "{pattern}");
    }
    for pattern in [format!("{path}x"), format!("{path}/*")] {
        assert!(!SecretPattern::parse(&pattern, backend).expect("a pattern").matches(&wire), "{pattern}");
    }
}

/// Nothing that can be printed holds a value or a token.
pub async fn nothing_printable_holds_a_secret(fixture: &dyn Fixture) {
    let path = fixture.write("db", &[("a", CANARY)]).await;
    let (session, identity) = open(fixture, &workload()).await.expect("a login");
    let newest_grant = newest(fixture, &path);
    let secret = session.fetch(&newest_grant).await.expect("the secret");
    let mut printed = vec![
        show(session.login()),
        show(&identity),
        show(&newest_grant),
        show(&secret.version),
        show(&secret.request_id),
        show(&session.version(&newest_grant).await.ok()),
    ];
    let mut failures = vec![
        session.fetch(&newest(fixture, &format!("{path}-missing"))).await.err(),
        open(fixture, &stranger()).await.err(),
    ];
    if let Some(denied) = fixture.denied().await {
        failures.push(session.fetch(&newest(fixture, &denied)).await.err());
    }
    fixture.delete("db").await;
    failures.push(session.fetch(&newest_grant).await.err());
    for error in failures.into_iter().flatten() {
        printed.extend([show(&error), error.to_string()]);
        let error = error.into_error(fixture.backend().name(), "a secret");
        printed.extend([show(&error), error.to_string()]);
    }
    let tokens = [fixture.token(&workload()).await, fixture.token(&stranger()).await];
    for text in printed {
        assert!(!text.contains(CANARY), "a value is printed: {text}");
        for token in tokens.iter().flatten() {
            // The signature is what makes a token one; the suite's own tokens have none worth the name.
            let signature = token.rsplit('.').next().filter(|signature| signature.len() > 8);
            assert!(!text.contains(signature.unwrap_or(token)), "a token is printed: {text}");
        }
    }
}

fn show(value: &impl Debug) -> String {
    format!("{value:?}")
}
