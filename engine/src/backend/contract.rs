// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What every backend keeps to, as a suite that runs against any of them.
//!
//! A [`Fixture`] prepares secrets the way an administrator would; the cases then use nothing but the trait. What a backend does
//! not have (leases, versions by number, a login) its fixture answers with `None`, and the case that would need it
//! checks nothing. [`backend_contract!`](crate::backend_contract) makes one test of each case.

mod cases;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::backend::Backend;
use crate::keep::HeapKeep;
use crate::names::{Namespace, NodeName, PodName, PodUid, ServiceAccountName};
use crate::policy::{self, Allow, Glob, Grant, SecretPattern};
use crate::secret::SecretBytes;
use crate::secret_ref::{SecretPath, SecretRef};
use crate::token::{Token, Tokens};
use crate::workload::Workload;

pub use cases::*;

/// A value that must turn up nowhere but in a secret's bytes.
pub const CANARY: &str = "canary-value-7Gq2xWzK";

/// What a test prepares around a backend.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The backend under test; it accepts [`workload`] and lets it read whatever [`Fixture::write`] wrote.
    fn backend(&self) -> &dyn Backend;

    /// Backends that differ from it in one of the parts of an identity: name, mount, role, audience.
    fn variations(&self) -> Vec<Box<dyn Backend>>;

    /// A token that the backend accepts for this workload; `None` where it wants none.
    async fn token(&self, workload: &Workload) -> Option<String>;

    /// Writes a secret, or a new version of it, and answers the path that users write for it.
    async fn write(&self, name: &str, values: &[(&str, &str)]) -> String;

    /// Deletes a secret.
    async fn delete(&self, name: &str);

    /// A path that the backend itself refuses to [`workload`].
    async fn denied(&self) -> Option<String>;

    /// A path whose answers come with a lease.
    async fn leased(&self) -> Option<(String, BTreeMap<String, String>)>;

    /// A path whose answers say when they end, without a lease.
    async fn expiring(&self) -> Option<(String, BTreeMap<String, String>)>;

    /// Whether a secret's versions are numbered from 1 and can be asked for.
    fn numbered(&self) -> bool;

    /// Makes the backend ask for fewer requests from now on, and for none before so many whole seconds.
    async fn throttle(&self) -> Option<Duration>;
}

/// The workload that a fixture's backend accepts.
///
/// # Panics
/// Never: the names are valid.
pub fn workload() -> Workload {
    named("payments", "app")
}

/// A workload that a fixture's backend does not know.
///
/// # Panics
/// Never: the names are valid.
pub fn stranger() -> Workload {
    named("elsewhere", "nobody")
}

fn named(namespace: &str, service_account: &str) -> Workload {
    Workload {
        namespace: Namespace::parse(namespace).expect("a namespace"),
        service_account: ServiceAccountName::parse(service_account).expect("a service account"),
        pod: PodName::parse("app-0").expect("a pod"),
        pod_uid: PodUid::parse("11111111-2222-3333-4444-555555555555").expect("a pod's uid"),
        node: NodeName::parse("node-1").expect("a node"),
    }
}

/// A token as kubelet would bring it, with nothing behind its signature.
pub fn unsigned_token(workload: &Workload, service_account_uid: &str) -> String {
    let Workload { namespace, service_account, pod, pod_uid, .. } = workload;
    let claims = format!(
        r#"{{"kubernetes.io":{{"namespace":"{namespace}","serviceaccount":{{"name":"{service_account}","uid":"{service_account_uid}"}},"pod":{{"name":"{pod}","uid":"{pod_uid}"}}}}}}"#
    );
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

/// The token as the product has it.
///
/// # Panics
/// Where `text` is not what kubelet could send.
pub fn parse_token(text: &str) -> Arc<Token> {
    let json = format!(r#"{{"a":{{"token":"{text}","expirationTimestamp":"2100-01-01T00:00:00Z"}}}}"#);
    let tokens = Tokens::parse(&SecretBytes::from(json.as_bytes()), &HeapKeep).expect("a token");
    Arc::clone(tokens.get(&crate::token::Audience::new("a"), SystemTime::UNIX_EPOCH).expect("the token"))
}

/// A grant for what a class that allows everything lets one ask.
///
/// # Panics
/// Where the path is not one of the backend's.
pub fn grant(backend: &dyn Backend, path: &str, version: Option<u64>, args: BTreeMap<String, String>) -> Grant {
    let reference =
        SecretRef { backend: backend.name().clone(), path: SecretPath::parse(path).expect("a path"), version, args };
    let allow = Allow {
        namespaces: vec![Glob::parse("*")],
        service_accounts: vec![Glob::parse("*")],
        secrets: vec![SecretPattern::parse("*", backend).expect("a pattern")],
        role: None,
    };
    policy::authorise(backend, &[allow], &workload(), &reference).expect("everything is allowed")
}

/// Makes a test of each case; the expression is a future of the fixture, and is evaluated anew for each.
#[macro_export]
macro_rules! backend_contract {
    ($fixture:expr) => {
        $crate::backend_contract! { $fixture;
            a_secret_reads_back_as_it_was_written
            a_login_says_where_it_was_made
            a_caller_it_does_not_know_is_not_logged_in
            a_missing_secret_is_not_found
            a_deleted_secret_is_not_found
            a_refusal_is_told_apart_from_absence
            a_version_changes_with_a_write_and_only_then
            a_fixed_version_keeps_its_values
            a_lease_comes_with_its_id_and_its_end
            a_secret_that_ends_says_when
            a_wish_for_fewer_requests_carries_its_time
            an_identity_differs_if_any_part_of_it_does
            only_what_has_no_end_is_called_shareable
            a_batch_answers_each_question_in_its_place
            questions_side_by_side_get_their_own_answers
            a_pattern_fits_the_path_it_was_written_for
            nothing_printable_holds_a_secret
        }
    };
    ($fixture:expr; $($case:ident)+) => {$(
        #[tokio::test]
        async fn $case() {
            let fixture = $fixture.await;
            $crate::backend::contract::$case(&fixture).await;
        }
    )+};
}
