// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The ground the other tests stand on: a real OpenBao that lets the right workload in.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use evanesce_integration::{
    openbao::{KubernetesRole, OpenBao},
    token_review::{Claims, TokenReview, WorkloadName},
};
use serde_json::json;

const ROLE: KubernetesRole<'_> = KubernetesRole {
    name: "app",
    namespaces: &["payments"],
    service_accounts: &["app"],
    audience: "vault",
    policies: &["payments"],
};

#[tokio::test(flavor = "multi_thread")]
async fn openbao_lets_a_workload_in_by_its_token_and_nobody_else() {
    let bao = OpenBao::start().await.unwrap();
    let cluster = TokenReview::start().await.unwrap();
    let admin = bao.admin();
    admin.enable_kubernetes("kubernetes", &cluster).await.unwrap();
    admin.kubernetes_role("kubernetes", ROLE).await.unwrap();
    let app = WorkloadName::new("payments", "app", "app-0");

    let right = cluster.tokens().mint(&Claims::new(&app, "vault")).unwrap();
    let answer = login(&bao, &right.token).await.unwrap();
    assert_eq!(answer["auth"]["policies"], json!(["default", "payments"]));
    assert_eq!(cluster.reviews(), 1);

    let stranger = WorkloadName::new("payments", "stranger", "stranger-0");
    for refused in
        [Claims::new(&stranger, "vault"), Claims::new(&app, "elsewhere"), Claims::new(&app, "vault").expired()]
    {
        let token = cluster.tokens().mint(&refused).unwrap();
        login(&bao, &token.token).await.unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openbao_tells_who_read_what() {
    let bao = OpenBao::start().await.unwrap();
    let admin = bao.admin();
    admin.enable_kv2("kv").await.unwrap();
    admin.put("kv", "payments/db", json!({"password": "correct horse"})).await.unwrap();
    let rules = r#"path "kv/data/payments/*" { capabilities = ["read"] }"#;
    admin.policy("payments", rules).await.unwrap();
    let token = admin.create_token(&["payments"], "10m").await.unwrap();

    let trust = reqwest::Certificate::from_pem(bao.authority_pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([trust]).build().unwrap();
    for (address, status) in [
        (format!("{}/v1/kv/data/payments/db", bao.address()), 200),
        (format!("{}/v1/kv/data/other/db", bao.plain_address()), 403),
    ] {
        let request = client.get(address).header("X-Vault-Token", &token);
        assert_eq!(request.send().await.unwrap().status(), status);
    }

    let paths: Vec<_> = bao.requests().unwrap().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, ["kv/data/payments/db", "kv/data/other/db"]);
}

async fn login(bao: &OpenBao, token: &str) -> anyhow::Result<serde_json::Value> {
    let body = json!({"role": "app", "jwt": token});
    bao.admin().write("auth/kubernetes/login", &body).await
}
