// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A pod's token for temporary credentials: `AssumeRoleWithWebIdentity` of the AWS Security Token Service (API version
//! 2011-06-15).
//!
//! One request that nobody signs, written here and not by `aws-sdk-sts`: so the token goes from its protected place into one
//! buffer that is wiped, and the credentials from the answer into another.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use super::connections::{Answer, Connections};
use super::credentials::Issued;
use super::failure::{Doing, Refusal};
use crate::backend::{BackendError, BackendErrorKind, Identity, https};
use crate::secret::SecretBytes;
use crate::token::Token;

/// The shortest that AWS gives: a role that is taken away from a service account is gone after so long at the latest.
const SECONDS: &str = "900";
/// Longest name of a session.
const LONGEST_NAME: usize = 64;

/// Logs in as the role of `identity`.
pub(super) async fn assume(
    connections: &Connections,
    identity: &Identity,
    token: &Token,
) -> Result<Issued, BackendError> {
    let what = format!("AssumeRoleWithWebIdentity for {}", identity.role);
    let answer = connections.post_form(form(identity, token.expose()), &what).await?;
    if answer.status != 200 {
        return Err(refusal(&answer).error(Doing::Login, connections.name(), &what));
    }
    issued(&answer.body).ok_or_else(|| {
        let message = format!("{} answered {what} with something that is not credentials", connections.name());
        BackendError::new(BackendErrorKind::Malformed, message)
    })
}

/// The form, in one buffer that does not grow.
fn form(identity: &Identity, token: &[u8]) -> Zeroizing<Vec<u8>> {
    let name = session_name(identity);
    let fields: [(&str, &[u8]); 6] = [
        ("Action=", b"AssumeRoleWithWebIdentity"),
        ("&Version=", b"2011-06-15"),
        ("&DurationSeconds=", SECONDS.as_bytes()),
        ("&RoleArn=", identity.role.as_bytes()),
        ("&RoleSessionName=", name.as_bytes()),
        ("&WebIdentityToken=", token),
    ];
    let size = fields.iter().map(|(key, value)| key.len() + 3 * value.len()).sum();
    let mut form = Zeroizing::new(Vec::with_capacity(size));
    for (key, value) in fields {
        form.extend_from_slice(key.as_bytes());
        for byte in value {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
                form.push(*byte);
            } else {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                form.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    form
}

/// Who is seen in CloudTrail: the service account. Its names have only characters that a session's name may have.
fn session_name(identity: &Identity) -> String {
    let mut name = identity
        .caller
        .as_ref()
        .map_or_else(|| "evanesce".to_owned(), |caller| format!("{}.{}", caller.namespace, caller.service_account));
    name.truncate(LONGEST_NAME);
    name
}

fn refusal(answer: &Answer) -> Refusal<'_> {
    let text = std::str::from_utf8(&answer.body).unwrap_or_default();
    Refusal {
        status: answer.status,
        code: element(text, "Code").unwrap_or_default(),
        words: "",
        retry_after: answer.retry_after(),
    }
}

/// Reads the answer's credentials.
fn issued(body: &[u8]) -> Option<Issued> {
    let text = std::str::from_utf8(body).ok()?;
    let credentials = between(text, "<Credentials>", "</Credentials>")?;
    let parts = [
        element(credentials, "AccessKeyId")?,
        element(credentials, "SecretAccessKey")?,
        element(credentials, "SessionToken")?,
    ];
    let mut lines = Vec::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
    for (index, part) in parts.iter().enumerate() {
        lines.extend_from_slice(if index > 0 { b"\n" } else { b"" });
        lines.extend_from_slice(part.as_bytes());
    }
    Some(Issued {
        lines: SecretBytes::new(lines),
        expires_at: OffsetDateTime::parse(element(credentials, "Expiration")?, &Rfc3339).ok()?.into(),
        request_id: element(text, "RequestId").and_then(|id| https::printable_id(id.to_owned())),
    })
}

/// The text of an element that has no attributes and holds nothing but printable characters that XML does not escape: what
/// STS's codes, keys and times are made of.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let text = between(xml, &format!("<{name}>"), &format!("</{name}>"))?.trim();
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>&".contains(&byte));
    plain.then_some(text)
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(open)?;
    rest.split_once(close).map(|(inside, _)| inside)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::backend::Principal;
    use crate::names::{BackendName, Namespace, ServiceAccountName};

    const ANSWER: &str = r#"<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult>
    <SubjectFromWebIdentityToken>system:serviceaccount:payments:app</SubjectFromWebIdentityToken>
    <Credentials>
      <SessionToken>AQoDYXdzEE0a8ANXXXXXXXXNO1ewxE5TijQyp+IEXAMPLE/==</SessionToken>
      <SecretAccessKey>wJalrXUtnFEMI/K7MDENG+bPxRfiCYzEXAMPLEKEY</SecretAccessKey>
      <Expiration>2030-01-01T00:00:00Z</Expiration>
      <AccessKeyId>ASgeIAIOSFODNN7EXAMPLE</AccessKeyId>
    </Credentials>
  </AssumeRoleWithWebIdentityResult>
  <ResponseMetadata><RequestId>ad4156e9-bce1-11e2-82e6-6b6efEXAMPLE</RequestId></ResponseMetadata>
</AssumeRoleWithWebIdentityResponse>"#;

    #[test]
    fn credentials_are_read_with_their_end_and_the_requests_id() {
        let issued = issued(ANSWER.as_bytes()).unwrap();
        let credentials = issued.to_sdk();
        assert_eq!(credentials.access_key_id(), "ASgeIAIOSFODNN7EXAMPLE");
        assert_eq!(credentials.secret_access_key(), "wJalrXUtnFEMI/K7MDENG+bPxRfiCYzEXAMPLEKEY");
        assert_eq!(credentials.session_token(), Some("AQoDYXdzEE0a8ANXXXXXXXXNO1ewxE5TijQyp+IEXAMPLE/=="));
        assert_eq!(issued.expires_at, std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_893_456_000));
        assert_eq!(issued.request_id.as_deref(), Some("ad4156e9-bce1-11e2-82e6-6b6efEXAMPLE"));
    }

    #[test]
    fn what_is_not_credentials_is_nothing() {
        assert!(issued(b"").is_none() && issued(b"{}").is_none() && issued(b"\xff").is_none());
        for part in ["SessionToken", "SecretAccessKey", "Expiration", "AccessKeyId", "Credentials"] {
            assert!(issued(ANSWER.replace(part, "Other").as_bytes()).is_none(), "without {part}");
        }
        for bad in ["a&amp;b", "a b", "<a/>", ""] {
            let answer = ANSWER.replace("ASgeIAIOSFODNN7EXAMPLE", bad);
            assert!(issued(answer.as_bytes()).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn the_form_holds_every_character_as_it_is_meant() {
        let identity = Identity {
            backend: BackendName::parse("aws").unwrap(),
            mount: "sts".into(),
            role: "arn:aws:iam::1:role/a+b".into(),
            audience: "a".into(),
            caller: Some(Principal {
                namespace: Namespace::parse("payments").unwrap(),
                service_account: ServiceAccountName::parse(&"a".repeat(80)).unwrap(),
                service_account_uid: None,
                pod_uid: None,
            }),
        };
        let form = form(&identity, b"e30.e30.a_b-c=&x");
        let session = format!("payments.{}", "a".repeat(55));
        assert_eq!(
            std::str::from_utf8(&form).unwrap(),
            format!(
                "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&DurationSeconds=900\
                 &RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fa%2Bb&RoleSessionName={session}\
                 &WebIdentityToken=e30.e30.a_b-c%3D%26x"
            )
        );
        assert!(form.capacity() >= form.len());
    }
}
