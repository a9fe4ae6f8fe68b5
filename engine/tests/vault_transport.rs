// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What the vault backend sends, and what it makes of everything that can come back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "stand_in/vault.rs"]
mod vault_stand_in;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evanesce_engine::backend::contract::{grant, parse_token, unsigned_token, workload};
use evanesce_engine::backend::vault::VaultBackend;
use evanesce_engine::backend::{Backend, BackendError, BackendErrorKind as Kind, Caller, Session};
use evanesce_engine::names::BackendName;
use evanesce_engine::proxy::HttpsProxy;
use evanesce_engine::secret::Secret;
use evanesce_engine::spec::backend::{Limits, PemSource, VaultAuth, VaultSpec};
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use vault_stand_in::{Certificate, KEY, Settings, StandIn, newest, open};

fn error<T>(answer: Result<T, BackendError>) -> BackendError {
    answer.err().unwrap()
}

fn value(secret: &Secret) -> &[u8] {
    secret.values[KEY].bytes.expose()
}

/// A stand-in that holds `kv/db`, a backend for it and an open session.
async fn one_secret(settings: &Settings) -> (StandIn, VaultBackend, Box<dyn Session>) {
    let server = StandIn::with_a_secret().await;
    let backend = server.backend(settings);
    let session = open(&backend).await.unwrap();
    (server, backend, session)
}

#[tokio::test]
async fn the_path_that_is_sent_is_the_path_that_policy_saw() {
    let (server, backend, session) = one_secret(&Settings::default()).await;
    for path in [
        "kv/a..b",
        "kv/...",
        "kv/..a/b..",
        "kv/a@b:c,d=e+f!~",
        "kv/-._~@+=:,!",
        "kv/A/b/C",
        "kv/config",
        "kv/payments/data/x",
        "raw/..x/@:1",
        "database/creds/app",
        &format!("kv/{}", "long/".repeat(200) + "x"),
    ] {
        let grant = newest(&backend, path);
        // Whether it exists does not matter here.
        let _ = session.fetch(&grant).await;
        assert_eq!(server.requests().last().unwrap().target, format!("/v1/{}", grant.path().as_str()));
    }
    let fixed = grant(&backend, "kv/db", Some(7), BTreeMap::new());
    let _ = session.fetch(&fixed).await;
    assert_eq!(server.requests().last().unwrap().target, "/v1/kv/data/db?version=7");
}

#[tokio::test]
async fn a_request_carries_its_token_and_the_servers_namespace() {
    let settings = Settings { namespace: Some("team-a/sub".into()), ..Settings::default() };
    let (server, backend, session) = one_secret(&settings).await;
    session.fetch(&newest(&backend, "kv/db")).await.unwrap();
    let [login, read] = &server.requests()[..] else { panic!("a login and a read") };
    assert_eq!((login.method.as_str(), login.target.as_str()), ("POST", "/v1/auth/kubernetes/login"));
    let jwt = unsigned_token(&workload(), "uid-1");
    let sent: serde_json::Value = serde_json::from_slice(&login.body).unwrap();
    assert_eq!(sent, serde_json::json!({"role": "app", "jwt": jwt}));
    assert!(!login.headers.contains_key("x-vault-token"));
    assert_eq!((read.method.as_str(), &*read.headers["x-vault-token"]), ("GET", "s.canary-token"));
    for request in [login, read] {
        assert_eq!(request.headers["x-vault-request"], "true");
        assert_eq!(request.headers["x-vault-namespace"], "team-a/sub");
    }
}

#[tokio::test]
async fn arguments_are_sent_in_the_body_and_nowhere_else() {
    let (server, backend, session) = one_secret(&Settings::default()).await;
    let args = BTreeMap::from([("common_name".to_owned(), "web.example".to_owned())]);
    let secret = session.fetch(&grant(&backend, "pki/issue/web", None, args)).await.unwrap();
    assert!(secret.expires_at.is_some());
    let request = server.requests().pop().unwrap();
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/v1/pki/issue/web"));
    assert_eq!(request.body, br#"{"common_name":"web.example"}"#);
    let args = BTreeMap::from([("common_name".to_owned(), "other.example".to_owned())]);
    assert_eq!(error(session.fetch(&grant(&backend, "pki/issue/web", None, args)).await).kind, Kind::Denied);
    assert_eq!(error(session.fetch(&newest(&backend, "pki/issue/web")).await).kind, Kind::Malformed);
}

#[tokio::test]
async fn a_role_is_made_of_the_pods_names_and_an_allow_entry_may_name_another() {
    let server = StandIn::start().await;
    let backend = server.backend(&Settings { role: "{namespace}.{serviceAccount}", ..Settings::default() });
    let workload = workload();
    let token = parse_token(&unsigned_token(&workload, "uid-1"));
    let caller = Caller { workload: &workload, token: Some(&token) };
    assert_eq!(backend.identity(&caller, None).unwrap().role, "payments.app");
    let identity = backend.identity(&caller, Some("app")).unwrap();
    backend.open(&caller, &identity).await.unwrap();
    assert!(String::from_utf8(server.requests().pop().unwrap().body).unwrap().contains(r#""role":"app""#));
}

/// A proxy that takes `CONNECT` and nothing else, and remembers what it was asked for.
async fn proxy() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, asked) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Vec<String>>>::default());
    let remembered = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let remembered = Arc::clone(&remembered);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await?);
                }
                let head = String::from_utf8(head).unwrap();
                remembered.lock().unwrap().push(head.clone());
                let to = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
                let mut server = TcpStream::connect(to.expect("only CONNECT")).await?;
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    (port, asked)
}

#[tokio::test]
async fn a_proxy_sees_the_servers_name_and_nothing_more() {
    let (port, asked) = proxy().await;
    let server = StandIn::with_a_secret().await;
    let by = |except| HttpsProxy::parse(&format!("http://127.0.0.1:{port}"), except).ok();
    let near = server.backend(&Settings::default()).by_way_of(by("other.example,localhost"));
    open(&near).await.unwrap().fetch(&newest(&near, "kv/db")).await.unwrap();
    assert!(asked.lock().unwrap().is_empty(), "the host is among the exceptions");

    let far = server.backend(&Settings::default()).by_way_of(by("other.example"));
    open(&far).await.unwrap().fetch(&newest(&far, "kv/db")).await.unwrap();
    let asked = asked.lock().unwrap();
    assert!(!asked.is_empty());
    for head in asked.iter() {
        assert!(head.starts_with("CONNECT localhost:"), "{head}");
        for hidden in ["s.canary-token", "kv/", "x-vault"] {
            assert!(!head.to_lowercase().contains(hidden), "{head}");
        }
    }
}

#[tokio::test]
async fn a_request_in_the_clear_never_takes_the_proxy() {
    let (port, asked) = proxy().await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let server = StandIn::start().await;
    let spec = VaultSpec { addresses: vec![format!("http://{closed}")], ca: None, ..server.spec(&Settings::default()) };
    let name = BackendName::parse("vault").unwrap();
    let backend = VaultBackend::new(&spec, name, Limits::default(), server.files(), Arc::default()).unwrap();
    let backend = backend.by_way_of(HttpsProxy::parse(&format!("http://127.0.0.1:{port}"), "").ok());
    assert_eq!(error(open(&backend).await).kind, Kind::Unavailable);
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_token_file_is_read_again_for_each_session() {
    let settings = Settings { token_file: true, ..Settings::default() };
    let (server, backend, session) = one_secret(&settings).await;
    let db = newest(&backend, "kv/db");
    session.fetch(&db).await.unwrap();
    assert_eq!(server.requests().pop().unwrap().headers["x-vault-token"], "s.from-file");
    assert!(!session.login().performed);
    server.credentials("token", "\n s.changed \r\n");
    open(&backend).await.unwrap().fetch(&db).await.unwrap();
    assert_eq!(server.requests().pop().unwrap().headers["x-vault-token"], "s.changed");
    for bad in ["", " \n", "s.two words", "s.a\nX-Vault-Namespace: other"] {
        server.credentials("token", bad);
        let error = error(open(&backend).await);
        assert_eq!(error.kind, Kind::Credential);
        assert!(error.message.contains("credentials file \"token\""), "{error}");
        assert!(!error.message.contains("s."), "{error}");
    }
}

fn app_role() -> Settings {
    let auth = VaultAuth::AppRole {
        mount: "approle".into(),
        role_id_file: "role-id".into(),
        secret_id_file: "secret-id".into(),
    };
    Settings { auth: Some(auth), ..Settings::default() }
}

#[tokio::test]
async fn the_files_of_an_approle_are_read_again_for_each_login_and_never_quoted() {
    let server = StandIn::with_a_secret().await;
    let backend = server.backend(&app_role());
    let missing = error(open(&backend).await);
    assert!(missing.kind == Kind::Credential && missing.message.contains("\"role-id\""), "{missing}");
    server.credentials("role-id", "the-role\n");
    server.credentials("secret-id", "canary-secret-id-that-is-over");
    let over = error(open(&backend).await);
    assert_eq!(over.kind, Kind::Credential);
    for says in ["credentials file \"role-id\"", "\"secret-id\"", "write a new secret id"] {
        assert!(over.message.contains(says), "{over}");
    }
    let told = over.into_error(backend.name(), "a login");
    assert!(told.message().contains("platform team") && !told.message().contains("secret-id"), "{told}");

    server.credentials("secret-id", "canary-secret-id\n");
    let session = open(&backend).await.unwrap();
    assert_eq!((session.login().performed, session.login().method), (true, "approle"));
    session.fetch(&newest(&backend, "kv/db")).await.unwrap();
    let sent: serde_json::Value = serde_json::from_slice(&server.requests()[1].body).unwrap();
    assert_eq!(sent, serde_json::json!({"role_id": "the-role", "secret_id": "canary-secret-id"}));
    for (file, bad) in [("role-id", ""), ("secret-id", "canary two"), ("secret-id", "canary\0"), ("role-id", " \n")] {
        server.credentials("role-id", "the-role");
        server.credentials("secret-id", "canary-secret-id");
        server.credentials(file, bad);
        let error = error(open(&backend).await);
        assert_eq!(error.kind, Kind::Credential);
        assert!(error.message.contains(&format!("credentials file {file:?} does not hold one")), "{error}");
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }
}

#[tokio::test]
async fn a_credential_of_the_platforms_is_the_same_for_every_pod_and_a_jwt_may_tell_pods_apart() {
    let server = StandIn::start().await;
    let jwt = |share_pods| {
        let (mount, role, audience) = ("jwt".to_owned(), "app".to_owned(), "vault".to_owned());
        Settings { auth: Some(VaultAuth::Jwt { mount, role, audience, share_pods }), ..Settings::default() }
    };
    let one = workload();
    let mut other = workload();
    other.pod_uid = evanesce_engine::names::PodUid::parse("22222222-2222-3333-4444-555555555555").unwrap();
    for (settings, told_apart) in
        [(Settings::default(), false), (jwt(true), false), (jwt(false), true), (app_role(), false)]
    {
        let backend = server.backend(&settings);
        let identity = |workload| {
            let token = parse_token(&unsigned_token(workload, "uid-1"));
            backend.identity(&Caller { workload, token: Some(&token) }, None).unwrap()
        };
        assert_eq!(identity(&one) != identity(&other), told_apart, "{:?}", settings.auth);
        assert_eq!(identity(&one).caller.is_some(), backend.audience().is_some(), "{:?}", settings.auth);
    }
}

#[tokio::test]
async fn a_mount_of_the_other_kv_version_is_named_with_the_key_to_change() {
    let (server, backend, session) = one_secret(&Settings::default()).await;
    for status in [403, 404] {
        for (path, sent, cure) in [
            ("kv/db", "/v1/kv/data/db", "if its mount is KV version 1, name the mount in spec.vault.kv1Mounts"),
            ("kv1/db", "/v1/kv1/db", "if its mount is KV version 2, name the mount in spec.vault.kvMounts"),
            ("undeclared/db", "/v1/undeclared/db", "name the mount in spec.vault.kvMounts"),
        ] {
            server.next(status, &[], "");
            let error = error(session.fetch(&newest(&backend, path)).await);
            assert!(error.message.contains(cure), "{error}");
            assert_eq!(server.requests().pop().unwrap().target, sent);
        }
    }
    // Version 1 gives the values without a wrapper, and no version.
    let secret = session.fetch(&newest(&backend, "kv1/db")).await.unwrap();
    assert_eq!(value(&secret), b"value");
    assert!(secret.version.is_none() && secret.lease.is_none());
}

#[tokio::test]
async fn no_redirect_is_followed() {
    let (server, backend, session) = one_secret(&Settings::default()).await;
    let elsewhere = StandIn::start().await;
    for status in [301, 302, 303, 307, 308] {
        let before = server.requests().len();
        let location = format!("https://localhost:{}/v1/kv/data/db?canary", elsewhere.port());
        server.next(status, &[("location", &location)], "");
        let error = error(session.fetch(&newest(&backend, "kv/db")).await);
        assert_eq!(error.kind, Kind::Unavailable);
        assert!(error.message.contains("redirects to localhost"), "{error}");
        assert!(!error.message.contains("canary"), "{error}");
        assert_eq!(server.requests().len(), before + 1);
    }
    assert_eq!(elsewhere.connections_made(), 0);
}

#[tokio::test]
async fn refusals_are_told_apart_and_their_bodies_are_not_passed_on() {
    let (server, backend, session) = one_secret(&Settings::default()).await;
    for (status, kind) in [
        (400, Kind::Malformed),
        (403, Kind::Denied),
        (404, Kind::NotFound),
        (412, Kind::Unavailable),
        (429, Kind::Throttled),
        (472, Kind::Unavailable),
        (473, Kind::Unavailable),
        (500, Kind::Unavailable),
        (502, Kind::Unavailable),
        (503, Kind::Unavailable),
        (204, Kind::Malformed),
        (418, Kind::Malformed),
    ] {
        let body = if status == 204 { "" } else { "canary-body" };
        server.next(status, &[], body);
        let error = error(session.fetch(&newest(&backend, "kv/db")).await);
        assert_eq!(error.kind, kind, "{status}");
        assert!(
            error.message.contains(&format!("localhost:{} answered {status} to kv/data/db", server.port())),
            "{error}"
        );
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }
}

#[tokio::test]
async fn a_login_that_is_refused_says_so_whatever_the_status() {
    let server = StandIn::start().await;
    let backend = server.backend(&Settings::default());
    for (status, kind) in [
        (400, Kind::Unauthenticated),
        (401, Kind::Unauthenticated),
        (403, Kind::Unauthenticated),
        (404, Kind::Unauthenticated),
        (429, Kind::Throttled),
        (500, Kind::Unavailable),
        (307, Kind::Unavailable),
    ] {
        server.next(status, &[], "canary-body");
        let error = error(open(&backend).await);
        assert_eq!(error.kind, kind, "{status}");
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        // Both are what a server says where the mount or the namespace is another one.
        let place = error.message.contains("look at spec.vault.auth.kubernetes.mount and spec.vault.namespace");
        assert_eq!(place, matches!(status, 403 | 404), "{error}");
    }
    for body in ["", "{}", r#"{"auth":null}"#, r#"{"auth":{"client_token":"canary"}}"#, "canary"] {
        server.next(200, &[], body);
        let error = error(open(&backend).await);
        assert_eq!(error.kind, Kind::Malformed);
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_secret_is_malformed_and_not_quoted() {
    let (server, backend, session) = one_secret(&Settings::default()).await;
    for body in
        ["", "canary", "<html>canary</html>", r#"{"data":"canary"}"#, r#"{"data":{"data":"canary"}}"#, "\u{0}canary"]
    {
        server.next(200, &[], body);
        let error = error(session.fetch(&newest(&backend, "kv/db")).await);
        assert_eq!(error.kind, Kind::Malformed);
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }
}

#[tokio::test]
async fn an_answer_of_a_mebibyte_is_taken_and_a_larger_one_is_not() {
    const LARGEST: usize = 1024 * 1024;
    let (server, backend, session) = one_secret(&Settings::default()).await;
    let answer = |length: usize| {
        let (head, tail) = (r#"{"data":{"data":{"a":""#, r#""},"metadata":{"version":1}}}"#);
        format!("{head}{}{tail}", "x".repeat(length - head.len() - tail.len()))
    };
    server.next(200, &[], answer(LARGEST));
    assert!(session.fetch(&newest(&backend, "kv/db")).await.unwrap().values[KEY].bytes.len() > LARGEST - 100);
    server.next(200, &[], answer(LARGEST + 1));
    let announced = error(session.fetch(&newest(&backend, "kv/db")).await);
    assert_eq!(announced.kind, Kind::Malformed);
    assert!(announced.message.contains("more than 1048576 bytes"), "{announced}");
    // A length that is not announced is counted.
    server.next_chunked(answer(LARGEST + 1));
    let counted = error(session.fetch(&newest(&backend, "kv/db")).await);
    assert!(counted.message.contains("more than 1048576 bytes"), "{counted}");
    server.next_chunked(answer(LARGEST));
    session.fetch(&newest(&backend, "kv/db")).await.unwrap();
}

#[tokio::test]
async fn a_wish_for_when_to_come_back_is_passed_on_in_both_its_forms() {
    let (server, backend, session) = one_secret(&Settings::default()).await;
    for (status, header, wish) in [
        (429, Some("7"), Some(7)),
        (503, Some("120"), Some(120)),
        (429, Some("Sun, 06 Nov 1994 08:49:37 GMT"), Some(0)),
        (429, Some("soon"), None),
        (429, None, None),
    ] {
        let headers: Vec<_> = header.map(|header| ("retry-after", header)).into_iter().collect();
        server.next(status, &headers, "");
        let error = error(session.fetch(&newest(&backend, "kv/db")).await);
        assert_eq!(error.retry_after, wish.map(Duration::from_secs), "{header:?}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_costs_the_limit_and_no_more() {
    let settings = Settings { timeout: Duration::from_millis(200), ..Settings::default() };
    let (server, backend, session) = one_secret(&settings).await;
    server.next_silent();
    let db = newest(&backend, "kv/db");
    let answer = tokio::time::timeout(Duration::from_secs(10), session.fetch(&db)).await;
    assert_eq!(error(answer.expect("an end")).kind, Kind::TimedOut);
    assert_eq!(value(&session.fetch(&newest(&backend, "kv/db")).await.unwrap()), b"value");
}

#[test]
fn a_proxy_of_the_environment_is_not_used() {
    // The environment is read when a client is made; a process of its own has its own.
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    for name in ["ALL_PROXY", "HTTPS_PROXY", "https_proxy"] {
        child.env(name, "http://127.0.0.1:9");
    }
    let output = child.args(["--exact", "a_request_carries_its_token_and_the_servers_namespace"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
async fn only_a_server_with_the_right_certificate_is_sent_anything() {
    let other = StandIn::start().await;
    let other_ca = || Some(PemSource::Inline(other.ca().to_owned()));
    for (certificate, ca, says) in [
        (Certificate::Good, other_ca(), "issuer that is not trusted"),
        (Certificate::Expired, None, "has expired"),
        (Certificate::OtherName, None, "for another name"),
    ] {
        let server = StandIn::with(certificate).await;
        let backend = server.backend(&Settings { ca, ..Settings::default() });
        for error in [error(open(&backend).await), error(backend.probe().await)] {
            assert_eq!(error.kind, Kind::Unavailable);
            assert!(error.message.contains(says), "{error}");
        }
        assert!(server.requests().is_empty());
    }
}

#[tokio::test]
async fn without_a_private_authority_only_the_systems_are_trusted() {
    let server = StandIn::start().await;
    let mut spec = server.spec(&Settings::default());
    spec.ca = None;
    let name = BackendName::parse("vault").unwrap();
    let backend = VaultBackend::new(&spec, name, Limits::default(), server.files(), Arc::default()).unwrap();
    let error = error(backend.probe().await);
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.contains("spec.vault.caBundle"), "{error}");
}

#[tokio::test]
async fn a_private_authority_in_a_file_is_read_again_when_it_changes() {
    let (server, other) = (StandIn::start().await, StandIn::start().await);
    let backend = server.backend(&Settings { ca: Some(PemSource::File("ca".into())), ..Settings::default() });
    let missing = error(backend.probe().await);
    assert!(missing.kind == Kind::Unavailable && missing.message.contains("\"ca\""), "{missing}");
    server.credentials("ca", other.ca());
    assert!(error(backend.probe().await).message.contains("not trusted"));
    server.credentials("ca", server.ca());
    backend.probe().await.unwrap();
    server.credentials("ca", "no certificate");
    assert!(error(backend.probe().await).message.contains("holds no PEM certificate"));
}

#[tokio::test]
async fn a_server_that_is_gone_is_unavailable() {
    let (server, backend, _session) = one_secret(&Settings::default()).await;
    let port = server.port();
    drop(server);
    // The listener closes when its task has ended.
    let error = loop {
        if let Err(error) = backend.probe().await {
            break error;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.contains(&format!("localhost:{port} did not answer sys/health")), "{error}");
}

#[tokio::test]
async fn health_is_asked_without_a_token_and_standbys_count() {
    let server = StandIn::start().await;
    let backend = server.backend(&Settings::default());
    backend.probe().await.unwrap();
    let request = server.requests().pop().unwrap();
    assert_eq!(request.target, "/v1/sys/health?standbyok=true&perfstandbyok=true");
    assert!(!request.headers.contains_key("x-vault-token"));
    server.next(503, &[], "");
    let sealed = error(backend.probe().await);
    assert!(sealed.kind == Kind::Unavailable && sealed.message.contains("unseal"), "{sealed}");
    server.next(501, &[], "");
    assert!(error(backend.probe().await).message.contains("not initialised"));
}

#[tokio::test]
async fn dropping_a_session_closes_every_connection_that_carried_a_secret() {
    let (server, backend, session) = one_secret(&Settings::default()).await;
    let db = newest(&backend, "kv/db");
    for answer in join_all((0..4).map(|_| session.fetch(&db))).await {
        assert_eq!(value(&answer.unwrap()), b"value");
    }
    for _ in 0..20 {
        session.fetch(&db).await.unwrap();
    }
    // A handshake that was begun and overtaken may leave one more; most requests need none.
    assert!(server.connections_made() <= 10, "{} connections for 25 requests", server.connections_made());
    let mut open = server.connections();
    assert!(*open.borrow_and_update() > 0, "kept alive within the session");
    drop(session);
    let closed = tokio::time::timeout(Duration::from_secs(5), open.wait_for(|open| *open == 0)).await;
    assert!(closed.is_ok(), "{} connections stay open", *server.connections().borrow());
}

#[tokio::test]
async fn metadata_that_may_not_be_read_leaves_the_version_unknown() {
    let (server, backend, session) = one_secret(&Settings::default()).await;
    let db = newest(&backend, "kv/db");
    assert_eq!(session.version(&db).await.unwrap().unwrap().as_str(), "1");
    assert_eq!(server.requests().pop().unwrap().target, "/v1/kv/metadata/db");
    server.next(403, &[], "");
    assert!(session.version(&db).await.unwrap().is_none());
    let asked = server.requests().len();
    assert!(session.version(&newest(&backend, "database/creds/app")).await.unwrap().is_none());
    assert_eq!(server.requests().len(), asked, "nothing is sent where there is no version");
}

#[tokio::test]
async fn a_class_with_a_wrong_setting_is_refused_before_anything_is_sent() {
    let server = StandIn::start().await;
    let build = |change: fn(&mut VaultSpec)| {
        let mut spec = server.spec(&Settings::default());
        change(&mut spec);
        let name = BackendName::parse("vault").unwrap();
        VaultBackend::new(&spec, name, Limits::default(), Arc::clone(&server.files()) as _, Arc::default()).map(|_| ())
    };
    build(|_| ()).unwrap();
    type Change = (&'static str, fn(&mut VaultSpec));
    let wrong: [Change; 8] = [
        ("clientCertFile", |spec| spec.auth = VaultAuth::Cert { mount: "cert".into(), role: None }),
        ("kv1Mounts", |spec| spec.kv1_mounts = vec!["kv".into()]),
        ("address", |spec| spec.addresses = vec!["vault.example".into()]),
        ("ca", |spec| spec.ca = Some(PemSource::Inline("nothing".into()))),
        ("ca", |spec| spec.addresses = vec!["http://vault.example".into()]),
        ("namespace", |spec| spec.namespace = Some("a b".into())),
        ("kvMounts", |spec| spec.kv_mounts = vec!["sys".into()]),
        ("kvMounts", |spec| spec.kv_mounts = vec!["kv/".into()]),
    ];
    for (field, change) in wrong {
        let error = build(change).unwrap_err();
        assert!(error.message().contains(field), "{error}");
    }
}
