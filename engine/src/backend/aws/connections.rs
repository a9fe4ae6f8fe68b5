// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The one way to AWS, for requests of our own and for the SDK's, whose HTTP client this is.
//!
//! The body of an answer lies in one buffer of ours that is wiped when the last who looks at it is done, the SDK included.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, Request, Url};
use rustls::ClientConfig;
use zeroize::Zeroizing;

use crate::backend::https::{self, LARGEST, Unread, Way};
use crate::backend::vault::failure::{Fields, lost};
use crate::backend::{BackendError, BackendErrorKind, retry_after};
use crate::error::Error;
use crate::proxy::HttpsProxy;
use crate::spec::backend::Limits;

const FIELDS: Fields = Fields {
    address: "the region and the endpoints of spec.aws",
    ca: "spec.aws.caBundle, or caFile,",
    client_certificate: false,
};
/// Headers that nobody may log or keep in a table of headers.
const SECRET_HEADERS: [&str; 2] = ["authorization", "x-amz-security-token"];

/// A service of AWS in a region, or what stands for it.
#[derive(Debug)]
pub(super) struct Endpoint {
    url: Url,
    name: String,
    host: String,
    port: u16,
}

impl Endpoint {
    /// Checks the address.
    pub(super) fn parse(address: &str) -> Result<Self, Error> {
        let wrong = || Error::invalid("must be https://host[:port], or http://host[:port], without a path");
        let url = Url::parse(address).map_err(|_| wrong())?;
        let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.path() == "/";
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return Err(wrong()) };
        if !bare || url.fragment().is_some() || !matches!(url.scheme(), "http" | "https") {
            return Err(wrong());
        }
        let (name, host) = (format!("{host}:{port}"), host.to_owned());
        Ok(Self { url, name, host, port })
    }

    /// Whether the address is `https://`.
    pub(super) fn tls(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Host and port, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Host and port, for events.
    pub(super) fn host_and_port(&self) -> (String, u16) {
        (self.host.clone(), self.port)
    }

    /// A new set of connections; dropping it closes them.
    pub(super) fn connect(
        &self,
        tls: &ClientConfig,
        proxy: Option<&HttpsProxy>,
        limits: &Limits,
    ) -> Result<Connections, BackendError> {
        let way = Way { tls, proxy, https_only: self.tls(), timeout: limits.timeout, parallel: limits.parallel };
        let client = https::client(&way).and_then(reqwest::ClientBuilder::build).map_err(|_| {
            BackendError::new(BackendErrorKind::Unavailable, format!("no client can be made for {}", self.name))
        })?;
        Ok(Connections { client, url: self.url.clone(), name: self.name.clone(), endpoint: self.host_and_port() })
    }
}

/// The connections of one session to one service.
#[derive(Clone)]
pub(super) struct Connections {
    client: Client,
    url: Url,
    name: String,
    endpoint: (String, u16),
}

/// What came back, whatever its status.
pub(super) struct Answer {
    /// Status.
    pub(super) status: u16,
    /// Headers; nothing in them is secret.
    pub(super) headers: HeaderMap,
    /// The body.
    pub(super) body: Zeroizing<Vec<u8>>,
}

impl Connections {
    /// Host and port, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Host and port, for events.
    pub(super) fn host_and_port(&self) -> (String, u16) {
        self.endpoint.clone()
    }

    /// The address, as the SDK wants it.
    pub(super) fn url(&self) -> &str {
        self.url.as_str()
    }

    /// Posts a form.
    pub(super) async fn post_form(&self, form: Zeroizing<Vec<u8>>, what: &str) -> Result<Answer, BackendError> {
        let mut request = Request::new(Method::POST, self.url.clone());
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, form_type);
        // The buffer stays ours: it is wiped with the last handle on it.
        *request.body_mut() = Some(Bytes::from_owner(form).into());
        self.send(request, what).await
    }

    /// Looks whether anybody answers.
    pub(super) async fn look(&self) -> Result<(), BackendError> {
        let answer = self.send(Request::new(Method::GET, self.url.clone()), "GET /").await?;
        if answer.status < 500 {
            return Ok(());
        }
        let message = format!("{} answered {}: it cannot answer now", self.name, answer.status);
        Err(BackendError { kind: BackendErrorKind::Unavailable, message, retry_after: answer.retry_after() })
    }

    async fn send(&self, request: Request, what: &str) -> Result<Answer, BackendError> {
        let lost = |error: &reqwest::Error| lost(&FIELDS, &self.name, what, error);
        let mut response = self.client.execute(request).await.map_err(|error| lost(&error))?;
        let body = https::read(&mut response).await.map_err(|unread| match unread {
            Unread::Broken(error) => lost(&error),
            Unread::TooLarge => BackendError::new(
                BackendErrorKind::Malformed,
                format!("{} answered {what} with more than {LARGEST} bytes: it is not taken", self.name),
            ),
        })?;
        Ok(Answer { status: response.status().as_u16(), headers: std::mem::take(response.headers_mut()), body })
    }

    /// Sends what the SDK has signed. Its body names a secret and holds none.
    async fn pass(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let what = request.headers().get("x-amz-target").unwrap_or("a request of the SDK").to_owned();
        let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
        let request = request.map(|body| Bytes::copy_from_slice(body.bytes().unwrap_or_default()));
        let mut request = Request::try_from(request).map_err(|error| ConnectorError::user(error.into()))?;
        for name in SECRET_HEADERS {
            if let Some(value) = request.headers_mut().get_mut(name) {
                value.set_sensitive(true);
            }
        }
        let answer = self.send(request, &what).await.map_err(|error| ConnectorError::other(error.into(), None))?;
        let status = StatusCode::try_from(answer.status).map_err(|error| ConnectorError::other(error.into(), None))?;
        let mut response = HttpResponse::new(status, SdkBody::from(Bytes::from_owner(answer.body)));
        for (name, value) in &answer.headers {
            if let Ok(value) = value.to_str() {
                // A header that the SDK does not take is none that it looks for.
                let _ = response.headers_mut().try_append(name.as_str().to_owned(), value.to_owned());
            }
        }
        Ok(response)
    }
}

impl Answer {
    /// When the server wants to be asked again.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        retry_after::parse(self.headers.get(RETRY_AFTER)?.to_str().ok()?, SystemTime::now())
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connections({})", self.name)
    }
}

impl HttpClient for Connections {
    /// Time is bounded by our own client, as for every backend.
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Connections {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let connections = self.clone();
        HttpConnectorFuture::new(async move { connections.pass(request).await })
    }
}
