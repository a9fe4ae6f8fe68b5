// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The one way to the server.
//!
//! What is sent is the path that policy saw, byte for byte: a path that the URL parser would write in another way is not
//! sent at all. The body of a refusal is never read: it may quote what was sent.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, Response, Url};
use rustls::ClientConfig;
use zeroize::Zeroizing;

use super::failure;
use crate::backend::https::{self, LARGEST, Unread, Way};
use crate::backend::{BackendError, BackendErrorKind, retry_after};
use crate::error::Error;
use crate::proxy::HttpsProxy;

const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// A server that forwards for browsers refuses requests without it.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");
const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");

/// The server, as the class names it.
#[derive(Debug)]
pub(super) struct Server {
    origin: String,
    host: String,
    port: u16,
    tls: bool,
    namespace: Option<HeaderValue>,
    timeout: Duration,
    parallel: usize,
}

impl Server {
    /// Checks the address and the server's own namespace.
    pub(super) fn new(
        address: &str,
        namespace: Option<&str>,
        timeout: Duration,
        parallel: usize,
    ) -> Result<Self, Error> {
        let wrong = || Error::invalid("must be https://host[:port], or http://host[:port], without a path");
        let url = Url::parse(address).map_err(|_| wrong())?;
        let bare =
            url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return Err(wrong()) };
        if !bare || !matches!(url.scheme(), "http" | "https") || !matches!(url.path(), "" | "/") {
            return Err(wrong());
        }
        let header = |namespace: &str| {
            let fits = !namespace.is_empty() && namespace.bytes().all(|byte| byte.is_ascii_graphic());
            let value = HeaderValue::from_str(namespace).ok().filter(|_| fits);
            value.ok_or_else(|| Error::invalid("namespace must be printable text without spaces"))
        };
        let namespace = namespace.map(header).transpose()?;
        let origin = format!("{}://{host}:{port}", url.scheme());
        Ok(Self { origin, host: host.to_owned(), port, tls: url.scheme() == "https", namespace, timeout, parallel })
    }

    /// Whether the address is `https://`.
    pub(super) fn tls(&self) -> bool {
        self.tls
    }

    /// Host and port, for events.
    pub(super) fn endpoint(&self) -> (String, u16) {
        (self.host.clone(), self.port)
    }

    /// Host and port, for messages.
    pub(super) fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// A new set of connections; dropping it closes them.
    pub(super) fn connect(&self, tls: &ClientConfig, proxy: Option<&HttpsProxy>) -> Result<Connections, BackendError> {
        let way = Way { tls, proxy, https_only: self.tls, timeout: self.timeout, parallel: self.parallel };
        let headers = HeaderMap::from_iter([(REQUEST, HeaderValue::from_static("true"))]);
        let client =
            https::client(&way).and_then(|builder| builder.default_headers(headers).build()).map_err(|_| {
                BackendError::new(BackendErrorKind::Unavailable, format!("no client can be made for {}", self.name()))
            })?;
        Ok(Connections { client, origin: self.origin.clone(), name: self.name(), namespace: self.namespace.clone() })
    }
}

/// The connections of one burst.
pub(super) struct Connections {
    client: Client,
    origin: String,
    name: String,
    namespace: Option<HeaderValue>,
}

/// What is sent.
pub(super) struct Request<'a> {
    /// GET, or POST where there is a body.
    pub(super) body: Option<Zeroizing<Vec<u8>>>,
    /// The path after `/v1/`.
    pub(super) path: &'a str,
    /// What follows the `?`; never from a user.
    pub(super) query: Option<&'a str>,
    /// The token, marked as sensitive.
    pub(super) token: Option<&'a HeaderValue>,
}

/// What came back.
pub(super) struct Answer {
    /// Status.
    pub(super) status: u16,
    /// Host of `Location`, of a redirect that was not followed.
    pub(super) location: Option<String>,
    /// When the server wants to be asked again.
    pub(super) retry_after: Option<Duration>,
    /// The body of a status 200; empty for any other.
    pub(super) body: Zeroizing<Vec<u8>>,
}

impl Connections {
    /// Host and port, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The same outside of every namespace, where a server speaks of itself.
    pub(super) fn at_root(self) -> Self {
        Self { namespace: None, ..self }
    }

    /// Sends one request and reads its answer, whatever its status.
    pub(super) async fn send(&self, request: Request<'_>) -> Result<Answer, BackendError> {
        let path = request.path;
        let url = self.url(path, request.query)?;
        let method = if request.body.is_some() { Method::POST } else { Method::GET };
        let mut builder = self.client.request(method, url);
        if let Some(namespace) = &self.namespace {
            builder = builder.header(NAMESPACE, namespace);
        }
        if let Some(token) = request.token {
            builder = builder.header(TOKEN, token);
        }
        if let Some(body) = request.body {
            // The buffer stays ours: it is wiped with the last handle on it.
            builder = builder
                .header(reqwest::header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
                .body(bytes::Bytes::from_owner(body));
        }
        let mut response = builder.send().await.map_err(|error| failure::transport(&self.name, path, &error))?;
        let status = response.status().as_u16();
        let location = if response.status().is_redirection() { location(&response) } else { None };
        let retry_after = header(&response, &RETRY_AFTER).and_then(|text| retry_after::parse(text, SystemTime::now()));
        let body = if status == 200 { self.read(&mut response, path).await? } else { Zeroizing::default() };
        Ok(Answer { status, location, retry_after, body })
    }

    /// The URL of a request, or the refusal to send one.
    fn url(&self, path: &str, query: Option<&str>) -> Result<Url, BackendError> {
        let mut url = url(&self.origin, path).ok_or_else(|| {
            BackendError::new(BackendErrorKind::Malformed, format!("{path} cannot be sent as it is: it is not sent"))
        })?;
        url.set_query(query);
        Ok(url)
    }

    async fn read(&self, response: &mut Response, path: &str) -> Result<Zeroizing<Vec<u8>>, BackendError> {
        https::read(response).await.map_err(|unread| match unread {
            Unread::Broken(error) => failure::transport(&self.name, path, &error),
            Unread::TooLarge => BackendError::new(
                BackendErrorKind::Malformed,
                format!(
                    "{} answered {path} with more than {LARGEST} bytes: a secret of that size is not taken",
                    self.name
                ),
            ),
        })
    }
}

/// The URL whose path is exactly `/v1/` and the given one.
pub(super) fn url(origin: &str, path: &str) -> Option<Url> {
    let exact = format!("/v1/{path}");
    let url = Url::parse(&format!("{origin}{exact}")).ok()?;
    (url.path() == exact && url.query().is_none() && url.fragment().is_none()).then_some(url)
}

fn header<'a>(response: &'a Response, name: &HeaderName) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// The host that a redirect names; not its path, which may hold anything.
fn location(response: &Response) -> Option<String> {
    let target = response.url().join(header(response, &LOCATION)?).ok()?;
    target.host_str().map(str::to_owned)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn server(address: &str) -> Result<Server, Error> {
        Server::new(address, None, Duration::from_secs(1), 1)
    }

    #[test]
    fn an_address_is_a_scheme_a_host_and_a_port() {
        for (address, endpoint) in [
            ("https://vault.example", ("vault.example", 443)),
            ("https://vault.example:8200/", ("vault.example", 8200)),
            ("http://127.0.0.1:8200", ("127.0.0.1", 8200)),
            ("https://[::1]:8200", ("[::1]", 8200)),
        ] {
            assert_eq!(server(address).unwrap().endpoint(), (endpoint.0.to_owned(), endpoint.1));
        }
        for bad in [
            "",
            "vault.example:8200",
            "https://",
            "https://h/base",
            "https://u:p@h",
            "https://h?a=b",
            "https://h#f",
            "unix:///x",
            "ftp://h",
        ] {
            assert!(server(bad).is_err(), "accepted {bad:?}");
        }
    }

    #[test]
    fn a_namespace_that_is_no_header_is_refused() {
        let with = |namespace| Server::new("https://h", Some(namespace), Duration::from_secs(1), 1);
        assert!(with("team-a/sub").is_ok());
        for bad in ["", "a b", "a\nb", "ä"] {
            assert!(with(bad).is_err(), "accepted {bad:?}");
        }
    }

    #[test]
    fn a_path_that_a_url_would_change_is_not_sent() {
        let tls = ClientConfig::builder_with_provider(std::sync::Arc::new(rustls::crypto::ring::default_provider()));
        let tls = tls.with_safe_default_protocol_versions().unwrap();
        let tls = tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        let connections = server("https://vault.example").unwrap().connect(&tls, None).unwrap();
        assert_eq!(connections.url("kv/data/a@b", None).unwrap().as_str(), "https://vault.example/v1/kv/data/a@b");
        for path in
            ["kv/../sys/raw", "kv/./a", "kv/%2e%2e/a", "kv/a?b", "kv/a#b", "kv/a b", "kv/a\\b", "kv/ä", "kv/a\n"]
        {
            assert!(connections.url(path, None).is_err(), "sent {path:?}");
        }
    }
}
