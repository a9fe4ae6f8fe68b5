// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A way in for whoever feeds these readers garbage: nothing but what they are, made visible.

use std::time::{Duration, SystemTime};

use reqwest::header::HeaderValue;

use super::answer::{self, Found};
use super::{login, transport};
use crate::backend::retry_after;
use crate::secret::Secret;

/// A login's answer: the token as it would be sent, where it can be one, and the server's name for the request.
pub fn login(body: &[u8]) -> Option<(Option<HeaderValue>, Option<String>)> {
    answer::login(body).map(|given| (login::header(given.token), given.request_id))
}

/// A secret of KV version 2.
pub fn kv(body: &[u8]) -> Option<Secret> {
    answer::kv(body)
}

/// The answer of any other path.
pub fn raw(body: &[u8]) -> Option<Secret> {
    answer::raw(body)
}

/// The version that a KV path's metadata says is there; `Some(None)` where it is gone.
pub fn metadata(body: &[u8], wanted: Option<u64>, now: SystemTime) -> Option<Option<u64>> {
    answer::metadata(body, wanted, now).map(|found| match found {
        Found::Present(version) => Some(version),
        Found::Gone => None,
    })
}

/// A `Retry-After`.
pub fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    retry_after::parse(text, now)
}

/// The path of the request that is sent for a wire path, with its `/v1/`; nothing where it is not sent.
pub fn sent(path: &str) -> Option<String> {
    transport::url("https://vault.example", path).map(|url| url.path().to_owned())
}
