// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Service-account tokens as kubelet requests them for a pod: ES256-signed JWTs, bound to an
//! audience and a pod (Kubernetes KEP-1205).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD as BASE64},
};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey},
};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// As long as kubelet asks for by default.
const LIFETIME: Duration = Duration::from_secs(3600);

/// Who a pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadName {
    /// The pod's namespace.
    pub namespace: String,
    /// The name of its service account.
    pub service_account: String,
    /// The uid of its service account.
    pub service_account_uid: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub pod_uid: String,
}

impl WorkloadName {
    /// A pod with uids of its own: like a real cluster's, no two pods ever share one.
    #[must_use]
    pub fn new(namespace: &str, service_account: &str, pod: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            service_account_uid: uuid::Uuid::now_v7().to_string(),
            pod: pod.to_owned(),
            pod_uid: uuid::Uuid::now_v7().to_string(),
        }
    }

    /// Another pod of the same service account.
    #[must_use]
    pub fn sibling(&self, pod: &str) -> Self {
        Self { pod: pod.to_owned(), pod_uid: uuid::Uuid::now_v7().to_string(), ..self.clone() }
    }

    /// The name of its user, as the API server has it.
    #[must_use]
    pub fn username(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.service_account)
    }
}

/// What a token is to say.
#[derive(Debug, Clone)]
pub struct Claims {
    /// Whose token it is.
    pub workload: WorkloadName,
    /// Whom it is for.
    pub audience: String,
    /// When it ends.
    pub expires: SystemTime,
}

impl Claims {
    /// A token of the usual lifetime.
    #[must_use]
    pub fn new(workload: &WorkloadName, audience: &str) -> Self {
        Self { workload: workload.clone(), audience: audience.to_owned(), expires: SystemTime::now() + LIFETIME }
    }

    /// The same, but its time is over.
    #[must_use]
    pub fn expired(mut self) -> Self {
        self.expires = SystemTime::now() - LIFETIME;
        self
    }
}

/// A token with what kubelet says beside it.
#[derive(Debug, Clone)]
pub struct Token {
    /// The JWT.
    pub token: String,
    /// Whom it is for.
    pub audience: String,
    /// When it ends, RFC 3339.
    pub expires: String,
}

/// Makes and verifies the tokens of one cluster.
pub struct ServiceAccountTokens {
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl ServiceAccountTokens {
    /// A cluster with a new signing key.
    ///
    /// # Errors
    /// When the key cannot be made.
    pub fn new() -> Result<Self> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| anyhow!("no key for tokens"))?;
        let key = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random)
            .map_err(|_| anyhow!("the key for tokens is broken"))?;
        Ok(Self { key, random })
    }

    /// The key that verifies its tokens, in PEM: what the cluster publishes.
    #[must_use]
    pub fn public_key_pem(&self) -> String {
        // SubjectPublicKeyInfo of an uncompressed point on P-256 (RFC 5480).
        const P256: [u8; 26] = [
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
            0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        let key = [&P256, self.key.public_key().as_ref()].concat();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64_STANDARD.encode(key))
    }

    /// Makes a token.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn mint(&self, claims: &Claims) -> Result<Token> {
        let workload = &claims.workload;
        let now = unix(SystemTime::now())?;
        let body = json!({
            "iss": "https://kubernetes.default.svc",
            "sub": workload.username(),
            "aud": [claims.audience],
            "iat": now,
            "nbf": now - 60,
            "exp": unix(claims.expires)?,
            // No two tokens are alike, as in a real cluster.
            "jti": uuid::Uuid::now_v7().to_string(),
            "kubernetes.io": {
                "namespace": workload.namespace,
                "serviceaccount": {
                    "name": workload.service_account,
                    "uid": workload.service_account_uid,
                },
                "pod": {"name": workload.pod, "uid": workload.pod_uid},
            },
        });
        let header = json!({"alg": "ES256", "kid": "evanesce-test", "typ": "JWT"});
        let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(body.to_string()));
        let signature = self.key.sign(&self.random, signed.as_bytes()).map_err(|_| anyhow!("cannot sign a token"))?;
        Ok(Token {
            token: format!("{signed}.{}", BASE64.encode(signature)),
            audience: claims.audience.clone(),
            expires: OffsetDateTime::from(claims.expires).format(&Rfc3339)?,
        })
    }

    /// Whether this cluster made the token, for one of these audiences, and it still counts.
    ///
    /// # Errors
    /// When not; the error says why, in the words of an API server.
    pub fn verify(&self, token: &str, audiences: &[&str]) -> Result<Claims> {
        let (signed, signature) = token.rsplit_once('.').context("not a JWT")?;
        let signature = BASE64.decode(signature).context("not a JWT")?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref())
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| anyhow!("invalid signature"))?;
        let (_, body) = signed.split_once('.').context("not a JWT")?;
        let body: Value = serde_json::from_slice(&BASE64.decode(body)?)?;
        let expires = body["exp"].as_u64().context("no expiry")?;
        anyhow::ensure!(unix(SystemTime::now())? < expires, "service account token has expired");
        let audience = body["aud"][0].as_str().unwrap_or_default();
        anyhow::ensure!(
            audiences.contains(&audience),
            "token audiences [{audience}] is invalid for the target audiences {audiences:?}"
        );
        let claims = &body["kubernetes.io"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(Claims {
            workload: WorkloadName {
                namespace: text(&claims["namespace"]),
                service_account: text(&claims["serviceaccount"]["name"]),
                service_account_uid: text(&claims["serviceaccount"]["uid"]),
                pod: text(&claims["pod"]["name"]),
                pod_uid: text(&claims["pod"]["uid"]),
            },
            audience: audience.to_owned(),
            expires: UNIX_EPOCH + Duration::from_secs(expires),
        })
    }
}

fn unix(time: SystemTime) -> Result<u64> {
    Ok(time.duration_since(UNIX_EPOCH)?.as_secs())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_token_counts_for_its_own_audience_before_its_end_and_unchanged() {
        let tokens = ServiceAccountTokens::new().unwrap();
        let claims = Claims::new(&WorkloadName::new("payments", "app", "app-0"), "vault");
        let token = tokens.mint(&claims).unwrap().token;
        assert_eq!(tokens.verify(&token, &["vault"]).unwrap().workload, claims.workload);

        let old = tokens.mint(&claims.clone().expired()).unwrap().token;
        let foreign = ServiceAccountTokens::new().unwrap().mint(&claims).unwrap().token;
        for (token, audience, why) in
            [(&token, "other", "audience"), (&old, "vault", "expired"), (&foreign, "vault", "signature")]
        {
            let error = tokens.verify(token, &[audience]).unwrap_err();
            assert!(format!("{error:#}").contains(why), "{error:#}");
        }
    }
}
