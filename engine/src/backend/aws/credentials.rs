// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Temporary credentials between sessions: one set for each identity, in protected memory, for two thirds of their life.
//!
//! They are found under the whole identity (backend, STS, role, audience, namespace, service account and its uid), by callers
//! whose own token kubelet has just brought, and by nobody else. What AWS no longer takes is forgotten at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use aws_sdk_secretsmanager::config::Credentials;
use tokio::task::AbortHandle;

use crate::backend::Identity;
use crate::keep::{Keep, Kept};
use crate::secret::SecretBytes;

/// Where the SDK says credentials are from.
const SOURCE: &str = "evanesce web identity";

/// What STS gave.
pub(super) struct Issued {
    /// Access key id, secret access key and session token, a line each.
    pub(super) lines: SecretBytes,
    /// When they end.
    pub(super) expires_at: SystemTime,
    /// AWS's name for the request.
    pub(super) request_id: Option<String>,
}

impl Issued {
    /// As the SDK signs with them: in strings of its own, which it wipes with the session.
    pub(super) fn to_sdk(&self) -> Credentials {
        to_sdk(self.lines.expose(), self.expires_at)
    }
}

fn to_sdk(lines: &[u8], expires_at: SystemTime) -> Credentials {
    let mut lines = lines.split(|byte| *byte == b'\n').map(|line| String::from_utf8_lossy(line).into_owned());
    let mut line = || lines.next().unwrap_or_default();
    Credentials::new(line(), line(), Some(line()), Some(expires_at), SOURCE)
}

/// The place where they are kept.
pub(super) struct Shelf {
    keep: Arc<dyn Keep>,
    entries: Mutex<HashMap<Identity, Entry>>,
}

struct Entry {
    lines: Box<dyn Kept>,
    renew_at: SystemTime,
    expires_at: SystemTime,
    /// Wipes the entry when its time is over.
    end: AbortHandle,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.end.abort();
    }
}

impl Shelf {
    /// With none yet.
    pub(super) fn new(keep: Arc<dyn Keep>) -> Arc<Self> {
        Arc::new(Self { keep, entries: Mutex::default() })
    }

    /// Those of an identity, where a third of their life is left.
    pub(super) fn find(&self, identity: &Identity, now: SystemTime) -> Option<Credentials> {
        let entries = self.entries();
        let entry = entries.get(identity).filter(|entry| now < entry.renew_at)?;
        Some(to_sdk(entry.lines.expose(), entry.expires_at))
    }

    /// Keeps them in the place of those before; where there is no room they are not kept, which costs a login later.
    pub(super) fn keep(self: &Arc<Self>, identity: &Identity, issued: Issued, now: SystemTime) {
        let Issued { lines, expires_at, request_id: _ } = issued;
        let Ok(life) = expires_at.duration_since(now) else { return };
        let Ok(lines) = self.keep.keep(lines) else { return };
        let renew_at = now + life * 2 / 3;
        let (shelf, whose) = (Arc::downgrade(self), identity.clone());
        let end = tokio::spawn(async move {
            tokio::time::sleep(life * 2 / 3).await;
            if let Some(shelf) = shelf.upgrade() {
                shelf.forget(&whose);
            }
        });
        self.entries().insert(identity.clone(), Entry { lines, renew_at, expires_at, end: end.abort_handle() });
    }

    /// Wipes those of an identity.
    pub(super) fn forget(&self, identity: &Identity) {
        self.entries().remove(identity);
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Identity, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::keep::HeapKeep;
    use crate::names::BackendName;

    fn identity(role: &str) -> Identity {
        Identity {
            backend: BackendName::parse("aws").unwrap(),
            mount: "sts".into(),
            role: role.into(),
            audience: "a".into(),
            caller: None,
        }
    }

    fn issued(key: &str, expires_at: SystemTime) -> Issued {
        let lines = SecretBytes::new(format!("{key}\nsecret\ntoken").into_bytes());
        Issued { lines, expires_at, request_id: None }
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_serve_their_own_identity_until_a_third_of_their_life_is_left_and_are_wiped_then() {
        let (shelf, now) = (Shelf::new(Arc::new(HeapKeep)), SystemTime::now());
        let second = Duration::from_secs(1);
        shelf.keep(&identity("one"), issued("AKIA1", now + 900 * second), now);
        let found = |role: &str, at| shelf.find(&identity(role), at).map(|it| it.access_key_id().to_owned());
        assert_eq!(found("one", now + 599 * second).as_deref(), Some("AKIA1"));
        assert_eq!(found("one", now + 600 * second), None, "renewed before they end");
        assert_eq!(found("two", now), None, "another identity");
        tokio::time::sleep(601 * second).await;
        tokio::task::yield_now().await;
        assert!(shelf.entries().is_empty(), "they are wiped");
    }

    #[tokio::test]
    async fn what_is_forgotten_is_gone_and_what_has_ended_is_not_kept() {
        let (shelf, now) = (Shelf::new(Arc::new(HeapKeep)), SystemTime::now());
        shelf.keep(&identity("one"), issued("AKIA1", now + Duration::from_secs(900)), now);
        shelf.forget(&identity("one"));
        shelf.keep(&identity("two"), issued("AKIA2", now - Duration::from_secs(1)), now);
        assert!(shelf.entries().is_empty());
    }

    #[test]
    fn the_sdk_gets_the_three_parts_in_their_places_and_shows_none() {
        let credentials = issued("AKIA1", SystemTime::now()).to_sdk();
        assert_eq!((credentials.access_key_id(), credentials.secret_access_key()), ("AKIA1", "secret"));
        assert_eq!(credentials.session_token(), Some("token"));
        assert!(!format!("{credentials:?}").contains("secret\""));
    }
}
