// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Secrets and a spec become files to be. Pure: no clock, no disk, no network, no chance. The same secrets are the same
//! bytes, or a refresh that brought nothing new would be a new generation.

mod certificate;
mod der;
mod dotenv;
mod json;
mod key_pair;
mod pem;
mod pkcs12;
mod private_key;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Error;
use crate::projection::{File, Mode, Projection};
use crate::render::key_pair::KeyPair;
use crate::secret::{Secret, SecretBytes};
use crate::secret_ref::SecretRef;
use crate::spec::volume::{FileSpec, Format, Password, Select, VolumeSpec};
use crate::yaml::shown;

/// What was read, by what was asked.
type Secrets = BTreeMap<SecretRef, Arc<Secret>>;

/// Renders every file of `spec`. `group` is the pod's fsGroup.
///
/// A file belongs to root and the pod's group and is read by both (0440); without an fsGroup only by its owner (0400).
///
/// # Errors
/// [`Kind::Missing`](crate::error::Kind::Missing) where a secret lacks the key a file asks for,
/// [`Kind::Invalid`](crate::error::Kind::Invalid) where a key cannot be a file name, two files share a path, or a secret
/// does not fit the file's format.
pub fn render(spec: &VolumeSpec, group: Option<u32>, secrets: &Secrets) -> Result<Projection, Error> {
    let mut projection = Projection::default();
    for entry in &spec.files {
        let secret = fetched(secrets, &entry.from)?;
        match &entry.select {
            Select::Whole(format) => {
                let bytes = whole(format, secret, secrets).map_err(|error| {
                    let (from, path) = (&entry.from, &entry.path);
                    error.context(format_args!("file {path}, `format: {}` of {from}", format.as_str()))
                })?;
                projection.add(entry.path.clone(), file(entry, group, bytes))?;
            }
            Select::Key(key) => {
                let value = secret.values.get(key).ok_or_else(|| missing_key(entry, key))?;
                projection.add(entry.path.clone(), file(entry, group, SecretBytes::from(value.bytes.expose())))?;
            }
            Select::EachKey => {
                for (key, value) in &secret.values {
                    let path = entry.path.join(key).map_err(|error| error.context(&entry.from))?;
                    projection.add(path, file(entry, group, SecretBytes::from(value.bytes.expose())))?;
                }
            }
        }
    }
    Ok(projection)
}

fn fetched<'a>(secrets: &'a Secrets, from: &SecretRef) -> Result<&'a Secret, Error> {
    let secret = secrets.get(from).ok_or_else(|| Error::internal(format!("{from} was not fetched")))?;
    Ok(secret)
}

fn whole(format: &Format, secret: &Secret, secrets: &Secrets) -> Result<SecretBytes, Error> {
    match format {
        Format::Dotenv => dotenv::write(secret),
        Format::Json => Ok(json::write(secret)),
        Format::PemBundle => KeyPair::of(secret).map(|pair| pair.pem_bundle()),
        Format::Pkcs12 { password } => {
            let pair = KeyPair::of(secret)?;
            let password = password.as_ref().map_or(Ok(pkcs12::DEFAULT_PASSWORD), |it| find_password(it, secrets))?;
            Ok(pkcs12::write(&pair, password))
        }
    }
}

fn find_password<'a>(password: &Password, secrets: &'a Secrets) -> Result<&'a [u8], Error> {
    let Password { from, key } = password;
    let named = |error: Error| error.context(format_args!("`passwordFrom`, key \"{}\" of {from}", shown(key)));
    let value = fetched(secrets, from)?.values.get(key);
    let value = value.ok_or_else(|| named(Error::missing("is not there: check the spelling in the SecretVolume")))?;
    let password = value.bytes.expose();
    pkcs12::check_password(password).map_err(named)?;
    Ok(password)
}

fn file(entry: &FileSpec, group: Option<u32>, bytes: SecretBytes) -> File {
    let default = if group.is_some() { Mode::GROUP_READS } else { Mode::OWNER_READS };
    File {
        bytes,
        mode: entry.mode.unwrap_or(default),
        uid: entry.uid.unwrap_or(0),
        gid: entry.gid.or(group).unwrap_or(0),
    }
}

fn missing_key(entry: &FileSpec, key: &str) -> Error {
    Error::missing(format!(
        "{} has no key \"{}\", which file {} asks for: check the spelling in the SecretVolume",
        entry.from,
        shown(key),
        entry.path
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::names::BackendName;
    use crate::projection::FilePath;
    use crate::secret::{Value, ValueKind};
    use crate::secret_ref::SecretPath;
    use crate::spec::volume::Refresh;
    use std::time::Duration;

    fn reference() -> SecretRef {
        SecretRef {
            backend: BackendName::parse("vault").unwrap(),
            path: SecretPath::parse("kv/db").unwrap(),
            version: None,
            args: BTreeMap::new(),
        }
    }

    fn entry(path: &str, select: Select) -> FileSpec {
        FileSpec { path: FilePath::parse(path).unwrap(), from: reference(), select, mode: None, uid: None, gid: None }
    }

    fn spec(files: Vec<FileSpec>) -> VolumeSpec {
        let refresh = Refresh { every: Duration::from_secs(300), jitter_percent: 10 };
        VolumeSpec {
            refresh,
            keep_previous: Duration::from_secs(10),
            overlap: Duration::ZERO,
            lease_scope: Default::default(),
            max_stale: None,
            size: None,
            files,
        }
    }

    fn secrets(values: &[(&str, &[u8], ValueKind)]) -> BTreeMap<SecretRef, Arc<Secret>> {
        let values = values
            .iter()
            .map(|&(key, bytes, kind)| (key.to_owned(), Value { bytes: SecretBytes::from(bytes), kind }))
            .collect();
        BTreeMap::from([(
            reference(),
            Arc::new(Secret {
                values,
                version: None,
                lease: None,
                expires_at: None,
                rotates_in: None,
                request_id: None,
            }),
        )])
    }

    fn contents(projection: &Projection) -> Vec<(String, Vec<u8>, u16, u32, u32)> {
        let row = |(path, file): (&FilePath, &File)| {
            (path.to_string(), file.bytes.expose().to_vec(), file.mode.bits(), file.uid, file.gid)
        };
        projection.files().map(row).collect()
    }

    #[test]
    fn a_key_becomes_a_file_that_root_and_the_pods_group_read() {
        let secrets = secrets(&[("password", b"s3cret", ValueKind::Text)]);
        let spec = spec(vec![entry("db/password", Select::Key("password".into()))]);
        let with = contents(&render(&spec, Some(2000), &secrets).unwrap());
        assert_eq!(with, [("db/password".into(), b"s3cret".to_vec(), 0o440, 0, 2000)]);
        let without = contents(&render(&spec, None, &secrets).unwrap());
        assert_eq!(without, [("db/password".into(), b"s3cret".to_vec(), 0o400, 0, 0)]);
    }

    #[test]
    fn owner_and_mode_of_a_file_win_over_the_pods() {
        let file = FileSpec {
            mode: Some(Mode::new(0o444).unwrap()),
            uid: Some(70),
            gid: Some(71),
            ..entry("a", Select::Key("k".into()))
        };
        let rendered = render(&spec(vec![file]), Some(2000), &secrets(&[("k", b"v", ValueKind::Text)])).unwrap();
        assert_eq!(contents(&rendered), [("a".into(), b"v".to_vec(), 0o444, 70, 71)]);
    }

    #[test]
    fn each_key_becomes_a_file_below_the_path() {
        let values: &[(&str, &[u8], ValueKind)] = &[("a", b"1", ValueKind::Json), ("b", b"2", ValueKind::Text)];
        let rendered = render(&spec(vec![entry("all", Select::EachKey)]), None, &secrets(values)).unwrap();
        let paths: Vec<_> = rendered.files().map(|(path, _)| path.to_string()).collect();
        assert_eq!(paths, ["all/a", "all/b"]);
    }

    #[test]
    fn a_key_that_cannot_be_a_file_name_is_refused() {
        for key in ["../x", "a/b", "..", ".", "", "a\0b", &"a".repeat(256)] {
            let values: &[(&str, &[u8], ValueKind)] = &[(key, b"1", ValueKind::Text)];
            let error = render(&spec(vec![entry("all", Select::EachKey)]), None, &secrets(values)).err().unwrap();
            assert_eq!(error.kind(), Kind::Invalid, "{key:?}");
        }
    }

    #[test]
    fn a_missing_key_is_named_with_its_file() {
        let spec = spec(vec![entry("a", Select::Key("pasword".into()))]);
        let error = render(&spec, None, &secrets(&[("password", b"CANARY", ValueKind::Text)])).err().unwrap();
        assert_eq!(error.kind(), Kind::Missing);
        assert!(error.message().contains("pasword") && !error.message().contains("CANARY"));
    }

    #[test]
    fn two_files_at_one_path_are_refused() {
        for (a, b) in [("x", "x"), ("x", "x/y"), ("x/y", "x")] {
            let files = vec![entry(a, Select::Whole(Format::Json)), entry(b, Select::Whole(Format::Json))];
            assert!(render(&spec(files), None, &secrets(&[])).is_err(), "{a} and {b}");
        }
        let files = vec![entry("x", Select::Whole(Format::Json)), entry("xy", Select::Whole(Format::Json))];
        assert!(render(&spec(files), None, &secrets(&[])).is_ok());
    }
}
