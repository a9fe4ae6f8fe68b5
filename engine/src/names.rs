// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Names that come from Kubernetes, parsed once: what holds one of these types cannot hold a path or a template.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;

/// Longest DNS label (RFC 1123 section 2.1 by way of the Kubernetes naming rules).
const LABEL: usize = 63;
/// Longest DNS subdomain name in Kubernetes.
const SUBDOMAIN: usize = 253;

fn is_label(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !text.is_empty()
        && text.len() <= LABEL
        && text.bytes().all(|byte| plain(byte) || byte == b'-')
        && text.bytes().next().is_some_and(plain)
        && text.bytes().next_back().is_some_and(plain)
}

fn is_subdomain(text: &str) -> bool {
    // Kubernetes bounds the whole name, not each label, for subdomain names.
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !text.is_empty()
        && text.len() <= SUBDOMAIN
        && text.split('.').all(|part| {
            part.bytes().all(|byte| plain(byte) || byte == b'-')
                && part.bytes().next().is_some_and(plain)
                && part.bytes().next_back().is_some_and(plain)
        })
}

fn is_uid(text: &str) -> bool {
    // A UUID, or the hash of a static pod; nothing that could be a path component with a meaning.
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

macro_rules! name {
    ($($(#[$doc:meta])* $name:ident, $what:literal, $rule:path, $cure:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// What is said of a text that is none.
            pub(crate) const WRONG: &'static str = concat!($what, " is not valid: ", $cure);

            /// Checks the form; the error names what was wrong, not the text.
            pub fn parse(text: &str) -> Result<Self, Error> {
                if $rule(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(Error::invalid(Self::WRONG))
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
                Self::parse(&text).map_err(|error| serde::de::Error::custom(error.message()))
            }
        }
    )+};
}

name! {
    /// A namespace.
    Namespace, "namespace", is_label, "use a DNS label: at most 63 of a-z, 0-9 and '-', ending in a letter or digit";
    /// A pod's name.
    PodName, "pod name", is_subdomain, "use a DNS subdomain: at most 253 of a-z, 0-9, '-' and '.'";
    /// A pod's uid.
    PodUid, "pod uid", is_uid, "use the uid that Kubernetes gave: letters, digits and '-'";
    /// A service account's name.
    ServiceAccountName, "service account name", is_subdomain, "use a DNS subdomain: at most 253 of a-z, 0-9, '-' and '.'";
    /// A service account's uid, as its token says.
    ServiceAccountUid, "service account uid", is_uid, "use the uid that Kubernetes gave: letters, digits and '-'";
    /// A node's name.
    NodeName, "node name", is_subdomain, "use a DNS subdomain: at most 253 of a-z, 0-9, '-' and '.'";
    /// The name of a `SecretBackend`.
    BackendName, "backend name", is_subdomain, "use a DNS subdomain: at most 253 of a-z, 0-9, '-' and '.'";
    /// The name of a `SecretVolume`.
    VolumeClassName, "SecretVolume name", is_subdomain, "use a DNS subdomain: at most 253 of a-z, 0-9, '-' and '.'";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_hold_a_path_or_a_template() {
        for bad in
            ["", ".", "..", "a/b", "a..b", "../a", "-a", "a-", "A", "a b", "a\0", "{namespace}", &"a".repeat(254)]
        {
            assert!(ServiceAccountName::parse(bad).is_err(), "accepted {bad:?}");
            assert!(Namespace::parse(bad).is_err(), "accepted {bad:?}");
        }
        assert!(Namespace::parse(&"a".repeat(64)).is_err());
        assert!(Namespace::parse("a.b").is_err());
        assert!(Namespace::parse("payments-2").is_ok());
        assert!(ServiceAccountName::parse("app.v2").is_ok());
    }
}
