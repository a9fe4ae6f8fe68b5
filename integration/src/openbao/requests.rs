// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The server's own account of what it was asked.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

/// A request as OpenBao's audit log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// `read`, `update`, …
    pub operation: String,
    /// The path without `/v1/`.
    pub path: String,
    /// The policies of the token that asked; empty for a login.
    pub policies: Vec<String>,
}

#[derive(Deserialize)]
struct Line {
    r#type: String,
    #[serde(default)]
    auth: Auth,
    request: Request,
}

#[derive(Default, Deserialize)]
struct Auth {
    #[serde(default)]
    policies: Vec<String>,
}

#[derive(Deserialize)]
struct Request {
    operation: String,
    path: String,
}

pub(super) fn read(log: &Path) -> Result<Vec<Recorded>> {
    let text = fs::read_to_string(log).context("OpenBao has no audit log")?;
    Ok(text
        .lines()
        // The last line may be half-written: nobody has its answer yet.
        .filter_map(|line| serde_json::from_str::<Line>(line).ok())
        .filter(|line| line.r#type == "request")
        .filter(|line| line.auth.policies != ["root"])
        .map(|line| Recorded {
            operation: line.request.operation,
            path: line.request.path,
            policies: line.auth.policies,
        })
        .filter(|request| !request.path.starts_with("sys/"))
        .collect())
}

/// Whether it holds `text`, which has to be of a form that JSON writes as it is.
pub(super) fn mentions(log: &Path, text: &str) -> Result<bool> {
    Ok(fs::read_to_string(log).context("OpenBao has no audit log")?.contains(text))
}

/// The tokens in it, each once.
pub(super) fn tokens(log: &Path, administrators: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(log).context("OpenBao has no audit log")?;
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let tokens = lines.filter_map(|line| Some(line["auth"]["client_token"].as_str()?.to_owned()));
    let tokens: BTreeSet<_> = tokens.filter(|token| !token.is_empty() && token != administrators).collect();
    Ok(tokens.into_iter().collect())
}
