// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! An audit event for a person: when, what happened, for whom, which secrets at which version.

use std::fmt;

use serde::Deserialize;

use crate::output::{FAINT, WARNING, styled};

/// Longest part of a version that is shown.
const VERSION: usize = 12;

/// The parts of an OCSF line that a person wants (`docs/reference/audit-events.md`).
#[derive(Deserialize)]
pub(crate) struct Line {
    time: u64,
    status: String,
    #[serde(default)]
    status_detail: String,
    message: String,
    metadata: Metadata,
    #[serde(default)]
    resources: Vec<Secret>,
    entity: Option<Entity>,
    entity_result: Option<Entity>,
    #[serde(default)]
    unmapped: Unmapped,
}

#[derive(Deserialize)]
struct Metadata {
    event_code: String,
}

#[derive(Deserialize)]
struct Entity {
    data: EntityData,
}

#[derive(Deserialize)]
struct EntityData {
    secrets: Vec<Secret>,
}

#[derive(Default, Deserialize)]
struct Unmapped {
    workload: Option<Workload>,
    #[serde(default)]
    secrets: Vec<Secret>,
}

#[derive(Deserialize)]
struct Workload {
    namespace: String,
    service_account: String,
    pod: String,
}

#[derive(Deserialize, PartialEq, Eq)]
struct Secret {
    name: String,
    version: Option<String>,
}

impl Line {
    /// Reads a line.
    pub(crate) fn read(line: &str) -> serde_json::Result<Self> {
        serde_json::from_str(line)
    }

    /// Whether it tells of something that went well.
    pub(crate) fn is_good(&self) -> bool {
        self.status == "Success"
    }

    /// What kind of event it is.
    pub(crate) fn code(&self) -> &str {
        &self.metadata.event_code
    }

    /// The secrets that it is about; of a refresh those that changed.
    fn secrets(&self) -> Vec<String> {
        let (old, new) = match (&self.entity, &self.entity_result) {
            (Some(old), Some(new)) => (Some(&old.data.secrets), &new.data.secrets),
            _ if self.resources.is_empty() => (None, &self.unmapped.secrets),
            _ => (None, &self.resources),
        };
        let changed = new.iter().filter(|secret| !old.is_some_and(|old| old.contains(secret)));
        changed
            .map(|secret| {
                let before = old.and_then(|old| old.iter().find(|before| before.name == secret.name));
                let arrow = before.map(|before| format!("{} → ", before.version())).unwrap_or_default();
                format!("{}@{arrow}{}", secret.name, secret.version())
            })
            .collect()
    }
}

impl Secret {
    fn version(&self) -> &str {
        let version = self.version.as_deref().unwrap_or("-");
        version.char_indices().nth(VERSION).map_or(version, |(end, _)| &version[..end])
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, milliseconds) = (self.time / 1000 % 86_400, self.time % 1000);
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let time = format!("{hours:02}:{minutes:02}:{seconds:02}.{milliseconds:03}Z");
        write!(f, "{} {:<11} {}", styled(FAINT, time), self.metadata.event_code, self.message)?;
        if let Some(Workload { namespace, service_account, pod }) = &self.unmapped.workload {
            write!(f, ": {namespace}/{pod} {}", styled(FAINT, format_args!("as {service_account}")))?;
        }
        let secrets = self.secrets();
        if !secrets.is_empty() {
            write!(f, "  {}", secrets.join("  "))?;
        }
        if !self.is_good() {
            write!(f, " {}", styled(WARNING, &self.status_detail))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use serde_json::json;

    use super::*;

    fn shown(line: &serde_json::Value) -> String {
        anstream::adapter::strip_str(&Line::read(&line.to_string()).unwrap().to_string()).to_string()
    }

    #[test]
    fn an_event_says_when_what_for_whom_and_which_secret_at_which_version() {
        let mut line = json!({
            "time": 1_795_262_400_123_u64, "status": "Success", "message": "secret read",
            "metadata": {"event_code": "fetch"},
            "resources": [{"name": "kv/data/payments/db", "version": "7"}],
            "unmapped": {"workload": {"namespace": "payments", "service_account": "app", "pod": "web-0"}},
        });
        assert_eq!(shown(&line), "12:00:00.123Z fetch       secret read: payments/web-0 as app  kv/data/payments/db@7");
        line["status"] = "Failure".into();
        line["status_detail"] = "not allowed".into();
        assert!(shown(&line).ends_with(" not allowed"));
    }

    #[test]
    fn a_refresh_says_from_which_version_to_which_and_only_what_changed() {
        let entity = |db: &str| json!({"data": {"secrets": [{"name": "db", "version": db}, {"name": "api"}]}});
        let line = json!({
            "time": 0, "status": "Success", "message": "new generation in place",
            "metadata": {"event_code": "refresh"},
            "entity": entity("0123456789abcdef"), "entity_result": entity("fedcba9876543210"),
        });
        assert!(shown(&line).ends_with(" place  db@0123456789ab → fedcba987654"), "{}", shown(&line));
    }
}
