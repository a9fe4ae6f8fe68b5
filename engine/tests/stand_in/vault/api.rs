// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The API itself: what OpenBao answers where no test says otherwise.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Memory, Recorded};

pub(super) fn serve(state: &mut Memory, request: &Recorded) -> (u16, Value) {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let path = path.strip_prefix("/v1/").unwrap();
    let errors = |status: u16| (status, json!({"errors": ["canary-error-body"]}));
    if path == "sys/health" {
        return (200, json!({"initialized": true, "sealed": false}));
    }
    if let Some(mount) = path.strip_prefix("auth/").and_then(|rest| rest.strip_suffix("/login")) {
        return match mount {
            "kubernetes" | "jwt" => login(&request.body),
            "approle" if app_role(&request.body) => logged_in(),
            "cert" if request.body == br#"{"name":"node"}"# => logged_in(),
            "approle" | "cert" => errors(400),
            _ => errors(404),
        };
    }
    if !request.headers.get("x-vault-token").is_some_and(|token| token.starts_with("s.")) {
        return errors(403);
    }
    let reply = |data: Value, lease: (&str, u64)| {
        let body = json!({"request_id": "req-1", "lease_id": lease.0, "lease_duration": lease.1, "renewable": lease.1 > 0,
            "data": data, "auth": null, "warnings": null, "wrap_info": null});
        (200, body)
    };
    if let Some(path) = path.strip_prefix("kv/data/") {
        let Some(versions) = state.kv.get(path) else { return errors(if path == "denied" { 403 } else { 404 }) };
        let number = query.strip_prefix("version=").map_or(versions.len(), |number| number.parse().unwrap());
        let metadata = json!({"version": number, "deletion_time": "", "destroyed": false});
        return match versions.get(number - 1) {
            Some(Some(values)) => reply(json!({"data": values, "metadata": metadata}), ("", 0)),
            Some(None) => (404, json!({"data": {"data": null, "metadata": metadata}})),
            None => errors(404),
        };
    }
    // A mount of version 1 gives advice on how long to keep a value, and no lease.
    if let Some(path) = path.strip_prefix("kv1/") {
        let Some(Some(values)) = state.kv.get(path).and_then(|versions| versions.last()) else { return errors(404) };
        return reply(values.clone(), ("", 2_764_800));
    }
    if let Some(path) = path.strip_prefix("kv/metadata/") {
        let Some(versions) = state.kv.get(path) else { return errors(404) };
        let states: BTreeMap<String, Value> = versions
            .iter()
            .enumerate()
            .map(|(index, version)| {
                let time = if version.is_some() { "" } else { "2024-01-01T00:00:00.123456789Z" };
                ((index + 1).to_string(), json!({"deletion_time": time, "destroyed": false}))
            })
            .collect();
        return reply(json!({"current_version": versions.len(), "versions": states}), ("", 0));
    }
    match path {
        "database/creds/app" => {
            state.leases += 1;
            let id = format!("database/creds/app/{}", state.leases);
            reply(json!({"username": id, "password": "p"}), (&id, 60))
        }
        "pki/issue/web" if request.method == "POST" => {
            let args: Value = serde_json::from_slice(&request.body).unwrap();
            if args != json!({"common_name": "web.example"}) {
                return errors(400);
            }
            reply(json!({"certificate": "PEM", "private_key": "PEM", "expiration": 4_000_000_000_u64}), ("", 0))
        }
        "pki/issue/web" => errors(405),
        _ => errors(404),
    }
}

/// Accepts the contract suite's workload, and nobody else, for role `app`.
fn login(body: &[u8]) -> (u16, Value) {
    let body: Value = serde_json::from_slice(body).unwrap();
    let claims = body["jwt"].as_str().unwrap().split('.').nth(1).unwrap().to_owned();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    let claims = &claims["kubernetes.io"];
    let known = claims["namespace"] == "payments" && claims["serviceaccount"]["name"] == "app" && body["role"] == "app";
    if !known {
        return (403, json!({"errors": ["canary-error-body"]}));
    }
    logged_in()
}

fn app_role(body: &[u8]) -> bool {
    let body: Value = serde_json::from_slice(body).unwrap();
    body == json!({"role_id": "the-role", "secret_id": "canary-secret-id"})
}

fn logged_in() -> (u16, Value) {
    let auth = json!({"client_token": "s.canary-token", "accessor": "canary-accessor", "policies": ["default"],
        "token_policies": ["default"], "metadata": {"role": "app"}, "lease_duration": 600, "renewable": true,
        "entity_id": "e", "token_type": "service", "orphan": true});
    (
        200,
        json!({"request_id": "login-1", "lease_id": "", "renewable": false, "lease_duration": 0, "data": null, "auth": auth}),
    )
}
