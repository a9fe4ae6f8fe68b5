// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Sealed files under running pods: a changed one reaches them by itself, a broken one changes nothing and is said.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;

use evanesce_engine::backend::sealed::{self, Recipients};
use evanesce_engine::secret::SecretBytes;
use evanesce_integration::world::Setup;
use evanesce_integration::{sight, wait};
use tempfile::TempDir;

/// Due in an hour, but for the change. Who comes new is not served what was read for others a moment ago.
const CLASSES: &str = "apiVersion: evanesce.dev/v1alpha1
kind: SecretBackend
metadata: {name: sealed}
spec:
  sealed: {directory: FOLDER, identityFile: identity.txt}
  allow: [{namespaces: [payments], serviceAccounts: [app], secrets: [\"payments/*\"]}]
  limits: {reuse: 0s}
---
apiVersion: evanesce.dev/v1alpha1
kind: SecretVolume
metadata: {name: sealed, namespace: payments}
spec:
  refresh: {every: 1h}
  files: [{path: password, from: {backend: sealed, secret: payments/db, key: password}}]
";

struct Folder {
    _all: TempDir,
    path: PathBuf,
    identity: SecretBytes,
    recipients: Recipients,
}

impl Folder {
    fn new() -> Self {
        let all = TempDir::new().unwrap();
        let path = all.path().canonicalize().unwrap().join("sealed");
        fs::create_dir(&path).unwrap();
        let (identity, recipient) = sealed::new_identity();
        let recipients = Recipients::parse([recipient.as_str()], []).unwrap();
        let folder = Self { _all: all, path, identity, recipients };
        folder.seal("one");
        folder
    }

    fn seal(&self, password: &str) {
        let text = SecretBytes::new(format!("password: {password}\n").into_bytes());
        self.put(&sealed::seal(&text, &self.recipients).unwrap());
    }

    /// As careful tools do: whoever reads sees the old file or the new one.
    fn put(&self, contents: &[u8]) {
        let folder = self.path.join("payments");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(".new"), contents).unwrap();
        fs::rename(folder.join(".new"), folder.join("db.yaml.age")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_sealed_file_reaches_the_pod_by_itself_and_a_broken_one_changes_nothing() {
    let folder = Folder::new();
    let world = Setup::default()
        .class(&CLASSES.replace("FOLDER", folder.path.to_str().unwrap()))
        .argument(&format!("--sealed-dir={}", folder.path.display()))
        .recorder()
        .await
        .unwrap();
    fs::write(world.plugin.credentials().join("identity.txt"), folder.identity.expose()).unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "sealed");
    world.kubelet.publish(&volume).await.unwrap();
    let shows = |password: &str| sight::text(volume.target_path(), "password") == password;
    assert!(shows("one"));

    folder.seal("two");
    wait::until("the new password is there", || shows("two")).await;

    folder.put(b"not sealed at all");
    wait::until("it is said", || world.plugin.log().contains("volume is stale: its pod keeps the last good files"))
        .await;
    assert!(world.plugin.log().contains("payments/db.yaml.age: is not a sealed file"), "with the file and why");
    assert!(shows("two"));
    world.kubelet.publish(&volume).await.unwrap();
    // Who comes new hears it, and is not shown what nobody sees any more.
    let late = world.volume(&world.pod("payments", "app"), "sealed");
    world.kubelet.publish(&late).await.unwrap_err();

    folder.seal("three");
    wait::until("the mended file is there", || shows("three")).await;
    fs::remove_dir_all(folder.path.join("payments")).unwrap();
    folder.seal("four");
    wait::until("a file in a new folder is there", || shows("four")).await;
    assert!(!late.target_path().join("password").exists(), "nothing was mounted for who came late");
}
