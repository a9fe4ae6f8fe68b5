// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Everything that a server can do wrong, one row each: what it is called, and whether the next address is asked.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "stand_in/vault.rs"]
mod vault_stand_in;

use std::sync::Arc;
use std::time::Duration;

use evanesce_engine::backend::vault::{PassedOver, VaultBackend};
use evanesce_engine::backend::{Backend, BackendErrorKind as Kind, Session};
use evanesce_engine::names::BackendName;
use evanesce_engine::spec::backend::{Limits, PemSource};
use tokio::net::TcpListener;
use vault_stand_in::{Certificate, Settings, StandIn, newest, open};

/// Half of it is for the connection, so a server that says nothing costs one or two seconds.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What is wrong with the server, its kind, words of its message, and whether the next address is asked.
struct Row(Fault, Kind, &'static str, Next);

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Nobody listens.
    Down,
    /// It takes connections and says nothing, not even in a handshake.
    Mute,
    /// It takes requests and never answers.
    Silent,
    /// It ends connections in the middle of an answer.
    Breaks,
    /// It answers with this status.
    Status(u16),
    /// It answers what is not JSON.
    Garbage,
    /// It answers five mebibytes.
    Large,
    /// Its certificate is not good.
    Tls(Certificate),
    /// Nobody trusts its authority.
    UnknownAuthority,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Asked,
    /// What it said is an answer, which the next one would give too.
    NotAsked,
}

#[rustfmt::skip]
const FAULTS: [Row; 18] = [
    Row(Fault::Down, Kind::Unavailable, "no connection: connection refused", Next::Asked),
    Row(Fault::Mute, Kind::TimedOut, "no connection in time", Next::Asked),
    Row(Fault::Silent, Kind::TimedOut, "no answer within limits.timeout", Next::Asked),
    Row(Fault::Breaks, Kind::Unavailable, "the connection broke", Next::Asked),
    Row(Fault::Status(307), Kind::Unavailable, "redirects to elsewhere.example, which is not followed", Next::Asked),
    Row(Fault::Status(472), Kind::Unavailable, "disaster-recovery secondary", Next::Asked),
    Row(Fault::Status(473), Kind::Unavailable, "standby that does not answer itself", Next::Asked),
    Row(Fault::Status(500), Kind::Unavailable, "cannot answer now", Next::Asked),
    Row(Fault::Status(502), Kind::Unavailable, "cannot answer now", Next::Asked),
    Row(Fault::Status(503), Kind::Unavailable, "sealed or down for maintenance", Next::Asked),
    Row(Fault::Tls(Certificate::Expired), Kind::Unavailable, "certificate has expired", Next::Asked),
    Row(Fault::Tls(Certificate::OtherName), Kind::Unavailable, "certificate is for another name", Next::Asked),
    Row(Fault::UnknownAuthority, Kind::Unavailable, "issuer that is not trusted", Next::Asked),
    Row(Fault::Status(429), Kind::Throttled, "asks for fewer requests", Next::NotAsked),
    Row(Fault::Status(403), Kind::Unauthenticated, "does not accept the pod's token", Next::NotAsked),
    Row(Fault::Status(418), Kind::Malformed, "no OpenBao or Vault answers so", Next::NotAsked),
    Row(Fault::Garbage, Kind::Malformed, "cannot be read", Next::NotAsked),
    Row(Fault::Large, Kind::Malformed, "more than 1048576 bytes", Next::NotAsked),
];

/// A server with that fault; its port, its authority if it is to be trusted, and what has to live with it.
async fn faulty(fault: Fault) -> (u16, String, Box<dyn std::any::Any>) {
    if let Fault::Down | Fault::Mute = fault {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // The kernel takes connections for a listener that never does.
        let lives: Box<dyn std::any::Any> =
            if matches!(fault, Fault::Mute) { Box::new(listener) } else { Box::new(()) };
        return (port, String::new(), lives);
    }
    let server = StandIn::with(if let Fault::Tls(certificate) = fault { certificate } else { Certificate::Good }).await;
    misbehave(&server, fault);
    let ca = if matches!(fault, Fault::UnknownAuthority) { String::new() } else { server.ca().to_owned() };
    (server.port(), ca, Box::new(server))
}

fn misbehave(server: &StandIn, fault: Fault) {
    match fault {
        Fault::Silent => server.always_silent(),
        Fault::Breaks => server.always_broken(),
        Fault::Status(307) => server.always(307, &[("location", "https://elsewhere.example/v1/canary")], "canary"),
        Fault::Status(status) => server.always(status, &[], "canary"),
        Fault::Garbage => server.always(200, &[], "<html>canary</html>"),
        Fault::Large => server.always(200, &[], "x".repeat(5 << 20)),
        Fault::Down | Fault::Mute | Fault::Tls(_) | Fault::UnknownAuthority => {}
    }
}

/// A backend with these addresses; of those whose authority is named, it trusts it.
fn backend(good: &StandIn, servers: &[(u16, &str)], settings: &Settings) -> (VaultBackend, Arc<PassedOver>) {
    let mut spec = good.spec(settings);
    spec.addresses = servers.iter().map(|(port, _)| format!("https://localhost:{port}")).collect();
    let authorities: String = servers.iter().map(|(_, ca)| *ca).collect();
    // Somebody has to be trusted.
    spec.ca = Some(PemSource::Inline(authorities + good.ca()));
    let limits = Limits { timeout: settings.timeout, ..Limits::default() };
    let passed = Arc::<PassedOver>::default();
    let name = BackendName::parse("vault").unwrap();
    (VaultBackend::new(&spec, name, limits, good.files(), Arc::clone(&passed)).unwrap(), passed)
}

fn settings() -> Settings {
    Settings { timeout: TIMEOUT, ..Settings::default() }
}

fn port_of(session: &dyn Session) -> u16 {
    session.login().endpoint.as_ref().unwrap().1
}

#[tokio::test]
async fn each_fault_has_its_kind_and_names_its_server() {
    for Row(fault, kind, says, _) in FAULTS {
        let good = StandIn::with_a_secret().await;
        let (port, ca, _lives) = faulty(fault).await;
        let (backend, _) = backend(&good, &[(port, &ca)], &settings());
        let error = open(&backend).await.err().unwrap();
        assert_eq!(error.kind, kind, "{fault:?}: {error}");
        assert!(error.message.contains(&format!("localhost:{port}")) && error.message.contains(says), "{error}");
        assert!(!error.message.contains("canary"), "{error}");
        // What a tenant hears names no server.
        let told = error.into_error(backend.name(), "a login");
        assert!(!told.message().contains("localhost") && told.detail().unwrap().contains("localhost"), "{told}");
    }
}

#[tokio::test]
async fn the_next_address_is_asked_where_the_first_one_is_at_fault_and_only_there() {
    for Row(fault, kind, says, next) in FAULTS {
        let good = StandIn::with_a_secret().await;
        let (port, ca, _lives) = faulty(fault).await;
        let (backend, passed) = backend(&good, &[(port, &ca), (good.port(), good.ca())], &settings());
        match (open(&backend).await, next) {
            (Ok(session), Next::Asked) => {
                assert_eq!(port_of(session.as_ref()), good.port(), "{fault:?}");
                session.fetch(&newest(&backend, "kv/db")).await.unwrap();
            }
            (Err(error), Next::NotAsked) => {
                assert_eq!(error.kind, kind, "{fault:?}: {error}");
                assert!(error.message.contains(says), "{error}");
                assert!(good.requests().is_empty(), "{fault:?}");
            }
            (answer, next) => panic!("{fault:?}: {next:?}, and {:?}", answer.err()),
        }
        assert_eq!(passed.counts()[0], u64::from(next == Next::Asked), "{fault:?}");
    }
}

#[tokio::test]
async fn what_answered_last_is_asked_first_and_one_that_failed_is_left_alone() {
    let (one, two) = (StandIn::with_a_secret().await, StandIn::with_a_secret().await);
    let (backend, passed) = backend(&one, &[(one.port(), ""), (two.port(), two.ca())], &settings());
    assert_eq!(port_of(open(&backend).await.unwrap().as_ref()), one.port());
    one.always(503, &[], "");
    let asked = one.requests().len();
    for _ in 0..5 {
        assert_eq!(port_of(open(&backend).await.unwrap().as_ref()), two.port());
    }
    assert_eq!((one.requests().len(), passed.counts()[..2].to_vec()), (asked + 1, vec![1, 0]));
    // And back, when its time comes.
    one.recover();
    two.always(503, &[], "");
    assert_eq!(port_of(open(&backend).await.unwrap().as_ref()), one.port());
    assert_eq!(passed.counts()[..2], [1, 1]);
}

#[tokio::test]
async fn where_all_addresses_fail_all_are_named() {
    let (one, two) = (StandIn::with_a_secret().await, StandIn::with_a_secret().await);
    one.always(503, &[("retry-after", "7")], "");
    two.always(307, &[("retry-after", "5")], "");
    let (backend, _) = backend(&one, &[(one.port(), ""), (two.port(), two.ca())], &settings());
    let error = open(&backend).await.err().unwrap();
    assert_eq!((error.kind, error.retry_after), (Kind::Unavailable, Some(Duration::from_secs(5))));
    for server in [&one, &two] {
        assert!(error.message.contains(&format!("localhost:{} answered", server.port())), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
    let error = backend.probe().await.err().unwrap();
    assert!(
        error.message.contains(&one.port().to_string()) && error.message.contains(&two.port().to_string()),
        "{error}"
    );
}

/// A read may have made credentials before its answer was lost: whatever happens to it, it is sent once.
#[tokio::test]
async fn a_read_is_never_sent_to_another_address() {
    for Row(fault, _, _, next) in FAULTS {
        if let Fault::Down | Fault::Mute | Fault::Tls(_) | Fault::UnknownAuthority = fault {
            continue; // of connections, and this one is open
        }
        for token_file in [false, true] {
            let (one, two) = (StandIn::with_a_secret().await, StandIn::with_a_secret().await);
            let settings = Settings { token_file, ..settings() };
            let (backend, _) = backend(&one, &[(one.port(), ""), (two.port(), two.ca())], &settings);
            let session = open(&backend).await.unwrap();
            assert_eq!(port_of(session.as_ref()), one.port());
            misbehave(&one, fault);
            let asked = one.requests().len();
            assert!(session.fetch(&newest(&backend, "database/creds/app")).await.is_err(), "{fault:?}");
            assert_eq!((one.requests().len() - asked, two.requests().len()), (1, 0), "{fault:?}");
            // The next session begins where the fault is not, without another try.
            if next == Next::Asked {
                assert_eq!(port_of(open(&backend).await.unwrap().as_ref()), two.port(), "{fault:?}");
                assert_eq!(one.requests().len() - asked, 1, "{fault:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_token_that_is_there_already_finds_the_address_that_answers() {
    let (one, two) = (StandIn::with_a_secret().await, StandIn::with_a_secret().await);
    let settings = Settings { token_file: true, ..settings() };
    let (alone, _) = backend(&one, &[(one.port(), "")], &settings);
    drop(open(&alone).await.unwrap());
    assert!(one.requests().is_empty(), "one address needs no search");
    one.always(473, &[], "");
    let (backend, _) = backend(&one, &[(one.port(), ""), (two.port(), two.ca())], &settings);
    let session = open(&backend).await.unwrap();
    session.fetch(&newest(&backend, "kv/db")).await.unwrap();
    assert_eq!(two.requests()[0].target, "/v1/auth/token/lookup-self");
    // A token without leave to look at itself may still read.
    two.next(403, &[], "");
    open(&backend).await.unwrap().fetch(&newest(&backend, "kv/db")).await.unwrap();
}

#[tokio::test]
async fn an_attempt_that_is_given_up_is_not_the_next_delivery_s_first() {
    let (one, two) = (StandIn::with_a_secret().await, StandIn::with_a_secret().await);
    one.always_silent();
    let settings = Settings { timeout: Duration::from_secs(60), ..Settings::default() };
    let (backend, _) = backend(&one, &[(one.port(), ""), (two.port(), two.ca())], &settings);
    // A delivery whose time is over before this address's is.
    let arrived = async {
        while one.requests().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = open(&backend) => panic!("it never answers"),
        () = arrived => {}
    }
    assert_eq!(port_of(open(&backend).await.unwrap().as_ref()), two.port());
    assert_eq!(one.requests().len(), 1, "its time was spent again");
}

#[tokio::test]
async fn opening_may_take_as_long_as_all_addresses_may() {
    let one = StandIn::with_a_secret().await;
    let (backend, _) = backend(&one, &[(1, ""), (2, ""), (one.port(), "")], &settings());
    assert_eq!(backend.patience(TIMEOUT), 3 * TIMEOUT);
}
