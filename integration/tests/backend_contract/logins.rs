// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What a real server says to logins that are not right, and what its operator then reads.

use std::collections::BTreeMap;

use evanesce_engine::backend::vault::VaultBackend;
use evanesce_engine::backend::{BackendErrorKind as Kind, contract};
use evanesce_integration::authority::{Authority, Validity};
use evanesce_integration::openbao::OpenBao;
use evanesce_integration::token_review::{Claims, TokenReview, WorkloadName};
use serde_json::json;

use super::bao::{AUDIENCE, Bao, NODE, Settings, new_secret_id, open};
use super::error;

/// That the login fails in this way, and says this.
async fn refused(bao: &Bao, backend: &VaultBackend, kind: Kind, says: &[&str]) {
    let error = error(bao.open(backend).await);
    assert_eq!(error.kind, kind, "{error}");
    for words in says {
        assert!(error.message.contains(words), "{words:?} is not said: {error}");
    }
}

/// That a login works, and what it may read is read.
async fn accepted(bao: &Bao, backend: &VaultBackend) {
    let session = bao.open(backend).await.unwrap();
    bao.put("payments/db", json!({"a": "b"})).await;
    let grant = contract::grant(backend, "kv/payments/db", None, BTreeMap::new());
    assert_eq!(session.fetch(&grant).await.unwrap().values["a"].bytes.expose(), b"b");
}

#[tokio::test]
async fn a_pods_token_that_the_server_refuses_is_unauthenticated_for_whatever_reason() {
    for settings in [Settings::kubernetes(), Settings::jwt()] {
        let bao = Bao::start(settings.clone()).await;
        accepted(&bao, &bao.backend).await;
        let expired = bao.mint(Claims::expired);
        let other_audience = bao.mint(|claims| Claims { audience: "elsewhere".into(), ..claims });
        let other_account =
            bao.mint(|claims| Claims { workload: WorkloadName::new("payments", "other", "x"), ..claims });
        let forged = TokenReview::start().await.unwrap();
        let forged = forged.tokens().mint(&Claims::new(&WorkloadName::new("payments", "app", "x"), AUDIENCE)).unwrap();
        for (why, token) in [
            ("expired", expired),
            ("another audience", other_audience),
            ("another service account", other_account),
            ("another cluster", forged.token),
            ("not a token", "x.y.z".to_owned()),
        ] {
            let error = error(open(&bao.backend, &token).await);
            assert_eq!(error.kind, Kind::Unauthenticated, "{why}: {error}");
            assert!(error.message.contains("and at the role's name"), "{why}: {error}");
        }
        let nobody = bao.other(&settings.clone().login(|_, role| *role = "nobody".into()));
        refused(&bao, &nobody, Kind::Unauthenticated, &["the role's name"]).await;
        let nowhere = bao.other(&settings.login(|mount, _| *mount = "nowhere".into()));
        refused(&bao, &nowhere, Kind::Unauthenticated, &["mount"]).await;
    }
}

#[tokio::test]
async fn a_secret_id_is_rotated_by_writing_a_new_one_and_a_wrong_one_says_so() {
    let bao = Bao::start(Settings::app_role()).await;
    let admin = bao.server.admin();
    accepted(&bao, &bao.backend).await;

    let cure = ["credentials file \"role-id\"", "\"secret-id\"", "write a new secret id of the same role there"];
    bao.files.write("secret-id", "11111111-2222-3333-4444-555555555555");
    refused(&bao, &bao.backend, Kind::Credential, &cure).await;
    bao.files.write("secret-id", &new_secret_id(admin, &bao.settings).await);
    accepted(&bao, &bao.backend).await;
    // One that was good and is revoked.
    let old = new_secret_id(admin, &bao.settings).await;
    bao.files.write("secret-id", &old);
    accepted(&bao, &bao.backend).await;
    admin.write("auth/approle/role/app/secret-id/destroy", &json!({"secret_id": old})).await.unwrap();
    refused(&bao, &bao.backend, Kind::Credential, &cure).await;

    bao.files.write("secret-id", &new_secret_id(admin, &bao.settings).await);
    bao.files.write("role-id", "another-role");
    refused(&bao, &bao.backend, Kind::Credential, &cure).await;
}

#[tokio::test]
async fn a_client_certificate_is_rotated_by_writing_a_new_one_and_a_wrong_one_says_so() {
    let bao = Bao::start(Settings::cert()).await;
    accepted(&bao, &bao.backend).await;
    let another = Authority::new("another").unwrap();
    let cure = ["certificate of credentials file \"client.pem\"", "role \"node\"", "which authority"];
    for client in [another.issue(&[NODE], Validity::Now), bao.clients.issue(&["other.example"], Validity::Now)] {
        bao.files.write_client(&client.unwrap());
        refused(&bao, &bao.backend, Kind::Credential, &cure).await;
    }
    // Of a certificate that is over the server says that it failed itself.
    bao.files.write_client(&bao.clients.issue(&[NODE], Validity::Past).unwrap());
    let over = ["500", "where a certificate is over", "\"client.pem\""];
    refused(&bao, &bao.backend, Kind::Unavailable, &over).await;
    bao.files.write_client(&bao.clients.issue(&[NODE], Validity::Now).unwrap());
    accepted(&bao, &bao.backend).await;
    let nobody = bao.other(&Settings::cert().login(|_, role| *role = "nobody".into()));
    refused(&bao, &nobody, Kind::Credential, &["role \"nobody\""]).await;

    // A rotation in the middle of which somebody logs in.
    let next = bao.clients.issue(&[NODE], Validity::Now).unwrap();
    bao.files.write("client.pem", &next.certificate);
    let mixed = ["credentials file \"client.key\"", "is not the key of the certificate in \"client.pem\""];
    refused(&bao, &bao.backend, Kind::Credential, &mixed).await;
    bao.files.write("client.key", &next.key);
    accepted(&bao, &bao.backend).await;
    for (file, contents, says) in [
        ("client.pem", "canary", "holds no PEM certificate"),
        ("client.key", "canary", "holds no PEM private key without a passphrase"),
        ("client.key", next.certificate.as_str(), "holds no PEM private key"),
    ] {
        bao.files.write_client(&next);
        bao.files.write(file, contents);
        refused(&bao, &bao.backend, Kind::Credential, &[&format!("{file:?}"), says]).await;
        let said = format!("{:?}", error(bao.open(&bao.backend).await));
        assert!(!said.contains("canary"), "{said}");
    }
}

#[tokio::test]
async fn a_server_that_wants_client_certificates_gets_one_and_says_what_it_misses() {
    let clients = Authority::new("clients").unwrap();
    let server = OpenBao::start_for_clients_of(&clients).await.unwrap();
    let with = Settings { client_certificate: true, ..Settings::kubernetes() };
    let bao = Bao::furnish(server, clients, with.clone()).await;
    accepted(&bao, &bao.backend).await;
    let without = bao.other(&Settings::kubernetes());
    bao.files.write_client(&Authority::new("another").unwrap().issue(&[NODE], Validity::Now).unwrap());
    for (backend, alert) in [(&without, "it wants a client certificate"), (&bao.backend, "does not accept the client")]
    {
        let error = error(bao.open(backend).await);
        // Whether its alert is read before the connection is closed is chance; what to look at is said either way.
        match error.kind {
            Kind::Credential => assert!(error.message.contains(alert), "{error}"),
            kind => assert_eq!(kind, Kind::Unavailable, "{error}"),
        }
        assert!(error.message.contains("spec.vault.clientCertFile"), "{error}");
    }
}

#[tokio::test]
async fn a_namespace_of_the_server_is_a_place_of_its_own() {
    let bao = Bao::start(Settings { namespace: Some("team"), ..Settings::kubernetes() }).await;
    let admin = bao.server.admin();
    admin.enable_kv2("kv").await.unwrap();
    admin.put("kv", "payments/db", json!({"a": "root"})).await.unwrap();
    accepted(&bao, &bao.backend).await;
    // Neither the login nor the mount is anywhere else.
    for namespace in [None, Some("nowhere"), Some("team/below")] {
        let elsewhere = bao.other(&Settings { namespace, ..Settings::kubernetes() });
        refused(&bao, &elsewhere, Kind::Unauthenticated, &["spec.vault.namespace"]).await;
    }
}

#[tokio::test]
async fn a_kv_mount_of_the_other_version_is_named_with_the_key_to_change() {
    for (kv1, cure) in
        [(true, "name the mount in spec.vault.kv1Mounts"), (false, "name the mount in spec.vault.kvMounts")]
    {
        let bao = Bao::start(Settings { kv1, ..Settings::kubernetes() }).await;
        bao.put("payments/db", json!({"a": "b"})).await;
        let wrong = bao.other(&Settings { kv1: !kv1, ..Settings::kubernetes() });
        let session = bao.open(&wrong).await.unwrap();
        let grant = contract::grant(&wrong, "kv/payments/db", None, BTreeMap::new());
        let error = error(session.fetch(&grant).await);
        assert!(matches!(error.kind, Kind::Denied | Kind::NotFound), "{error}");
        assert!(error.message.contains(cure), "{error}");
    }
}
