// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What leased credentials stand on: OpenBao's database engine beside a real PostgreSQL.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use evanesce_integration::openbao::OpenBao;
use evanesce_integration::postgres::{ADMINISTRATOR, Postgres, Role};
use evanesce_integration::wait;
use serde_json::json;

#[tokio::test]
async fn a_leased_role_logs_in_until_its_lease_is_revoked_and_then_there_is_none() {
    let (bao, postgres) = (OpenBao::start().await.unwrap(), Postgres::start().await.unwrap());
    bao.admin().enable_database("database", &postgres).await.unwrap();
    let lease = bao.admin().read("database/creds/app").await.unwrap();
    let (role, password) = (lease["data"]["username"].as_str().unwrap(), lease["data"]["password"].as_str().unwrap());
    let client = postgres.log_in(role, password).await.unwrap();
    let who: String = client.query_one("select current_user::text", &[]).await.unwrap().get(0);
    assert_eq!(
        (who.as_str(), postgres.roles().await.unwrap()),
        (role, vec![Role { name: role.to_owned(), over: false }])
    );
    assert!(postgres.log_in(role, "another").await.is_err() && postgres.log_in(ADMINISTRATOR, password).await.is_err());

    bao.admin().write("sys/leases/revoke", &json!({"lease_id": lease["lease_id"], "sync": true})).await.unwrap();
    wait::until_ready("the role is gone", async || postgres.roles().await.unwrap().is_empty().then_some(())).await;
    assert!(postgres.log_in(role, password).await.is_err());
}
