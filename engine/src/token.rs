// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Service-account tokens as kubelet hands them over, kept where nothing else can read them.
//!
//! Kubelet sends a JSON object from audience to `{token, expirationTimestamp}` (KEP-1855, KEP-5538). The claims are
//! read, not verified: they came from kubelet over a root-only socket, and the backend verifies the signature. What
//! they add is the service account's uid and a check that kubelet's pod info and the token name the same pod.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::Error;
use crate::keep::{Keep, Kept};
use crate::names::{Namespace, PodUid, ServiceAccountName, ServiceAccountUid};
use crate::secret::SecretBytes;
use crate::workload::Workload;

/// Longest token that is taken, in bytes: HTTP servers refuse longer header lines anyway.
const LONGEST: usize = 16 * 1024;

/// What a token is for: the server that may accept it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Audience(Arc<str>);

impl Audience {
    /// Wraps the audience as the class or kubelet writes it.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The audience as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One token: the text in a place of its own, and what it says about its holder.
pub struct Token {
    text: Box<dyn Kept>,
    claims: Claims,
    expires_at: SystemTime,
}

/// What a token says about its holder; none of it is secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Namespace of the service account.
    pub namespace: Option<Namespace>,
    /// Name of the service account.
    pub service_account: Option<ServiceAccountName>,
    /// Uid of the service account.
    pub service_account_uid: Option<ServiceAccountUid>,
    /// Uid of the pod the token is bound to.
    pub pod_uid: Option<PodUid>,
}

impl Token {
    /// The token's text, for as long as one login needs it.
    pub fn expose(&self) -> &[u8] {
        self.text.expose()
    }

    /// What the token says about its holder.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// When it stops being valid.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }
}

/// A pod's tokens, one for each audience.
#[derive(Default)]
pub struct Tokens(BTreeMap<Audience, Arc<Token>>);

#[derive(Deserialize)]
struct WireToken<'a> {
    #[serde(borrow)]
    token: Cow<'a, str>,
    #[serde(borrow, rename = "expirationTimestamp")]
    expiration: Cow<'a, str>,
}

#[derive(Deserialize, Default)]
struct WireClaims<'a> {
    #[serde(borrow, rename = "kubernetes.io", default)]
    kubernetes: WireKubernetes<'a>,
}

#[derive(Deserialize, Default)]
struct WireKubernetes<'a> {
    #[serde(borrow)]
    namespace: Option<Cow<'a, str>>,
    #[serde(borrow)]
    serviceaccount: Option<WireObject<'a>>,
    #[serde(borrow)]
    pod: Option<WireObject<'a>>,
}

#[derive(Deserialize)]
struct WireObject<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    uid: Option<Cow<'a, str>>,
}

impl Tokens {
    /// Reads kubelet's JSON and moves each token into `keep`.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) where it is not what kubelet sends. The text of a parser's error
    /// quotes its input, so none is passed on.
    pub fn parse(json: &SecretBytes, keep: &dyn Keep) -> Result<Self, Error> {
        let malformed = |what: &'static str| Error::invalid(format!("service-account tokens are malformed: {what}"));
        let wire: BTreeMap<Cow<'_, str>, WireToken<'_>> = serde_json::from_slice(json.expose())
            .map_err(|_| malformed("expected a JSON object from audience to token and expirationTimestamp"))?;
        let mut tokens = BTreeMap::new();
        for (audience, WireToken { token, expiration }) in wire {
            let fits = !token.is_empty() && token.len() <= LONGEST && token.bytes().all(|byte| byte.is_ascii_graphic());
            if !fits {
                return Err(malformed("a token is empty, too long or has characters that no token has"));
            }
            let expires_at = OffsetDateTime::parse(&expiration, &Rfc3339)
                .map_err(|_| malformed("an expirationTimestamp is not RFC 3339"))?;
            let token = Token {
                claims: read_claims(&token),
                text: keep.keep(SecretBytes::from(token.as_bytes()))?,
                expires_at: expires_at.into(),
            };
            tokens.insert(Audience::new(&audience), Arc::new(token));
        }
        Ok(Self(tokens))
    }

    /// The token for `audience` that is valid at `now`.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`](crate::error::Kind::Unauthenticated), with what the platform team has to change.
    pub fn get(&self, audience: &Audience, now: SystemTime) -> Result<&Arc<Token>, Error> {
        let Some(token) = self.0.get(audience) else {
            return Err(Error::unauthenticated(format!(
                "kubelet sent no token for audience {audience:?}: add it to tokenRequests of the CSIDriver object (Helm value `audiences`)",
                audience = audience.as_str()
            )));
        };
        if token.expires_at <= now {
            return Err(Error::unauthenticated(format!(
                "the token for audience {:?} has expired: kubelet brings a new one within two minutes",
                audience.as_str()
            )));
        }
        Ok(token)
    }

    /// Whether kubelet sent none at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks that every token was made for `workload`.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`](crate::error::Kind::Unauthenticated) when one names another pod or service account.
    pub fn check_holder(&self, workload: &Workload) -> Result<(), Error> {
        for (audience, token) in &self.0 {
            let Claims { namespace, service_account, service_account_uid: _, pod_uid } = &token.claims;
            let same = namespace.as_ref().is_none_or(|it| *it == workload.namespace)
                && service_account.as_ref().is_none_or(|it| *it == workload.service_account)
                && pod_uid.as_ref().is_none_or(|it| *it == workload.pod_uid);
            if !same {
                return Err(Error::unauthenticated(format!(
                    "the token for audience {:?} was made for another pod or service account than the pod info says",
                    audience.as_str()
                )));
            }
        }
        Ok(())
    }
}

/// What a JWT's payload says; nothing for a token of another form.
fn read_claims(token: &str) -> Claims {
    let Some(payload) = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()) else {
        return Claims::default();
    };
    let Ok(WireClaims { kubernetes }) = serde_json::from_slice::<WireClaims<'_>>(&payload) else {
        return Claims::default();
    };
    let account = kubernetes.serviceaccount.unwrap_or(WireObject { name: None, uid: None });
    Claims {
        namespace: kubernetes.namespace.and_then(|text| Namespace::parse(&text).ok()),
        service_account: account.name.and_then(|text| ServiceAccountName::parse(&text).ok()),
        service_account_uid: account.uid.and_then(|text| ServiceAccountUid::parse(&text).ok()),
        pod_uid: kubernetes.pod.and_then(|pod| pod.uid).and_then(|text| PodUid::parse(&text).ok()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::keep::HeapKeep;
    use crate::names::{NodeName, PodName};
    use std::time::Duration;

    fn jwt(namespace: &str, account: &str) -> String {
        let claims = format!(
            r#"{{"kubernetes.io":{{"namespace":"{namespace}","serviceaccount":{{"name":"{account}","uid":"sa-1"}},"pod":{{"name":"p","uid":"pod-1"}}}}}}"#
        );
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    fn tokens(token: &str, expiration: &str) -> Result<Tokens, Error> {
        let json = format!(r#"{{"vault":{{"token":"{token}","expirationTimestamp":"{expiration}"}}}}"#);
        Tokens::parse(&SecretBytes::from(json.as_bytes()), &HeapKeep)
    }

    fn workload() -> Workload {
        Workload {
            namespace: Namespace::parse("payments").unwrap(),
            service_account: ServiceAccountName::parse("app").unwrap(),
            pod: PodName::parse("p").unwrap(),
            pod_uid: PodUid::parse("pod-1").unwrap(),
            node: NodeName::parse("n").unwrap(),
        }
    }

    #[test]
    fn a_token_is_found_by_its_audience_until_it_expires() {
        let tokens = tokens(&jwt("payments", "app"), "2030-01-01T00:00:00Z").unwrap();
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000);
        let vault = Audience::new("vault");
        assert!(tokens.get(&vault, end - Duration::from_secs(1)).is_ok());
        assert_eq!(tokens.get(&vault, end).err().unwrap().kind(), Kind::Unauthenticated);
        let missing = tokens.get(&Audience::new("aws"), end).err().unwrap();
        assert!(missing.message().contains("Helm value `audiences`"), "{missing}");
    }

    #[test]
    fn a_token_of_another_service_account_is_refused() {
        assert!(tokens(&jwt("payments", "app"), "2030-01-01T00:00:00Z").unwrap().check_holder(&workload()).is_ok());
        for (namespace, account) in [("other", "app"), ("payments", "other")] {
            let tokens = tokens(&jwt(namespace, account), "2030-01-01T00:00:00Z").unwrap();
            assert_eq!(tokens.check_holder(&workload()).unwrap_err().kind(), Kind::Unauthenticated);
        }
    }

    #[test]
    fn a_malformed_message_is_refused_without_quoting_it() {
        for json in [
            "",
            "[]",
            r#"{"a":"CANARY"}"#,
            r#"{"a":{"token":"CANARY"}}"#,
            r#"{"a":{"token":"CANARY x","expirationTimestamp":"2030-01-01T00:00:00Z"}}"#,
            r#"{"a":{"token":"x","expirationTimestamp":"CANARY"}}"#,
        ] {
            let error = Tokens::parse(&SecretBytes::from(json.as_bytes()), &HeapKeep).err().unwrap();
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(!format!("{error:?}").contains("CANARY"), "{error:?}");
        }
    }

    #[test]
    fn claims_hold_what_the_payload_says_and_nothing_for_another_form() {
        assert_eq!(read_claims(&jwt("payments", "app")).service_account_uid.unwrap().as_str(), "sa-1");
        for other in ["s.opaque", "a.b.c", "", "e30.e30.x"] {
            assert_eq!(read_claims(other), Claims::default());
        }
    }
}
