// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Reading answers: from the bytes of the body straight into values.
//!
//! No tree of JSON is built (see `fields`). The parser's errors quote their input, so none of them is passed on.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use vaultrs::api::AuthInfo;
use zeroize::Zeroize as _;

use crate::backend::fields::{Fields, values};
use crate::backend::https::printable_id;
use crate::secret::{Lease, Secret, SecretBytes, Version};

/// What a login gave.
pub(super) struct LoggedIn {
    /// The token.
    pub(super) token: SecretBytes,
    /// How long it lasts; nothing where it has no end.
    pub(super) ttl: Option<Duration>,
    /// The server's name for the request.
    pub(super) request_id: Option<String>,
}

/// What a path's metadata says about one version.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It can be read.
    Present(u64),
    /// It is deleted, destroyed or was never there.
    Gone,
}

/// Reads a login's answer.
pub(super) fn login(body: &[u8]) -> Option<LoggedIn> {
    #[derive(Deserialize)]
    struct Answer {
        request_id: Option<String>,
        auth: AuthInfo,
    }
    let Answer { request_id, mut auth } = serde_json::from_slice(body).ok()?;
    auth.accessor.zeroize();
    let token = SecretBytes::new(std::mem::take(&mut auth.client_token).into_bytes());
    let ttl = (auth.lease_duration > 0).then(|| Duration::from_secs(auth.lease_duration));
    Some(LoggedIn { token, ttl, request_id: request_id.and_then(printable_id) })
}

/// Reads a secret of KV version 2.
pub(super) fn kv(body: &[u8]) -> Option<Secret> {
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(borrow)]
        data: Fields<'a>,
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        version: u64,
    }
    let envelope: Envelope<Data<'_>> = serde_json::from_slice(body).ok()?;
    let Data { data, metadata } = envelope.data?;
    Some(Secret {
        values: values(data)?,
        version: Some(Version::new(metadata.version)),
        lease: None,
        expires_at: None,
        rotates_in: None,
        request_id: envelope.request_id.and_then(printable_id),
    })
}

/// Reads the answer of any other path.
pub(super) fn raw(body: &[u8]) -> Option<Secret> {
    let envelope: Envelope<Fields<'_>> = serde_json::from_slice(body).ok()?;
    let fields = envelope.data?;
    let (expires_at, rotates_in) = (certificate_end(&fields), rotation(&fields));
    let id = envelope.lease_id.map(|id| SecretBytes::new(id.into_bytes())).filter(|id| !id.is_empty());
    let lease = id.map(|id| Lease {
        id,
        duration: Duration::from_secs(envelope.lease_duration),
        renewable: envelope.renewable,
    });
    Some(Secret {
        values: values(fields)?,
        version: None,
        lease,
        expires_at,
        rotates_in,
        request_id: envelope.request_id.and_then(printable_id),
    })
}

/// Reads how long a lease that was prolonged is good for.
pub(super) fn lease_left(body: &[u8]) -> Option<Duration> {
    let envelope: Envelope<serde::de::IgnoredAny> = serde_json::from_slice(body).ok()?;
    Some(Duration::from_secs(envelope.lease_duration))
}

/// Reads a KV path's metadata: `wanted`, or the newest version.
pub(super) fn metadata(body: &[u8], wanted: Option<u64>, now: SystemTime) -> Option<Found> {
    #[derive(Deserialize)]
    struct Data {
        current_version: u64,
        #[serde(default)]
        versions: BTreeMap<u64, State>,
    }
    #[derive(Deserialize)]
    struct State {
        #[serde(default)]
        deletion_time: String,
        #[serde(default)]
        destroyed: bool,
    }
    let data: Data = serde_json::from_slice::<Envelope<Data>>(body).ok()?.data?;
    let version = wanted.unwrap_or(data.current_version);
    let Some(State { deletion_time, destroyed }) = data.versions.get(&version) else { return Some(Found::Gone) };
    // A time still to come is a secret's planned end (`delete_version_after`).
    let deleted = !deletion_time.is_empty() && OffsetDateTime::parse(deletion_time, &Rfc3339).ok()? <= now;
    Some(if deleted || *destroyed { Found::Gone } else { Found::Present(version) })
}

#[derive(Deserialize)]
struct Envelope<D> {
    request_id: Option<String>,
    lease_id: Option<String>,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
    data: Option<D>,
}

/// When an issued certificate ends: such an answer has no lease, and says its end among its fields.
fn certificate_end(fields: &Fields<'_>) -> Option<SystemTime> {
    let seconds = fields.get("expiration").filter(|_| fields.contains_key("certificate"))?.get().parse().ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// When the server changes a static role's password: it says how often, and how long until then.
fn rotation(fields: &Fields<'_>) -> Option<Duration> {
    let rotates = fields.contains_key("rotation_period") || fields.contains_key("rotation_schedule");
    fields.get("ttl").filter(|_| rotates)?.get().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::secret::{Value, ValueKind};

    fn shown(secret: &Secret) -> Vec<(&str, &str, ValueKind)> {
        let text = |value: &'_ Value| std::str::from_utf8(value.bytes.expose()).unwrap().to_owned();
        secret.values.iter().map(|(key, value)| (key.as_str(), &*text(value).leak(), value.kind)).collect()
    }

    #[test]
    fn strings_lose_their_quotes_and_other_values_keep_their_text() {
        let body = br#"{"request_id":"9d0f-1","lease_id":"","data":{"data":{"a":"x\n\u00e4\"","b":17,"c":{"d":[1,null]},"e":""},
            "metadata":{"version":3,"deletion_time":"","destroyed":false}},"auth":null}"#;
        let secret = kv(body).unwrap();
        assert_eq!(
            shown(&secret),
            [
                ("a", "x\nä\"", ValueKind::Text),
                ("b", "17", ValueKind::Json),
                ("c", r#"{"d":[1,null]}"#, ValueKind::Json),
                ("e", "", ValueKind::Text)
            ]
        );
        assert_eq!(secret.version.unwrap().as_str(), "3");
        assert_eq!(secret.request_id.unwrap(), "9d0f-1");
    }

    #[test]
    fn a_lease_has_an_id_and_a_duration() {
        let lease = |id: &str, seconds: u64| {
            let body =
                format!(r#"{{"lease_id":"{id}","lease_duration":{seconds},"renewable":true,"data":{{"a":"b"}}}}"#);
            raw(body.as_bytes()).unwrap().lease
        };
        let real = lease("database/creds/app/1", 30).unwrap();
        assert_eq!(real.id.expose(), b"database/creds/app/1");
        assert_eq!((real.duration, real.renewable), (Duration::from_secs(30), true));
        assert!(lease("", 2_764_800).is_none(), "KV version 1 gives advice, not a lease");
        assert!(lease("x", 0).unwrap().duration.is_zero(), "one without an end has to be given back all the same");
    }

    #[test]
    fn a_certificate_says_its_own_end() {
        let at = |body: &str| raw(body.as_bytes()).unwrap().expires_at;
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        assert_eq!(at(r#"{"data":{"certificate":"x","expiration":1900000000}}"#), Some(end));
        assert_eq!(at(r#"{"data":{"expiration":1900000000}}"#), None);
        assert_eq!(at(r#"{"data":{"certificate":"x","expiration":"soon"}}"#), None);
    }

    #[test]
    fn a_static_role_says_when_it_changes() {
        let after = |body: &str| raw(body.as_bytes()).unwrap().rotates_in;
        assert_eq!(after(r#"{"data":{"password":"x","rotation_period":60,"ttl":17}}"#), Some(Duration::from_secs(17)));
        assert_eq!(after(r#"{"data":{"password":"x","rotation_schedule":"0 * * * *","ttl":0}}"#), Some(Duration::ZERO));
        assert_eq!(after(r#"{"data":{"password":"x","ttl":17}}"#), None, "a key of that name");
        assert_eq!(after(r#"{"data":{"rotation_period":60,"ttl":"soon"}}"#), None);
    }

    #[test]
    fn metadata_tells_present_from_gone() {
        let body = br#"{"data":{"current_version":3,"versions":{
            "1":{"deletion_time":"","destroyed":true},
            "2":{"deletion_time":"2020-01-01T00:00:00.5Z","destroyed":false},
            "3":{"deletion_time":"2090-01-01T00:00:00Z","destroyed":false}}}}"#;
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for (wanted, found) in [
            (None, Found::Present(3)),
            (Some(3), Found::Present(3)),
            (Some(2), Found::Gone),
            (Some(1), Found::Gone),
            (Some(4), Found::Gone),
        ] {
            assert_eq!(metadata(body, wanted, now).unwrap(), found, "{wanted:?}");
        }
    }

    #[test]
    fn what_is_not_an_answer_is_nothing() {
        for body in [
            "",
            "x",
            "[]",
            "{}",
            r#"{"data":null}"#,
            r#"{"data":"a"}"#,
            r#"{"data":{"data":null,"metadata":{"version":1}}}"#,
            r#"{"data":{"data":{"a":"\ud800"},"metadata":{"version":1}}}"#,
            r#"{"data":{"data":{"a":"b"}}}"#,
            r#"{"data":{"data":{"a":"b"},"metadata":{"version":1}}"#,
        ] {
            assert!(kv(body.as_bytes()).is_none(), "{body}");
        }
        assert!(raw(br#"{"data":null,"auth":{}}"#).is_none());
        assert!(login(br#"{"auth":null}"#).is_none());
    }

    #[test]
    fn an_id_that_is_not_one_is_not_passed_on() {
        assert!(raw(br#"{"request_id":"a b","data":{}}"#).unwrap().request_id.is_none());
    }
}
