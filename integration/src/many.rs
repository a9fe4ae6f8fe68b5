// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Volumes of many files, each from a secret of its own: what loads a node.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::json;

use crate::openbao::OpenBao;

/// The key of each secret's value.
pub const KEY: &str = "a";

/// The path of a secret, below the mount `kv`.
#[must_use]
pub fn path(number: usize) -> String {
    format!("payments/{number}")
}

/// The file of a secret.
#[must_use]
pub fn file(number: usize) -> String {
    format!("f{number}")
}

/// A `SecretVolume` named `payments/NAME` that shows so many secrets of a backend.
#[must_use]
pub fn class(name: &str, backend: &str, secrets: usize) -> String {
    let mut class = format!(
        "apiVersion: evanesce.dev/v1alpha1
kind: SecretVolume
metadata: {{name: {name}, namespace: payments}}
spec:
  refresh: {{every: 1h}}
  files:
"
    );
    for number in 0..secrets {
        let (file, path) = (file(number), path(number));
        writeln!(class, "    - {{path: {file}, from: {{backend: {backend}, secret: kv/{path}, key: {KEY}}}}}")
            .expect("invariant: a string takes what is written");
    }
    class
}

/// Puts so many secrets there.
///
/// # Errors
/// When the server refuses.
pub async fn fill(openbao: &OpenBao, secrets: usize, value: impl Fn(usize) -> String) -> Result<()> {
    for number in 0..secrets {
        openbao.admin().put("kv", &path(number), json!({KEY: value(number)})).await?;
    }
    Ok(())
}
