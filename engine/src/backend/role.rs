// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The role a login asks for, which may be made of the pod's own names.

use crate::error::Error;
use crate::workload::Workload;
use crate::yaml::shown;

/// A role as a class has it: text in which `{namespace}` and `{serviceAccount}` stand for the pod's.
///
/// Filling in cannot lead out of the role's name: both names are DNS names (letters, digits, `-` and `.`), and a
/// template is checked when the class is read. Whether the service account may have the role is the backend's decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RoleTemplate(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Namespace,
    ServiceAccount,
}

impl RoleTemplate {
    /// Longest role, in bytes, before and after filling in.
    pub(crate) const LONGEST: usize = 512;
    pub(crate) const BRACE: &str = "has a brace that is not part of {namespace} or {serviceAccount}";
    pub(crate) const CHARACTERS: &str = "may hold letters, digits, any of -._:@/, {namespace} and {serviceAccount}";

    /// Reads a role.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) for another placeholder or a character that no role's name has.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |rule: &str| Err(Error::invalid(format!("role \"{}\" {rule}", shown(text))));
        if text.is_empty() || text.len() > Self::LONGEST {
            return Err(Error::invalid(format!("a role has 1 to {} bytes", Self::LONGEST)));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let brace = rest.find(['{', '}']).unwrap_or(rest.len());
            let (plain, at_brace) = rest.split_at(brace);
            if !plain.is_empty() {
                let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:@/".contains(&byte);
                if !plain.bytes().all(fits) {
                    return wrong(Self::CHARACTERS);
                }
                parts.push(Part::Text(plain.to_owned()));
            }
            rest = if let Some(after) = at_brace.strip_prefix("{namespace}") {
                parts.push(Part::Namespace);
                after
            } else if let Some(after) = at_brace.strip_prefix("{serviceAccount}") {
                parts.push(Part::ServiceAccount);
                after
            } else if at_brace.is_empty() {
                at_brace
            } else {
                return wrong(Self::BRACE);
            };
        }
        Ok(Self(parts))
    }

    /// The role of this workload.
    pub(crate) fn fill(&self, workload: &Workload) -> String {
        self.0
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
                Part::Namespace => workload.namespace.as_str(),
                Part::ServiceAccount => workload.service_account.as_str(),
            })
            .collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::names::{Namespace, NodeName, PodName, PodUid, ServiceAccountName};

    fn workload() -> Workload {
        Workload {
            namespace: Namespace::parse("payments").unwrap(),
            service_account: ServiceAccountName::parse("app.v2").unwrap(),
            pod: PodName::parse("p").unwrap(),
            pod_uid: PodUid::parse("pod-1").unwrap(),
            node: NodeName::parse("n").unwrap(),
        }
    }

    #[test]
    fn the_pods_names_are_put_in_where_the_role_asks_for_them() {
        for (template, filled) in [
            ("app", "app"),
            ("{namespace}", "payments"),
            ("k8s-{namespace}_{serviceAccount}", "k8s-payments_app.v2"),
            ("{serviceAccount}{namespace}x", "app.v2paymentsx"),
        ] {
            assert_eq!(RoleTemplate::parse(template).unwrap().fill(&workload()), filled);
        }
    }

    #[test]
    fn a_role_with_another_placeholder_or_an_odd_character_is_refused() {
        for bad in ["", "{pod}", "{namespace", "namespace}", "{{namespace}}", "a b", "a\n", "a\"b", "a%b", "{}", "ä"] {
            assert!(RoleTemplate::parse(bad).is_err(), "accepted {bad:?}");
        }
        assert!(RoleTemplate::parse(&"a".repeat(RoleTemplate::LONGEST + 1)).is_err());
    }
}
