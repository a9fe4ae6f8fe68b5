// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce plan`: when a class's secrets are asked for, by the node plugin's own schedule.

mod course;
mod draw;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use evanesce_engine::names::BackendName;
use evanesce_engine::secret_ref::SecretRef;
use evanesce_engine::spec::backend::{BackendSpec, Provider, VaultAuth, VaultSpec};
use evanesce_engine::spec::{Document, Documents, VolumeSpec};

use crate::args::{Output, Plan};
use crate::check;
use crate::input;
use crate::output::{NOTE, remark};
use course::{Course, Kind};

/// One class with what it will ask.
struct Planned {
    /// `NAMESPACE/NAME`.
    name: String,
    spec: VolumeSpec,
    /// Each secret once, in the order of the files.
    secrets: Vec<(SecretRef, Kind)>,
    /// How many backends log a pod in for it.
    logins: u32,
    course: Course,
}

/// Runs the command.
pub(crate) fn run(args: &Plan, output: Output) -> anyhow::Result<ExitCode> {
    let (mut backends, mut volumes) = (BTreeMap::new(), Vec::new());
    for path in check::files(&args.files)? {
        let text = input::read(&path)?;
        let text = std::str::from_utf8(text.expose()).with_context(|| format!("{}: is not UTF-8", path.display()))?;
        let wrong = |error: evanesce_engine::error::Error| anyhow::anyhow!("{}: {}", path.display(), error.message());
        for reading in Documents::read(text).map_err(wrong)? {
            match reading.document.map_err(wrong)? {
                Document::Backend(spec) => drop(backends.insert(spec.name.clone(), spec)),
                Document::Volume { namespace, name, spec } => volumes.push((format!("{namespace}/{name}"), spec)),
            }
        }
    }
    let planned: Vec<_> = volumes.into_iter().map(|(name, spec)| plan(name, spec, &backends, args)).collect();
    if planned.is_empty() {
        remark(NOTE, "note", "no SecretVolume in these files: only such a class asks for anything");
    }
    match output {
        Output::Text => draw::text(&planned, args)?,
        Output::Json => draw::json(&planned, args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn plan(name: String, spec: VolumeSpec, backends: &BTreeMap<BackendName, BackendSpec>, args: &Plan) -> Planned {
    let mut secrets = Vec::<(SecretRef, Kind)>::new();
    for reference in spec.references() {
        if !secrets.iter().any(|(other, _)| other == reference) {
            secrets.push((reference.clone(), kind(reference, backends.get(&reference.backend))));
        }
    }
    let mut asked: Vec<_> = secrets.iter().map(|(secret, _)| &secret.backend).collect();
    asked.sort();
    asked.dedup();
    let logs_in = |name: &&&BackendName| backends.get(**name).is_none_or(logs_in);
    let logins = u32::try_from(asked.iter().filter(logs_in).count()).unwrap_or(u32::MAX);
    let kinds: Vec<_> = secrets.iter().map(|(_, kind)| *kind).collect();
    let ttl = Duration::from_secs(args.ttl.into());
    let course = Course::of(&kinds, spec.refresh, ttl, Duration::from_secs(3600) * args.hours);
    Planned { name, spec, secrets, logins, course }
}

/// What is known of a secret by its path alone.
fn kind(secret: &SecretRef, backend: Option<&BackendSpec>) -> Kind {
    let path = secret.path.as_str();
    let below = |mount: &str| path.strip_prefix(mount).is_some_and(|rest| rest.starts_with('/'));
    let (versioned, unversioned) = match backend.map(|backend| &backend.provider) {
        Some(Provider::Vault(vault)) => {
            let any = |mounts: &[String]| mounts.iter().any(|mount| below(mount));
            (any(&vault.kv_mounts), any(&vault.kv1_mounts))
        }
        Some(_) => (true, false),
        None => (VaultSpec::DEFAULT_KV_MOUNTS.into_iter().any(below), false),
    };
    if unversioned {
        Kind::Unversioned
    } else if versioned {
        Kind::Version
    } else if path.contains("/static-creds/") || path.contains("/static-cred/") {
        Kind::Rotated
    } else {
        Kind::Leased
    }
}

/// Whether its pods log in, as far as is known.
fn logs_in(backend: &BackendSpec) -> bool {
    match &backend.provider {
        Provider::Vault(vault) if matches!(vault.auth, VaultAuth::TokenFile { .. }) => false,
        Provider::Sealed(_) => false,
        _ => true,
    }
}
