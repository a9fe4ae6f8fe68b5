// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The contract suite on the fake, on the vault backend against a stand-in of the server's API, and on sealed files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "stand_in/vault.rs"]
mod vault_stand_in;

mod fake {
    use std::collections::BTreeMap;
    use std::time::{Duration, SystemTime};

    use async_trait::async_trait;
    use evanesce_engine::backend::contract::{self, Fixture};
    use evanesce_engine::backend::fake::FakeBackend;
    use evanesce_engine::backend::{Backend, BackendErrorKind};
    use evanesce_engine::workload::Workload;

    struct Fake(FakeBackend);

    impl Fake {
        async fn start() -> Self {
            let backend = FakeBackend::new("fake");
            let stranger = contract::stranger();
            backend.refuse_login(&stranger.namespace, &stranger.service_account);
            Self(backend)
        }
    }

    #[async_trait]
    impl Fixture for Fake {
        fn backend(&self) -> &dyn Backend {
            &self.0
        }

        fn variations(&self) -> Vec<Box<dyn Backend>> {
            vec![
                Box::new(FakeBackend::new("other")),
                Box::new(self.0.with_mount("other")),
                Box::new(self.0.with_role("other")),
                Box::new(self.0.with_audience(Some("other"))),
            ]
        }

        async fn token(&self, workload: &Workload) -> Option<String> {
            Some(contract::unsigned_token(workload, "uid-1"))
        }

        async fn write(&self, name: &str, values: &[(&str, &str)]) -> String {
            let path = format!("things/{name}");
            self.0.put(&path, values);
            path
        }

        async fn delete(&self, name: &str) {
            self.0.delete(&format!("things/{name}"));
        }

        async fn denied(&self) -> Option<String> {
            self.0.deny("things/denied");
            Some("things/denied".into())
        }

        async fn leased(&self) -> Option<(String, BTreeMap<String, String>)> {
            self.0.put("things/leased", &[("a", "b")]);
            self.0.lease("things/leased", Duration::from_secs(60));
            Some(("things/leased".into(), BTreeMap::new()))
        }

        async fn expiring(&self) -> Option<(String, BTreeMap<String, String>)> {
            self.0.put("things/expiring", &[("a", "b")]);
            self.0.expire("things/expiring", SystemTime::now() + Duration::from_secs(60));
            Some(("things/expiring".into(), BTreeMap::new()))
        }

        fn numbered(&self) -> bool {
            true
        }

        async fn throttle(&self) -> Option<Duration> {
            let after = Duration::from_secs(7);
            self.0.fail(BackendErrorKind::Throttled, Some(after));
            Some(after)
        }
    }

    evanesce_engine::backend_contract!(Fake::start());
}

mod vault {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use async_trait::async_trait;
    use evanesce_engine::backend::Backend;
    use evanesce_engine::backend::contract::{self, Fixture};
    use evanesce_engine::backend::vault::VaultBackend;
    use evanesce_engine::spec::backend::VaultAuth;
    use evanesce_engine::workload::Workload;

    use crate::vault_stand_in::{Settings, StandIn};

    /// One of the ways to log in, and one version of the KV mount.
    struct Vault {
        server: StandIn,
        backend: VaultBackend,
        auth: Option<VaultAuth>,
        mount: &'static str,
    }

    impl Vault {
        async fn start(auth: Option<VaultAuth>, mount: &'static str) -> Self {
            let server = StandIn::start().await;
            server.credentials("role-id", "the-role\n");
            server.credentials("secret-id", "canary-secret-id\n");
            let backend = server.backend(&Settings { auth: auth.clone(), ..Settings::default() });
            Self { server, backend, auth, mount }
        }
    }

    #[async_trait]
    impl Fixture for Vault {
        fn backend(&self) -> &dyn Backend {
            &self.backend
        }

        fn variations(&self) -> Vec<Box<dyn Backend>> {
            let usual = || Settings { auth: self.auth.clone(), ..Settings::default() };
            let others = match &self.auth {
                None => vec![
                    Settings { mount: "other", ..usual() },
                    Settings { role: "other", ..usual() },
                    Settings { audience: "other", ..usual() },
                ],
                Some(auth) => vec![Settings { auth: Some(elsewhere(auth)), ..usual() }],
            };
            let all = others.into_iter().chain([Settings { name: "other", ..usual() }]);
            all.map(|settings| Box::new(self.server.backend(&settings)) as Box<dyn Backend>).collect()
        }

        async fn token(&self, workload: &Workload) -> Option<String> {
            Some(contract::unsigned_token(workload, "uid-1"))
        }

        async fn write(&self, name: &str, values: &[(&str, &str)]) -> String {
            self.server.put(&format!("payments/{name}"), values);
            format!("{}/payments/{name}", self.mount)
        }

        async fn delete(&self, name: &str) {
            self.server.delete(&format!("payments/{name}"));
        }

        async fn denied(&self) -> Option<String> {
            Some("kv/denied".into())
        }

        async fn leased(&self) -> Option<(String, BTreeMap<String, String>)> {
            Some(("database/creds/app".into(), BTreeMap::new()))
        }

        async fn expiring(&self) -> Option<(String, BTreeMap<String, String>)> {
            Some(("pki/issue/web".into(), [("common_name".to_owned(), "web.example".to_owned())].into()))
        }

        fn numbered(&self) -> bool {
            self.mount == "kv"
        }

        async fn throttle(&self) -> Option<Duration> {
            self.server.always(429, &[("retry-after", "7")], "");
            Some(Duration::from_secs(7))
        }
    }

    /// The same login at another mount.
    fn elsewhere(auth: &VaultAuth) -> VaultAuth {
        let mut auth = auth.clone();
        let (VaultAuth::Kubernetes { mount, .. }
        | VaultAuth::Jwt { mount, .. }
        | VaultAuth::AppRole { mount, .. }
        | VaultAuth::Cert { mount, .. }) = &mut auth
        else {
            panic!("a login with a mount")
        };
        *mount = "elsewhere".to_owned();
        auth
    }

    evanesce_engine::backend_contract!(Vault::start(None, "kv"));

    mod kv_version_1 {
        evanesce_engine::backend_contract!(super::Vault::start(None, "kv1"));
    }

    mod jwt {
        use evanesce_engine::spec::backend::VaultAuth;

        fn auth() -> Option<VaultAuth> {
            let (mount, role, audience) = ("jwt".to_owned(), "app".to_owned(), "vault".to_owned());
            Some(VaultAuth::Jwt { mount, role, audience, share_pods: false })
        }

        evanesce_engine::backend_contract!(super::Vault::start(auth(), "kv"));
    }

    mod app_role {
        use evanesce_engine::spec::backend::VaultAuth;

        fn auth() -> Option<VaultAuth> {
            let (role_id_file, secret_id_file) = ("role-id".to_owned(), "secret-id".to_owned());
            Some(VaultAuth::AppRole { mount: "approle".to_owned(), role_id_file, secret_id_file })
        }

        evanesce_engine::backend_contract!(super::Vault::start(auth(), "kv"));
    }
}

mod sealed {
    use std::collections::BTreeMap;
    use std::fs;
    use std::sync::Arc;
    use std::time::Duration;

    use async_trait::async_trait;
    use evanesce_engine::backend::Backend;
    use evanesce_engine::backend::contract::Fixture;
    use evanesce_engine::backend::sealed::{self, Recipients, SealedBackend};
    use evanesce_engine::credentials::CredentialFiles;
    use evanesce_engine::error::Error;
    use evanesce_engine::names::BackendName;
    use evanesce_engine::secret::SecretBytes;
    use evanesce_engine::spec::backend::SealedSpec;
    use evanesce_engine::workload::Workload;
    use tempfile::TempDir;

    struct Folder {
        folder: TempDir,
        recipients: Recipients,
        backend: SealedBackend,
    }

    struct IdentityFile(SecretBytes);

    #[async_trait]
    impl CredentialFiles for IdentityFile {
        async fn read(&self, _name: &str) -> Result<SecretBytes, Error> {
            Ok(SecretBytes::from(self.0.expose()))
        }
    }

    fn backend(name: &str, folder: &TempDir, identity: SecretBytes) -> SealedBackend {
        let spec = SealedSpec {
            directory: folder.path().to_str().unwrap().to_owned(),
            identity_file: "identity.txt".to_owned(),
        };
        SealedBackend::new(&spec, BackendName::parse(name).unwrap(), Arc::new(IdentityFile(identity)))
    }

    #[async_trait]
    impl Fixture for Folder {
        fn backend(&self) -> &dyn Backend {
            &self.backend
        }

        fn variations(&self) -> Vec<Box<dyn Backend>> {
            vec![Box::new(backend("other", &self.folder, sealed::new_identity().0))]
        }

        async fn token(&self, _workload: &Workload) -> Option<String> {
            None
        }

        async fn write(&self, name: &str, values: &[(&str, &str)]) -> String {
            // JSON is YAML.
            let values: BTreeMap<_, _> = values.iter().copied().collect();
            let text = SecretBytes::new(serde_json::to_vec(&values).unwrap());
            let folder = self.folder.path().join("payments");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(format!("{name}.yaml.age")), sealed::seal(&text, &self.recipients).unwrap()).unwrap();
            format!("payments/{name}")
        }

        async fn delete(&self, name: &str) {
            fs::remove_file(self.folder.path().join(format!("payments/{name}.yaml.age"))).unwrap();
        }

        async fn denied(&self) -> Option<String> {
            None
        }

        async fn leased(&self) -> Option<(String, BTreeMap<String, String>)> {
            None
        }

        async fn expiring(&self) -> Option<(String, BTreeMap<String, String>)> {
            None
        }

        fn numbered(&self) -> bool {
            false
        }

        async fn throttle(&self) -> Option<Duration> {
            None
        }
    }

    async fn fixture() -> Folder {
        let folder = TempDir::new().unwrap();
        let (identity, recipient) = sealed::new_identity();
        let recipients = Recipients::parse([recipient.as_str()], []).unwrap();
        Folder { backend: backend("sealed", &folder, identity), folder, recipients }
    }

    evanesce_engine::backend_contract!(fixture());
}
