// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What every backend over HTTPS has in common: how its client is made, and how a body is read.
//!
//! No redirect is followed (it would carry a token to another host), no proxy but the configured one is used, and an answer
//! is bounded in time and size.

use std::time::Duration;

use reqwest::{Client, ClientBuilder, Response};
use rustls::ClientConfig;
use zeroize::Zeroizing;

use crate::proxy::HttpsProxy;

/// Largest answer that is taken, in bytes; the default size of a whole volume.
pub(super) const LARGEST: usize = 1024 * 1024;
/// What a body's buffer starts with where the server does not say its length.
const FIRST_BUFFER: usize = 8 * 1024;
/// A connection, with its TLS handshake, that is not there by now will hardly come: the time is better spent on another
/// address. Half of a request's time where that is less, a quarter where that is more.
const CONNECT: Duration = Duration::from_secs(3);

/// Longest request id that is passed on.
const LONGEST_ID: usize = 64;

/// How a server is reached.
pub(super) struct Way<'a> {
    /// Whom to trust.
    pub(super) tls: &'a ClientConfig,
    /// The proxy, for `https://` alone.
    pub(super) proxy: Option<&'a HttpsProxy>,
    /// Whether nothing may be sent in the clear.
    pub(super) https_only: bool,
    /// For one request, connection included.
    pub(super) timeout: Duration,
    /// How many connections may stay for as long as the client does.
    pub(super) parallel: usize,
}

/// A client's beginnings; dropping the client closes its connections.
pub(super) fn client(way: &Way<'_>) -> reqwest::Result<ClientBuilder> {
    let mut builder = Client::builder().no_proxy();
    if let Some(proxy) = way.proxy {
        builder = builder.proxy(proxy.to_client()?);
    }
    Ok(builder
        .tls_backend_preconfigured(way.tls.clone())
        .https_only(way.https_only)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .timeout(way.timeout)
        .connect_timeout(CONNECT.clamp(way.timeout / 4, way.timeout / 2))
        .pool_max_idle_per_host(way.parallel)
        .user_agent(concat!("evanesce/", env!("CARGO_PKG_VERSION"))))
}

/// Why a body was not read.
pub(super) enum Unread {
    /// The connection broke.
    Broken(reqwest::Error),
    /// There is more than [`LARGEST`].
    TooLarge,
}

/// Reads a body into a buffer of our own, which is wiped when it is dropped and also when it has to grow.
pub(super) async fn read(response: &mut Response) -> Result<Zeroizing<Vec<u8>>, Unread> {
    let announced = response.content_length().unwrap_or(0);
    let announced = usize::try_from(announced).ok().filter(|length| *length <= LARGEST).ok_or(Unread::TooLarge)?;
    let mut body = Zeroizing::new(Vec::with_capacity(announced.max(FIRST_BUFFER)));
    while let Some(chunk) = response.chunk().await.map_err(Unread::Broken)? {
        let length = body.len() + chunk.len();
        if length > LARGEST {
            return Err(Unread::TooLarge);
        }
        if length > body.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(length.max(2 * body.capacity())));
            larger.extend_from_slice(&body);
            body = larger;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The server's id of a request goes into events: nothing but what an id looks like.
pub(super) fn printable_id(id: String) -> Option<String> {
    let fits =
        (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    fits.then_some(id)
}
