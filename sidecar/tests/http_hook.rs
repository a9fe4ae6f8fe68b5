// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Requests of hooks over real sockets: TCP, TLS with an authority of one's own, and a Unix socket.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use evanesce_sidecar::config::{Action, Config, On};
use evanesce_sidecar::hook::{Failure, Real};
use evanesce_sidecar::metrics::Metrics;
use evanesce_sidecar::sight::Generation;
use evanesce_sidecar::teller::{Attempt as _, News};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

/// Attempts a hook with this `http`.
async fn attempt(http: &str) -> Result<(), Failure> {
    let text = format!("volumes: [{{name: db, path: /secrets, hooks: [{{name: a, timeout: 2s, http: {{{http}}}}}]}}]");
    let config = Config::parse(&text).unwrap_or_else(|error| panic!("{error}"));
    let news = News {
        volume: "db".to_owned(),
        path: Path::new("/secrets").into(),
        on: On::Changed,
        generation: Generation::parse("..g7").unwrap(),
    };
    assert!(matches!(config.volumes[0].hooks[0].action, Action::Http(_)));
    Real(Arc::new(Metrics::declare(Arc::default()).0)).attempt(&config.volumes[0].hooks[0], &news).await
}

/// Reads the head of a request and answers with this status line.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, status: &str) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let text = format!("HTTP/1.1 {status}\r\nlocation: /elsewhere\r\ncontent-length: 2\r\n\r\nno");
    stream.write_all(text.as_bytes()).await.unwrap();
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn the_status_decides_and_no_redirect_is_followed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("url: \"http://{}/reload\"", listener.local_addr().unwrap());
    for (settings, status, says) in [
        ("", "204 No Content", None),
        ("", "503 Service Unavailable", Some("the answer is 503 Service Unavailable, and 200 to 299 was expected")),
        ("", "302 Found", Some("the answer is 302 Found")),
        (", status: [200, 302]", "302 Found", None),
        (", status: [200, 202], method: GET", "204 No Content", Some("and 200 or 202 was expected")),
    ] {
        let http = format!("{url}{settings}");
        let (result, (stream, _)) = tokio::join!(attempt(&http), async {
            let (stream, from) = listener.accept().await.unwrap();
            (answer(stream, status).await, from)
        });
        let method = if settings.contains("GET") { "GET /reload" } else { "POST /reload" };
        assert!(stream.starts_with(method), "{stream}");
        match says {
            None => result.unwrap(),
            Some(says) => assert!(result.clone().unwrap_err().to_string().contains(says), "{result:?}"),
        }
    }
}

#[tokio::test]
async fn who_does_not_answer_is_left_after_the_timeout_and_who_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("url: \"http://{}/\"", listener.local_addr().unwrap());
    assert_eq!(attempt(&url).await, Err(Failure::TimedOut(Duration::from_secs(2))));
    drop(listener);
    let failure = attempt(&url).await.unwrap_err().to_string();
    assert!(failure.contains("cannot be reached") && failure.contains("may not listen yet"), "{failure}");
}

#[tokio::test]
async fn a_server_is_trusted_by_the_file_of_authorities_and_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.path().join(name), issuer.pem()).unwrap();
        issuer
    };
    let (issuer, _other) = (authority("ca.pem"), authority("other.pem"));
    std::fs::write(folder.path().join("empty.pem"), "").unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // Whoever does not trust us hangs up.
            if let Ok(stream) = acceptor.accept(stream).await {
                answer(stream, "200 OK").await;
            }
        }
    });
    let ask = async |host: &str, file: &str| {
        let file = folder.path().join(file).display().to_string();
        attempt(&format!("url: \"https://{host}:{port}/\", caFile: {file}")).await
    };
    ask("localhost", "ca.pem").await.unwrap();
    for (host, file, says) in [
        ("localhost", "other.pem", "UnknownIssuer"),
        ("127.0.0.1", "ca.pem", "not valid for name"),
        ("localhost", "empty.pem", "has no certificate of an authority: set `caFile`"),
        ("localhost", "nowhere.pem", "nowhere.pem cannot be read"),
    ] {
        let failure = ask(host, file).await.unwrap_err().to_string();
        assert!(failure.contains(says), "{file}: {failure}");
    }
    // The system's authorities did not sign it.
    let failure = attempt(&format!("url: \"https://localhost:{port}/\"")).await.unwrap_err().to_string();
    assert!(failure.contains("`caFile`"), "{failure}");
}

#[tokio::test]
async fn a_unix_socket_takes_the_place_of_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let http = format!("url: \"http://app/reload\", unixSocket: {}", socket.display());
    let failure = attempt(&http).await.unwrap_err().to_string();
    assert!(failure.contains("the application makes it, in a folder that both containers mount"), "{failure}");
    let listener = UnixListener::bind(&socket).unwrap();
    let (result, head) =
        tokio::join!(attempt(&http), async { answer(listener.accept().await.unwrap().0, "200 OK").await });
    result.unwrap();
    assert!(head.starts_with("POST /reload HTTP/1.1\r\n") && head.contains("host: app\r\n"), "{head}");
}
