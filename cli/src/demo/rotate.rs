// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The second story: a database's credentials that live for seconds. They are prolonged, replaced with an overlap and
//! revoked, under a client that opens a new connection again and again with what it reads, and never fails.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::backend::{CLASS, NAMESPACE};
use super::ground::Ground;
use super::kubelet::Kubelet;
use super::openbao::{self, OpenBao};
use super::plugin::Plugin;
use super::postgres::{ADMINISTRATOR, Postgres};
use super::show::{Seen, Show};
use super::{PATIENCE, look, wait};

/// How many credentials take the place of another while somebody watches.
const REPLACEMENTS: usize = 4;
/// What the database's role lends for, and at most.
const LEASE: Duration = Duration::from_secs(4);
const LONGEST_LEASE: Duration = Duration::from_secs(6);
/// Between two logins of the client.
const PACE: Duration = Duration::from_millis(100);
/// The file that holds user and password together, so that one open reads a pair.
const FILE: &str = "db.json";

/// What was seen.
#[derive(Default, Serialize)]
pub(crate) struct RotateSeen {
    /// How many connections the client opened.
    logins: usize,
    /// How many were refused.
    failed_logins: usize,
    /// How many credentials took the place of another.
    replacements: usize,
    /// How many were ended before their time, by the audit's account.
    revoked: usize,
    /// How many the database still knows.
    roles_left: usize,
}

impl fmt::Display for RotateSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { logins, failed_logins, replacements, revoked, roles_left } = self;
        write!(f, "{logins} logins, {failed_logins} failed, {replacements} replacements, ")?;
        write!(f, "{revoked} revoked, {roles_left} roles left")
    }
}

impl Seen for RotateSeen {
    fn end(&mut self, show: &Show) {
        self.revoked = show.succeeded("revoke");
    }
}

/// A credential as the volume shows it. The role's name is part of it, and not shown.
#[derive(Deserialize)]
struct Credential {
    username: String,
    password: String,
}

/// Plays it.
pub(crate) async fn play(ground: Ground, folder: &Path, show: &Arc<Show>, seen: &mut RotateSeen) -> anyhow::Result<()> {
    let postgres = Postgres::start(folder, openbao::random_token()?).await?;
    show.step(format_args!("started PostgreSQL of {}", postgres.programs().display()))?;
    let bao = OpenBao::start(folder).await?;
    lend(&bao, &postgres, folder)?;
    show.step(format_args!(
        "started {}, which makes database users for {LEASE:?}, {LONGEST_LEASE:?} at most",
        bao.program().display()
    ))?;
    let flag = format!("--backend-ports={}", bao.port());
    let plugin = Plugin::start(folder, ground, flag, Arc::clone(show)).await?;
    show.step(format_args!("started the node plugin: {}", plugin.program()))?;
    let kubelet = Kubelet::new(folder, None);
    kubelet.register(&plugin).await?;
    kubelet.publish(&plugin).await.context("the first publish failed")?;
    show.step(format_args!(
        "published a volume for the pod payments/web-0; a client reads {FILE} and logs in, and again"
    ))?;

    use_it(&kubelet.target().join(FILE), &postgres, show, seen).await?;

    kubelet.unpublish(&plugin).await.context("unpublish failed")?;
    ensure!(look::mount_options(kubelet.target()).is_err(), "the mount is still there");
    show.step("unpublished it: what it still held is revoked")?;
    wait::until(
        || format!("database users are left after {PATIENCE:?}"),
        async || {
            seen.roles_left = postgres.roles()?;
            Ok((seen.roles_left == 0).then_some(()))
        },
    )
    .await?;
    plugin.stop().await?;
    let (revoked, failed) = (show.succeeded("revoke"), seen.failed_logins);
    ensure!(failed == 0, "{failed} of {} logins failed", seen.logins);
    ensure!(revoked > seen.replacements, "{revoked} of {} credentials were revoked", seen.replacements + 1);
    show.step("stopped the plugin: no process, no mount and no database user is left")?;
    Ok(())
}

/// Logs in until enough credentials have come and gone.
async fn use_it(file: &Path, postgres: &Postgres, show: &Show, seen: &mut RotateSeen) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    let mut pace = tokio::time::interval(PACE);
    let mut shown = String::new();
    let mut before = (0, 0);
    while seen.replacements < REPLACEMENTS {
        pace.tick().await;
        ensure!(Instant::now() < end, "{} credentials came in {PATIENCE:?}", seen.replacements + 1);
        let credential: Credential = serde_json::from_slice(&fs::read(file)?)?;
        if credential.username != shown {
            if !shown.is_empty() {
                show.credential(seen.replacements + 1, seen.logins - before.0, seen.failed_logins - before.1, true)?;
                before = (seen.logins, seen.failed_logins);
                seen.replacements += 1;
            }
            shown = credential.username.clone();
        }
        let answer = postgres.query(&credential.username, &credential.password, "select current_user")?;
        if answer.status.success() {
            seen.logins += 1;
        } else {
            seen.failed_logins += 1;
        }
        show.credential(seen.replacements + 1, seen.logins - before.0, seen.failed_logins - before.1, false)?;
    }
    show.settle();
    Ok(())
}

/// What an administrator of OpenBao and of the database sets up, and the classes below `folder`.
fn lend(bao: &OpenBao, postgres: &Postgres, folder: &Path) -> anyhow::Result<()> {
    let host = format!("127.0.0.1:{}/{ADMINISTRATOR}?sslmode=disable", postgres.port());
    bao.write("sys/mounts/database", &json!({"type": "database"}))?;
    bao.write(
        "database/config/demo",
        &json!({
            "plugin_name": "postgresql-database-plugin",
            "allowed_roles": CLASS,
            "connection_url": format!("postgresql://{{{{username}}}}:{{{{password}}}}@{host}"),
            "username": ADMINISTRATOR,
            "password": postgres.password(),
        }),
    )?;
    bao.write(
        &format!("database/roles/{CLASS}"),
        &json!({
            "db_name": "demo",
            "default_ttl": LEASE.as_secs(),
            "max_ttl": LONGEST_LEASE.as_secs(),
            "creation_statements":
                "create role \"{{name}}\" with login password '{{password}}' valid until '{{expiration}}'",
        }),
    )?;
    bao.policy("demo", &format!("path \"database/creds/{CLASS}\" {{ capabilities = [\"read\"] }}"))?;
    bao.write("sys/auth/approle", &json!({"type": "approle"}))?;
    bao.write("auth/approle/role/demo", &json!({"token_policies": "demo", "token_ttl": "10m"}))?;
    let credentials = folder.join("credentials");
    let role_id = bao.field(&["read"], "auth/approle/role/demo/role-id", "role_id")?;
    let secret_id = bao.field(&["write", "-force"], "auth/approle/role/demo/secret-id", "secret_id")?;
    super::backend::write_private(&credentials, &[("role-id", &role_id), ("secret-id", &secret_id)])?;
    let classes = folder.join("classes");
    fs::create_dir_all(&classes)?;
    Ok(fs::write(classes.join("demo.yaml"), text_of_classes(bao.address()))?)
}

fn text_of_classes(address: &str) -> String {
    format!(
        "apiVersion: evanesce.dev/v1alpha1
kind: SecretBackend
metadata: {{name: demo}}
spec:
  vault: {{address: \"{address}\", auth: {{appRole: {{roleIdFile: role-id, secretIdFile: secret-id}}}}}}
  allow:
    - {{namespaces: [{NAMESPACE}], serviceAccounts: [app], secrets: [\"database/creds/{CLASS}\"]}}
---
apiVersion: evanesce.dev/v1alpha1
kind: SecretVolume
metadata: {{name: {CLASS}, namespace: {NAMESPACE}}}
spec:
  keepPrevious: 1s
  leases: {{overlap: 1s}}
  files:
    - {{path: {FILE}, from: {{backend: demo, secret: database/creds/{CLASS}}}}}
"
    )
}
