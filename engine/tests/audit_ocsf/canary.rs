// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A canary is planted wherever an event's makers hold something secret; no line may have it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evanesce_engine::audit::ocsf::Entry;
use evanesce_engine::audit::recording::RecordingAuditor;
use evanesce_engine::audit::{Event, Outcome, Purpose, Scope, Shown, Source};
use evanesce_engine::backend::{BackendError, BackendErrorKind, Login};
use evanesce_engine::error::{Error, Kind};
use evanesce_engine::secret::{Lease, Secret, SecretBytes, Value, ValueKind, Version};

use crate::samples;

const CANARY: &str = "canary-5b1f0e";

const BACKEND_ERRORS: [BackendErrorKind; 8] = [
    BackendErrorKind::Credential,
    BackendErrorKind::Denied,
    BackendErrorKind::Malformed,
    BackendErrorKind::NotFound,
    BackendErrorKind::Throttled,
    BackendErrorKind::TimedOut,
    BackendErrorKind::Unauthenticated,
    BackendErrorKind::Unavailable,
];

#[test]
fn no_line_holds_what_is_secret() {
    let recorder = Arc::new(RecordingAuditor::default());
    let open = || Scope::open(Arc::clone(&recorder) as _, samples::subject(), Purpose::First);

    // What a backend answers: values, their lease's id, and prose where a name belongs.
    let prose = format!("the value is {CANARY}");
    let secret = Secret {
        values: BTreeMap::from([(
            CANARY.to_owned(),
            Value { bytes: SecretBytes::from(CANARY.as_bytes()), kind: ValueKind::Text },
        )]),
        version: Some(Version::new(&prose)),
        lease: Some(Lease {
            id: SecretBytes::from(CANARY.as_bytes()),
            duration: Duration::from_secs(60),
            renewable: true,
        }),
        expires_at: None,
        rotates_in: None,
        request_id: Some(prose.clone()),
    };
    let scope = open();
    scope.record(Event::LoggedIn {
        subject: samples::subject(),
        identity: samples::identity(),
        login: Login { performed: true, method: "kubernetes", request_id: Some(prose), ..Login::default() },
        outcome: Outcome::Success,
    });
    let shown = Shown {
        backend: samples::identity().backend,
        path: "kv/data/payments/db".into(),
        version: secret.version.clone(),
        ends: false,
    };
    scope.record(Event::Fetched {
        subject: samples::subject(),
        identity: samples::identity(),
        secret: shown.clone(),
        source: Source::Asked,
        request_id: secret.request_id.clone(),
        ttl: secret.lease.as_ref().map(|lease| lease.duration),
        endpoint: None,
        outcome: Outcome::Success,
    });
    scope.close(&Ok(secret), |subject, _| {
        Some(Event::Refreshed { subject, generation: 2, before: vec![shown.clone()], after: vec![shown.clone()] })
    });

    // What an error says to the operator alone.
    for kind in BACKEND_ERRORS {
        let error = BackendError::new(kind, CANARY).into_error(&samples::identity().backend, "kv/payments/db");
        open().close(&Err::<(), _>(error), |_, ()| None);
    }
    for kind in Kind::ALL {
        open().close(&Err::<(), _>(Error::new(kind, "it failed").with_detail(CANARY)), |_, ()| None);
    }
    drop(open());

    let events = recorder.events();
    assert_eq!(events.len(), 3 + BACKEND_ERRORS.len() + Kind::ALL.len() + 1);
    for event in events {
        let line = String::from_utf8(samples::line(&Entry::Event(Box::new(event)))).unwrap();
        assert!(!line.contains(CANARY), "{line}");
    }
}
