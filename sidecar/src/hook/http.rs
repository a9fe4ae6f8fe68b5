// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Sends one request over a connection of its own, and looks at the status of the answer.
//!
//! Nothing is pooled and no redirect is followed: a header may hold a token, and goes to the place that is configured and
//! nowhere else. What else is in the answer is not read.

use std::io;
use std::path::Path;
use std::sync::Arc;

use evanesce_runtime::metrics::Label;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_LENGTH, HOST};
use hyper::{Method, Request as Sent, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::Failure;
use crate::config::Request;
use crate::teller::News;

/// Sends it; a status that is expected is success.
pub async fn send(request: &Request, news: &News) -> Result<(), Failure> {
    let sent = build(request, news)?;
    let answer = if let Some(socket) = &request.unix_socket {
        let stream = UnixStream::connect(socket).await.map_err(|error| no_socket(socket, &error))?;
        exchange(stream, sent).await
    } else {
        let (host, port, tls) = target(&request.url);
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await.map_err(|error| {
            Failure::failed(format!("{host}:{port} cannot be reached: {error}; the application may not listen yet"))
        })?;
        if tls {
            exchange(encrypt(stream, host, request.ca_file.as_deref()).await?, sent).await
        } else {
            exchange(stream, sent).await
        }
    };
    let status = answer.map_err(|error| Failure::failed(format!("no answer: {error}")))?.status();
    let expected =
        if request.status.is_empty() { status.is_success() } else { request.status.contains(&status.as_u16()) };
    if expected {
        return Ok(());
    }
    let wanted: Vec<_> = request.status.iter().map(u16::to_string).collect();
    let wanted = if wanted.is_empty() { "200 to 299".to_owned() } else { wanted.join(" or ") };
    Err(Failure::failed(format!("the answer is {status}, and {wanted} was expected")))
}

fn build(request: &Request, news: &News) -> Result<Sent<String>, Failure> {
    let path = request.url.path_and_query().map_or("/", |path| path.as_str());
    let host = request.url.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let mut sent = Sent::builder()
        .method(request.method.clone())
        .uri(path)
        .header(HOST, host)
        .header("user-agent", concat!("evanesce-sidecar/", env!("CARGO_PKG_VERSION")))
        .header("evanesce-volume", &news.volume)
        .header("evanesce-on", news.on.as_str())
        .header("evanesce-generation", news.generation.to_string());
    if !matches!(request.method, Method::GET | Method::DELETE) {
        // Not written by itself for an empty body, and some servers answer 411 without it.
        sent = sent.header(CONTENT_LENGTH, 0);
    }
    if let Some(headers) = sent.headers_mut() {
        // Theirs win.
        for (name, value) in &request.headers {
            headers.insert(name, value.clone());
        }
    }
    sent.body(String::new()).map_err(|error| Failure::failed(format!("the request cannot be written: {error}")))
}

/// Host, port, and whether over TLS.
fn target(url: &Uri) -> (&str, u16, bool) {
    let tls = url.scheme_str() == Some("https");
    (url.host().unwrap_or_default(), url.port_u16().unwrap_or(if tls { 443 } else { 80 }), tls)
}

async fn exchange<S>(stream: S, sent: Sent<String>) -> hyper::Result<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It is driven here, and dropped with its buffers once there is an answer.
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(sender.send_request(sent));
    tokio::select! {
        biased;
        answer = answer.as_mut() => answer,
        // The answer, or why there is none, is there with its end.
        _ = connection.as_mut() => answer.await,
    }
}

async fn encrypt(
    stream: TcpStream,
    host: &str,
    ca_file: Option<&Path>,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Failure> {
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|_| Failure::failed(format!("{host} is no name that a certificate could have")))?;
    let connector = TlsConnector::from(Arc::new(trust(ca_file)?));
    connector.connect(name, stream).await.map_err(|error| {
        Failure::failed(format!(
            "TLS with {host}: {error}; `caFile` says whom to trust in place of the system's authorities"
        ))
    })
}

/// Read anew each time: the file may be one that rotates, and the system's are too many to keep for a request a day.
fn trust(ca_file: Option<&Path>) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    let (added, whence) = match ca_file {
        Some(path) => {
            let pem = std::fs::read(path)
                .map_err(|error| Failure::failed(format!("caFile {} cannot be read: {error}", path.display())))?;
            let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
            let read = read.map_err(|error| Failure::failed(format!("caFile {}: {error}", path.display())))?;
            (roots.add_parsable_certificates(read).0, path.display().to_string())
        }
        None => {
            (roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs).0, "the system".to_owned())
        }
    };
    if added == 0 {
        return Err(Failure::failed(format!(
            "{whence} has no certificate of an authority: set `caFile` to PEM certificates"
        )));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Failure::failed(format!("TLS: {error}")))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn no_socket(socket: &Path, error: &io::Error) -> Failure {
    let cure = match error.kind() {
        io::ErrorKind::NotFound => ": the application makes it, in a folder that both containers mount",
        io::ErrorKind::ConnectionRefused => ": nobody listens on it any more",
        io::ErrorKind::PermissionDenied => ": this uid has to be allowed to write to it",
        _ => "",
    };
    Failure::failed(format!("socket {} cannot be connected to: {error}{cure}", socket.display()))
}
