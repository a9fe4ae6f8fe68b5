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
use crate::spec::section::{Field, Section};
use crate::spec::values;
use crate::spec::volume::{FileSpec, Refresh, Select, VolumeSpec};

/// The shortest `refresh.every`: below it a volume would be due again before a delivery over a network has ended. It is
/// a floor against slips (`5ms`), not a budget; what a backend can take is for its `limits`.
const SHORTEST_REFRESH: Duration = Duration::from_secs(1);
/// The longest, so that deadlines stay within what every clock can count.
const LONGEST_REFRESH: Duration = Duration::from_secs(366 * 24 * 3600);
/// The longest `keepPrevious`: a reader that takes longer has other troubles, and the room is the volume's own.
const LONGEST_KEEP: Duration = Duration::from_secs(600);
/// Sizes of a tmpfs: from two sets of one file with their folders to what is no longer a volume of secrets.
const SIZES: (u64, u64) = (16 << 10, 1 << 30);
/// How many entries a volume may have.
const MOST_FILES: usize = 512;

/// Reads `spec`.
pub(super) fn read(field: &Field<'_>) -> Result<VolumeSpec, Error> {
    field.map(&keys::VOLUME, |spec| {
        let entries = spec.require("files")?.some_items("a volume has at least one file")?;
        if entries.len() > MOST_FILES {
            return Err(spec.wrong(&format!("more than {MOST_FILES} files: use allKeys, or several volumes")));
        }
        let mut files: Vec<FileSpec> = Vec::with_capacity(entries.len());
        for entry in &entries {
            let file = entry.map(&keys::FILE, file)?;
            if let Some(index) = files.iter().position(|other| collide(&file, other)) {
                return Err(entry.wrong(&format!("its path and that of spec.files[{index}] exclude each other")));
            }
            files.push(file);
        }
        let keep = |field: &Field<'_>| values::duration(field, Duration::ZERO, LONGEST_KEEP);
        Ok(VolumeSpec {
            refresh: spec
                .get("refresh")
                .map_or_else(|| Ok(Refresh::default()), |it| it.map(&keys::REFRESH, refresh))?,
            keep_previous: spec.get("keepPrevious").map_or(Ok(VolumeSpec::DEFAULT_KEEP_PREVIOUS), keep)?,
            size: spec.get("size").map(|size| values::size(size, SIZES.0, SIZES.1)).transpose()?,
            files,
        })
    })
}

fn refresh(refresh: &Section<'_>) -> Result<Refresh, Error> {
    let defaults = Refresh::default();
    let every = |field: &Field<'_>| values::duration(field, SHORTEST_REFRESH, LONGEST_REFRESH);
    Ok(Refresh {
        every: refresh.get("every").map_or(Ok(defaults.every), every)?,
        jitter_percent: refresh.get("jitter").map_or(Ok(defaults.jitter_percent), |it| values::percent(it, 50))?,
    })
}

fn file(file: &Section<'_>) -> Result<FileSpec, Error> {
    let all_keys = file.get("allKeys").map_or(Ok(false), Field::boolean)?;
    let (from, key) = file.require("from")?.map(&keys::FROM, |from| {
        let key = from.get("key").map(|key| key.text().map(str::to_owned)).transpose()?;
        Ok((reference(from)?, key))
    })?;
    let select = match (all_keys, key) {
        (true, Some(_)) => return Err(file.wrong("`allKeys` and `from.key` exclude each other")),
        (true, None) => Select::EachKey,
        (false, Some(key)) => Select::Key(key),
        (false, None) => Select::Whole,
    };
    // The last id of all means "leave as it is" to chown(2).
    let id = |field: &Field<'_>| field.number::<u32>(0, u64::from(u32::MAX) - 1);
    Ok(FileSpec {
        path: file.require("path")?.parse(FilePath::parse)?,
        from,
        select,
        mode: file.get("mode").map(values::mode).transpose()?,
        uid: file.get("uid").map(id).transpose()?,
        gid: file.get("gid").map(id).transpose()?,
    })
}

fn reference(from: &Section<'_>) -> Result<SecretRef, Error> {
    let mut args = BTreeMap::new();
    for arg in from.get("args").map_or_else(|| Ok(Vec::new()), Field::entries)? {
        args.insert(arg.name().to_owned(), arg.letters()?.to_owned());
    }
    Ok(SecretRef {
        backend: from.require("backend")?.parse(BackendName::parse)?,
        path: from.require("secret")?.parse(SecretPath::parse)?,
        version: from.get("version").map(|it| it.number(1, u64::MAX)).transpose()?,
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
