// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The administrator of a test server: mounts, policies, roles, secrets.

use anyhow::{Context, Result, bail};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    child::Child,
    postgres::{self, Postgres},
    token_review::TokenReview,
};

/// A client with the root token.
pub struct Admin {
    http: Client,
    address: String,
    token: String,
}

/// A role of the kubernetes auth method: who may log in, and as what.
pub struct KubernetesRole<'a> {
    /// The role's name.
    pub name: &'a str,
    /// Namespaces that may log in, `*` for all.
    pub namespaces: &'a [&'a str],
    /// Service accounts that may log in, `*` for all.
    pub service_accounts: &'a [&'a str],
    /// The audience that a token must have.
    pub audience: &'a str,
    /// Policies of the token that a login brings.
    pub policies: &'a [&'a str],
}

impl Admin {
    /// Initialises and unseals a fresh server.
    pub(super) async fn unseal(address: &str, server: &mut Child) -> Result<Self> {
        // A client cannot be built without a provider, even for plain HTTP.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder().no_proxy().build()?;
        let mut admin = Self { http, address: address.to_owned(), token: String::new() };
        let init = json!({"secret_shares": 1, "secret_threshold": 1});
        let init = server
            .until_ready("openbao can be initialised", async || {
                admin.call(Method::POST, "sys/init", Some(&init)).await.ok()
            })
            .await?;
        let key = init["keys"][0].as_str().context("openbao gave no key")?;
        admin.call(Method::POST, "sys/unseal", Some(&json!({"key": key}))).await?;
        admin.token = init["root_token"].as_str().context("openbao gave no token")?.to_owned();
        server
            .until_ready("openbao is unsealed and active", async || {
                admin.call(Method::GET, "sys/health", None).await.ok()
            })
            .await?;
        Ok(admin)
    }

    /// The root token: to look for it where it must not be, or to hand it in where it must.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Mounts a secrets engine of type kv, version 2.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn enable_kv2(&self, mount: &str) -> Result<()> {
        let body = json!({"type": "kv", "options": {"version": "2"}});
        self.write(&format!("sys/mounts/{mount}"), &body).await?;
        // The mount upgrades itself in the background, and refuses writes while it does.
        let ready = format!("the mount {mount} has upgraded itself to version 2");
        let config = format!("{mount}/config");
        crate::wait::until_ready(&ready, async || self.read(&config).await.ok()).await;
        Ok(())
    }

    /// Writes a new version of the secret `mount/path`.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn put(&self, mount: &str, path: &str, values: Value) -> Result<()> {
        self.write(&format!("{mount}/data/{path}"), &json!({"data": values})).await?;
        Ok(())
    }

    /// Deletes the secret `mount/path` with all its versions.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn delete(&self, mount: &str, path: &str) -> Result<()> {
        self.call(Method::DELETE, &format!("{mount}/metadata/{path}"), None).await?;
        Ok(())
    }

    /// Writes a policy, in OpenBao's own language.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn policy(&self, name: &str, rules: &str) -> Result<()> {
        self.write(&format!("sys/policies/acl/{name}"), &json!({"policy": rules})).await?;
        Ok(())
    }

    /// Makes a token with these policies.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn create_token(&self, policies: &[&str], ttl: &str) -> Result<String> {
        let body = json!({"policies": policies, "ttl": ttl});
        let answer = self.write("auth/token/create", &body).await?;
        Ok(answer["auth"]["client_token"].as_str().context("no token in the answer")?.to_owned())
    }

    /// Mounts the kubernetes auth method at `mount` and lets it ask this TokenReview API.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn enable_kubernetes(&self, mount: &str, cluster: &TokenReview) -> Result<()> {
        self.write(&format!("sys/auth/{mount}"), &json!({"type": "kubernetes"})).await?;
        let body = json!({
            "kubernetes_host": cluster.address(),
            "kubernetes_ca_cert": cluster.authority_pem(),
            "token_reviewer_jwt": cluster.reviewer_token()?,
            "disable_local_ca_jwt": true,
        });
        self.write(&format!("auth/{mount}/config"), &body).await?;
        Ok(())
    }

    /// Writes a role of the kubernetes auth method at `mount`.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn kubernetes_role(&self, mount: &str, role: KubernetesRole<'_>) -> Result<()> {
        let body = json!({
            "bound_service_account_names": role.service_accounts,
            "bound_service_account_namespaces": role.namespaces,
            "audience": role.audience,
            "token_policies": role.policies,
            "token_ttl": "10m",
        });
        self.write(&format!("auth/{mount}/role/{}", role.name), &body).await?;
        Ok(())
    }

    /// Mounts the database engine at `mount` before this PostgreSQL, with a role `app` whose leases last a minute and five at
    /// most.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn enable_database(&self, mount: &str, postgres: &Postgres) -> Result<()> {
        self.write(&format!("sys/mounts/{mount}"), &json!({"type": "database"})).await?;
        let body = json!({
            "plugin_name": "postgresql-database-plugin",
            "connection_url": postgres.url_for_openbao(),
            "username": postgres::ADMINISTRATOR,
            "password": postgres.password(),
            "allowed_roles": "*",
        });
        self.write(&format!("{mount}/config/postgres"), &body).await?;
        let create = r#"create role "{{name}}" with login password '{{password}}' valid until '{{expiration}}'"#;
        let body = json!({
            "db_name": "postgres",
            "creation_statements": create,
            "default_ttl": "1m",
            "max_ttl": "5m",
        });
        self.write(&format!("{mount}/roles/app"), &body).await?;
        Ok(())
    }

    /// Reads any path.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn read(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, None).await
    }

    /// Lists the names below any path: none where there is no such path.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn list(&self, path: &str) -> Result<Vec<String>> {
        let list = Method::from_bytes(b"LIST").context("a method's name")?;
        match self.call(list, path, None).await {
            Ok(answer) => Ok(serde_json::from_value(answer["data"]["keys"].clone())?),
            Err(error) if error.to_string().contains("404") => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Writes any path.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn write(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Deletes any path.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn remove(&self, path: &str) -> Result<()> {
        self.call(Method::DELETE, path, None).await.map(drop)
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut request = self
            .http
            .request(method.clone(), format!("{}/v1/{path}", self.address))
            .header("X-Vault-Token", &self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("openbao answered {method} {path} with {status}: {text}");
        }
        if status == StatusCode::NO_CONTENT || text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).with_context(|| format!("{method} {path} brought no JSON"))
    }
}
