// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! AWS for tests: [moto](https://docs.getmoto.org/) keeps the secrets and gives the credentials; a front before it does what
//! moto does not, which is to say no.
//!
//! Clients are given the front's address. It verifies a pod's token as AWS does (signature, end, audience), knows which service
//! account may assume which role and which secrets a role may read, and writes down every call with the role that made it.
//! What an administrator does goes to moto itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::child::Child;
use crate::scratch::Scratch;
use crate::token_review::ServiceAccountTokens;
use crate::{ports, wait};

mod front;
mod program;

use front::Front;
pub use front::{Call, Role};

/// The region of it all.
pub const REGION: &str = "eu-central-1";
/// The audience of the tokens that it takes.
pub const AUDIENCE: &str = "sts.amazonaws.com";
/// The role that [`Aws::start`] lets the service account `payments/app` assume; it may read `payments/*`.
pub const ROLE: &str = "arn:aws:iam::123456789012:role/app";

/// Moto's own way to say whose request it is.
const ACCOUNT: &str = "x-moto-account-id";
/// It is a large program of an interpreter, and every test of a binary may be waiting for it on one core.
const PATIENCE: Duration = Duration::from_secs(120);

/// One moto serves all tests of a program, each with an account of its own. It ends with the program.
static MOTO: OnceCell<Moto> = OnceCell::const_new();

struct Moto {
    address: String,
    _server: Child,
}

impl Moto {
    async fn start(client: &reqwest::Client) -> Result<Self> {
        // Nothing is dropped at the end of a program: what it writes is kept until it answers, and no longer.
        let files = Scratch::new()?;
        let [port] = ports::free()?;
        let mut command = program::moto()?;
        command.args(["-H", "127.0.0.1", "-p"]).arg(port.to_string());
        let mut server = Child::spawn(command, &files.path().join("output"))?;
        let address = format!("http://127.0.0.1:{port}");
        let answers = async || match client.get(format!("{address}/moto-api/")).send().await {
            Ok(_) => Some(Ok(())),
            Err(_) => server.exited().map(Err),
        };
        wait::until_ready_within(PATIENCE, "moto answers", answers)
            .await
            .map_err(|status| anyhow!("moto has exited with {status}:\n{}", server.output()))?;
        Ok(Self { address, _server: server })
    }
}

/// A running stand-in for STS and Secrets Manager.
pub struct Aws {
    front: Front,
    client: reqwest::Client,
    moto: &'static str,
    account: String,
}

impl Aws {
    /// Starts one that takes the tokens of a cluster.
    ///
    /// # Errors
    /// When moto cannot be fetched or does not start.
    pub async fn start(tokens: Arc<ServiceAccountTokens>) -> Result<Self> {
        static ACCOUNTS: AtomicU64 = AtomicU64::new(100_000_000_000);
        // A client cannot be built without a provider, even for plain HTTP.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build()?;
        let moto = MOTO.get_or_try_init(|| ports::start(async || Moto::start(&client).await)).await?;
        let account = ACCOUNTS.fetch_add(1, Ordering::Relaxed).to_string();
        let front = Front::start(&moto.address, &account, client.clone(), tokens).await?;
        let who = Role { namespace: "payments".into(), service_account: "app".into(), secrets: "payments/".into() };
        front.trust(ROLE, who);
        Ok(Self { front, client, moto: &moto.address, account })
    }

    /// `http://127.0.0.1:PORT`, of Secrets Manager and of STS.
    #[must_use]
    pub fn address(&self) -> String {
        self.front.address()
    }

    /// Who may assume a role, and what it may read.
    pub fn trust(&self, role: &str, who: Role) {
        self.front.trust(role, who);
    }

    /// Every call so far, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.front.calls()
    }

    /// How often an action was called.
    #[must_use]
    pub fn count(&self, action: &str) -> usize {
        self.calls().iter().filter(|call| call.action == action).count()
    }

    /// From now on every read is one too many, for so many seconds.
    pub fn throttle(&self, seconds: u32) {
        self.front.throttle(seconds);
    }

    /// From now on the credentials that were given are worth nothing.
    pub fn expire_credentials(&self) {
        self.front.expire_credentials();
    }

    /// Writes a secret, or a new version of it that is then in use; its version's id.
    ///
    /// # Errors
    /// When moto refuses.
    pub async fn put(&self, name: &str, text: &str) -> Result<String> {
        self.write(name, &json!({"SecretString": text})).await
    }

    /// The same with bytes, in base64.
    ///
    /// # Errors
    /// When moto refuses.
    pub async fn put_binary(&self, name: &str, base64: &str) -> Result<String> {
        self.write(name, &json!({"SecretBinary": base64})).await
    }

    /// Writes a version that is to be used later: the first half of a rotation.
    ///
    /// # Errors
    /// When moto refuses.
    pub async fn put_pending(&self, name: &str, text: &str) -> Result<String> {
        let body = json!({"SecretId": name, "SecretString": text, "VersionStages": ["AWSPENDING"],
            "ClientRequestToken": uuid::Uuid::now_v7().to_string()});
        version(&self.ask("PutSecretValue", &body).await?)
    }

    /// Puts a version to use, and keeps the one before as `AWSPREVIOUS`: the second half.
    ///
    /// # Errors
    /// When moto refuses.
    pub async fn promote(&self, name: &str, from: &str, to: &str) -> Result<()> {
        let body =
            json!({"SecretId": name, "VersionStage": "AWSCURRENT", "RemoveFromVersionId": from, "MoveToVersionId": to});
        self.ask("UpdateSecretVersionStage", &body).await.map(drop)
    }

    /// Marks a secret for deletion.
    ///
    /// # Errors
    /// When moto refuses.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.ask("DeleteSecret", &json!({"SecretId": name, "RecoveryWindowInDays": 7})).await.map(drop)
    }

    /// A secret's ARN.
    ///
    /// # Errors
    /// When there is none.
    pub async fn arn(&self, name: &str) -> Result<String> {
        let answer = self.ask("DescribeSecret", &json!({"SecretId": name})).await?;
        answer["ARN"].as_str().map(str::to_owned).context("no ARN")
    }

    async fn write(&self, name: &str, value: &Value) -> Result<String> {
        let with = |key: &str| {
            let mut body = value.clone();
            body[key] = name.into();
            body["ClientRequestToken"] = uuid::Uuid::now_v7().to_string().into();
            body
        };
        match self.ask("CreateSecret", &with("Name")).await {
            Err(error) if error.to_string().contains("ResourceExistsException") => {
                version(&self.ask("PutSecretValue", &with("SecretId")).await?)
            }
            answer => version(&answer?),
        }
    }

    /// As an administrator, past the front. Moto reads service and region from the signature, and believes it.
    async fn ask(&self, action: &str, body: &Value) -> Result<Value> {
        let scope = format!("Credential=admin/20260101/{REGION}/secretsmanager/aws4_request");
        let answer = self
            .client
            .post(self.moto)
            .header(ACCOUNT, &self.account)
            .header("x-amz-target", format!("secretsmanager.{action}"))
            .header("content-type", "application/x-amz-json-1.1")
            .header("authorization", format!("AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=none"))
            .body(body.to_string())
            .send()
            .await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if !status.is_success() {
            bail!("moto answered {status} to {action}: {text}");
        }
        Ok(serde_json::from_str(&text)?)
    }
}

fn version(answer: &Value) -> Result<String> {
    answer["VersionId"].as_str().map(str::to_owned).context("no version")
}
