// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `spec` of a `SecretVolume`, from the tree to its type.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::Error;
use crate::names::BackendName;
use crate::projection::FilePath;
use crate::secret_ref::{SecretPath, SecretRef};
use crate::spec::keys;
use crate::spec::rules;
use crate::spec::section::{Field, Section};
use crate::spec::values;
use crate::spec::volume::{FileSpec, Format, LeaseScope, MaxStale, OnStale, Password, Refresh, Select, VolumeSpec};

/// Reads `spec`.
pub(super) fn read(field: &Field<'_>) -> Result<VolumeSpec, Error> {
    field.map_of(&keys::VOLUME, |spec| {
        let entries = spec.require("files")?.items()?;
        let mut files: Vec<FileSpec> = Vec::with_capacity(entries.len());
        for entry in &entries {
            let file = entry.map(file)?;
            if let Some(index) = files.iter().position(|other| collide(&file, other)) {
                let words = rules::ONE_PLACE.words;
                return Err(
                    entry.wrong(&format!("{words}: its path and that of spec.files[{index}] exclude each other"))
                );
            }
            files.push(file);
        }
        let keep_previous = spec.get("keepPrevious").map_or(Ok(VolumeSpec::DEFAULT_KEEP_PREVIOUS), values::duration)?;
        let (overlap, lease_scope) = spec
            .get("leases")
            .map_or_else(|| Ok((VolumeSpec::DEFAULT_OVERLAP, LeaseScope::default())), |it| it.map(leases))?;
        let refresh = spec.get("refresh").map_or_else(|| Ok(Refresh::default()), |it| it.map(refresh))?;
        Ok(VolumeSpec {
            refresh,
            keep_previous,
            overlap: overlap.max(keep_previous),
            lease_scope,
            max_stale: max_stale(spec, refresh.every)?,
            size: spec.get("size").map(values::size).transpose()?,
            files,
        })
    })
}

fn refresh(refresh: &Section<'_>) -> Result<Refresh, Error> {
    let defaults = Refresh::default();
    Ok(Refresh {
        every: refresh.get("every").map_or(Ok(defaults.every), values::duration)?,
        jitter_percent: refresh.get("jitter").map_or(Ok(defaults.jitter_percent), values::percent)?,
    })
}

fn max_stale(spec: &Section<'_>, every: Duration) -> Result<Option<MaxStale>, Error> {
    let then = spec.get("onStale").map(values::one_of).transpose()?;
    let Some(after) = spec.get("maxStale").map(values::duration).transpose()? else {
        return if then.is_some() { Err(spec.breaks(&rules::STALE_WITHOUT_END)) } else { Ok(None) };
    };
    if after <= every {
        return Err(spec.breaks(&rules::STALE_TOO_SOON));
    }
    let then = if then == Some(OnStale::Remove.as_str()) { OnStale::Remove } else { OnStale::Mark };
    Ok(Some(MaxStale { after, then }))
}

fn leases(leases: &Section<'_>) -> Result<(Duration, LeaseScope), Error> {
    let overlap = leases.get("overlap").map_or(Ok(VolumeSpec::DEFAULT_OVERLAP), values::duration)?;
    let shared = leases.get("scope").map(values::one_of).transpose()? == Some(LeaseScope::ServiceAccount.as_str());
    Ok((overlap, if shared { LeaseScope::ServiceAccount } else { LeaseScope::Volume }))
}

fn file(file: &Section<'_>) -> Result<FileSpec, Error> {
    let all_keys = file.get("allKeys").map_or(Ok(false), Field::boolean)?;
    let (from, key) = file.require("from")?.map(|from| {
        let key = from.get("key").map(|key| key.text().map(str::to_owned)).transpose()?;
        Ok((reference(from)?, key))
    })?;
    let format = format(file)?;
    let select = match (all_keys, key) {
        (true, Some(_)) => return Err(file.breaks(&rules::KEY_OR_KEYS)),
        (true, None) | (false, Some(_)) if format.is_some() => return Err(file.breaks(&rules::FORMAT_OF_A_WHOLE)),
        (true, None) => Select::EachKey,
        (false, Some(key)) => Select::Key(key),
        (false, None) => Select::Whole(format.unwrap_or(Format::Json)),
    };
    Ok(FileSpec {
        path: file.require("path")?.parse(FilePath::parse)?,
        from,
        select,
        mode: file.get("mode").map(values::mode).transpose()?,
        uid: file.get("uid").map(Field::number).transpose()?,
        gid: file.get("gid").map(Field::number).transpose()?,
    })
}

fn format(file: &Section<'_>) -> Result<Option<Format>, Error> {
    let word = file.get("format").map(values::one_of).transpose()?;
    let password = file.get("passwordFrom").map(|from| {
        from.map(|from| Ok(Password { from: reference(from)?, key: from.require("key")?.text()?.to_owned() }))
    });
    let password = password.transpose()?;
    if password.is_some() && word != Some("pkcs12") {
        return Err(file.breaks(&rules::PASSWORD_OF_WHAT));
    }
    Ok(word.map(|word| match word {
        "dotenv" => Format::Dotenv,
        "pem-bundle" => Format::PemBundle,
        "pkcs12" => Format::Pkcs12 { password },
        _ => Format::Json,
    }))
}

fn reference(from: &Section<'_>) -> Result<SecretRef, Error> {
    let mut args = BTreeMap::new();
    for arg in from.get("args").map_or_else(|| Ok(Vec::new()), Field::entries)? {
        args.insert(arg.name().to_owned(), arg.argument()?.to_owned());
    }
    Ok(SecretRef {
        backend: from.require("backend")?.parse(BackendName::parse)?,
        path: from.require("secret")?.parse(SecretPath::parse)?,
        version: from.get("version").map(Field::number).transpose()?,
        args,
    })
}

/// Whether both cannot be in one volume. Folders of files may be shared: which names they hold is known later, and the
/// rendering refuses two of one name.
fn collide(one: &FileSpec, other: &FileSpec) -> bool {
    let holds = |outer: &FileSpec, inner: &FileSpec| {
        outer.select != Select::EachKey
            && inner
                .path
                .as_str()
                .strip_prefix(outer.path.as_str())
                .is_some_and(|it| it.is_empty() || it.starts_with('/'))
    };
    holds(one, other) || holds(other, one)
}
