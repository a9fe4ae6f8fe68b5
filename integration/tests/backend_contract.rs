// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The vault backend on a real OpenBao: the contract suite, and what only a real server shows.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "backend_contract/bao.rs"]
mod bao;
#[path = "backend_contract/logins.rs"]
mod logins;

use std::collections::BTreeMap;

use evanesce_engine::backend::contract::{self, Fixture as _};
use evanesce_engine::backend::{Backend as _, BackendError, BackendErrorKind as Kind};
use evanesce_integration::wait;
use serde_json::json;

use bao::{Bao, Settings};

fn error<T>(answer: Result<T, BackendError>) -> BackendError {
    answer.err().unwrap()
}

evanesce_engine::backend_contract!(Bao::start(Settings::kubernetes()));

mod jwt_and_kv_version_1_in_a_namespace {
    use super::bao::{Bao, Settings};

    fn settings() -> Settings {
        Settings { namespace: Some("team"), kv1: true, ..Settings::jwt() }
    }

    evanesce_engine::backend_contract!(Bao::start(settings()));
}

mod app_role {
    use super::bao::{Bao, Settings};

    evanesce_engine::backend_contract!(Bao::start(Settings::app_role()));
}

mod cert {
    use super::bao::{Bao, Settings};

    evanesce_engine::backend_contract!(Bao::start(Settings::cert()));
}

#[tokio::test]
async fn the_server_sees_the_path_that_policy_saw() {
    let bao = Bao::start(Settings::kubernetes()).await;
    let session = bao.open(&bao.backend).await.unwrap();
    for path in ["odd/a..b", "odd/...", "odd/a@b:c,d=e+f!~", "odd/data/x", "odd/-._~"] {
        bao.put(path, json!({"path": path})).await;
        let grant = contract::grant(&bao.backend, &format!("kv/{path}"), None, BTreeMap::new());
        let secret = session.fetch(&grant).await.unwrap();
        assert_eq!(secret.values["path"].bytes.expose(), path.as_bytes());
        let seen = bao.server.requests().unwrap().pop().unwrap();
        assert_eq!((seen.operation.as_str(), seen.path.as_str()), ("read", grant.path().as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_outlives_its_session() {
    let bao = Bao::start(Settings::kubernetes()).await;
    let path = bao.write("db", &[("a", "b")]).await;
    let session = bao.open(&bao.backend).await.unwrap();
    session.fetch(&contract::grant(&bao.backend, &path, None, BTreeMap::new())).await.unwrap();
    assert!(connections_to(bao.server.address()) > 0, "one is kept while the session lasts");
    drop(session);
    wait::until("every connection to the server is closed", || connections_to(bao.server.address()) == 0).await;
}

/// How many established TCP connections have this address at their far end.
fn connections_to(address: &str) -> usize {
    let port: u16 = address.rsplit_once(':').unwrap().1.parse().unwrap();
    let far = format!("0100007F:{port:04X}");
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    table
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .filter(|row| row[2] == far && row[3] == "01")
        .count()
}

#[tokio::test]
async fn a_sealed_server_is_unavailable_and_says_why() {
    let bao = Bao::start(Settings::kubernetes()).await;
    let session = bao.open(&bao.backend).await.unwrap();
    bao.server.admin().write("sys/seal", &json!({})).await.unwrap();
    let grant = contract::grant(&bao.backend, "kv/payments/db", None, BTreeMap::new());
    for error in [error(session.fetch(&grant).await), error(bao.backend.probe().await)] {
        assert_eq!(error.kind, Kind::Unavailable);
        assert!(error.message.contains("unseal"), "{error}");
    }
}
