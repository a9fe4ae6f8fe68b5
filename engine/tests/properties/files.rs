// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Files: where they may lie, what they hold, what they take. Each set is written and shown on a tmpfs as it is.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evanesce_engine::generation::Generations;
use evanesce_engine::names::BackendName;
use evanesce_engine::projection::{DigestKey, File, FilePath, Mode, Projection};
use evanesce_engine::render::render;
use evanesce_engine::secret::{Secret, SecretBytes, Value, ValueKind};
use evanesce_engine::secret_ref::{SecretPath, SecretRef};
use evanesce_engine::spec::VolumeSpec;
use evanesce_engine::spec::volume::{FileSpec, Refresh, Select};
use proptest::prelude::*;
use tempfile::TempDir;

/// A file to be: where, what, and whose.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    path: String,
    bytes: Vec<u8>,
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Wanted {
    fn file(&self) -> File {
        let bytes = SecretBytes::from(self.bytes.as_slice());
        File { bytes, mode: Mode::new(self.mode).unwrap(), uid: self.uid, gid: self.gid }
    }
}

/// Text that is a path, or nearly.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[abAB]",
        1 => Just("..".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just(String::new()),
        1 => Just("..data".to_owned()),
        1 => Just("..g1".to_owned()),
        1 => Just("...".to_owned()),
        1 => "[^/]{0,3}",
        1 => "[a-z]{254,256}",
    ];
    proptest::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"))
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let bytes = prop_oneof![3 => 0..10usize, 1 => 4095..4098usize, 1 => 0..20_000usize]
        .prop_flat_map(|length| proptest::collection::vec(any::<u8>(), length));
    (text(), bytes, 0..=0o777u32, 0..3u32, 0..3u32).prop_map(|(path, bytes, mode, uid, gid)| Wanted {
        path,
        bytes,
        mode,
        uid,
        gid,
    })
}

/// The files that can be made, in the order given, and those of them that were.
fn project(wanted: &[Wanted]) -> (Projection, Vec<Wanted>) {
    let (mut projection, mut made) = (Projection::default(), Vec::new());
    for file in wanted {
        let Ok(path) = FilePath::parse(&file.path) else { continue };
        if projection.add(path, file.file()).is_ok() {
            made.push(file.clone());
        }
    }
    (projection, made)
}

/// A tmpfs folder in which the files are shown.
fn shown(projection: &Projection) -> TempDir {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let generations = Generations::new(fs::File::open(folder.path()).unwrap().into());
    generations.write(1, projection).unwrap();
    generations.show(1).unwrap();
    folder
}

/// Everything in a folder; links are not followed.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            found.extend(walk(&path));
        }
        found.push(path);
    }
    found
}

/// Whether one path is the other, or a folder on its way.
fn in_the_way(one: &str, other: &str) -> bool {
    one.split('/').zip(other.split('/')).all(|(one, other)| one == other)
}

proptest! {
    #[test]
    fn every_file_that_is_accepted_lies_beneath_and_holds_what_was_given(
        wanted in proptest::collection::vec(wanted(), 1..8),
    ) {
        let (projection, made) = project(&wanted);
        let folder = shown(&projection);
        let generation = folder.path().join("..g1");
        let files = walk(&generation).into_iter().filter(|path| path.is_file()).count();
        prop_assert_eq!((files, projection.len()), (made.len(), made.len()), "two files share a place");
        for file in &made {
            // As an application opens it, by way of the links.
            let path = folder.path().join(&file.path);
            prop_assert!(fs::read(&path).unwrap() == file.bytes, "{:?} holds something else", file.path);
            prop_assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, file.mode);
            prop_assert_eq!(fs::canonicalize(&path).unwrap(), generation.join(&file.path));
        }
        // Beside the generation and its link there is one link for each first name, and nothing above.
        let roots: std::collections::BTreeSet<_> = made.iter().map(|file| file.path.split('/').next()).collect();
        prop_assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2 + roots.len());
    }

    #[test]
    fn two_files_are_refused_if_and_only_if_one_is_in_the_others_way(
        wanted in proptest::collection::vec(wanted(), 2..8),
    ) {
        let mut projection = Projection::default();
        let mut there = Vec::<String>::new();
        for file in wanted {
            let Ok(path) = FilePath::parse(&file.path) else { continue };
            let free = !there.iter().any(|other| in_the_way(other, &file.path));
            prop_assert_eq!(projection.add(path, file.file()).is_ok(), free, "{:?} beside {:?}", file.path, there);
            if free {
                there.push(file.path);
            }
        }
    }

    #[test]
    fn what_files_are_said_to_take_is_no_less_than_they_take(wanted in proptest::collection::vec(wanted(), 1..12)) {
        let (projection, _) = project(&wanted);
        let folder = shown(&projection);
        let all = walk(folder.path());
        let taken: u64 = all.iter().map(|path| fs::symlink_metadata(path).unwrap().blocks() * 512).sum();
        prop_assert!(taken <= projection.size_on_tmpfs(), "{taken} bytes are taken, {} said", projection.size_on_tmpfs());
        // The volume gets an inode for each kibibyte of its size.
        prop_assert!(all.len() as u64 <= projection.size_on_tmpfs() / 1024, "{} inodes", all.len());
    }

    #[test]
    fn digests_are_equal_if_and_only_if_the_files_are(
        wanted in proptest::collection::vec(wanted(), 1..5),
        change in (any::<prop::sample::Index>(), 0..5u32),
    ) {
        let key = DigestKey::new(&[7; 32]);
        let (projection, made) = project(&wanted);
        let (backwards, _) = project(&made.iter().rev().cloned().collect::<Vec<_>>());
        prop_assert_eq!(backwards.digest(&key), projection.digest(&key), "the order of files is no difference");
        prop_assert_ne!(projection.digest(&DigestKey::new(&[8; 32])), projection.digest(&key), "the key is");
        if made.is_empty() {
            return Ok(());
        }
        let mut other = made.clone();
        let at = change.0.index(other.len());
        let file = &mut other[at];
        match change.1 {
            0 => file.bytes.push(0),
            1 => file.mode ^= 0o100,
            2 => file.uid += 1,
            3 => file.gid += 1,
            _ => file.path += "x",
        }
        let (changed, other) = project(&other);
        prop_assert_eq!(changed.digest(&key) == projection.digest(&key), other == made);
        // What moves from the end of one file to the beginning of the next is a difference too.
        if let [first, second, ..] = made.as_slice() && !first.bytes.is_empty() {
            let mut moved = made.clone();
            let byte = moved[0].bytes.pop().unwrap();
            moved[1].bytes.insert(0, byte);
            prop_assert_ne!(project(&moved).0.digest(&key), projection.digest(&key), "{:?} {:?}", first, second);
        }
    }

    #[test]
    fn what_is_rendered_is_what_was_given(
        values in proptest::collection::btree_map("[a-c./]{0,3}", proptest::collection::vec(any::<u8>(), 0..9), 0..5),
        keys in proptest::collection::vec("[a-c./]{0,3}", 0..4),
        each in any::<bool>(),
        group in proptest::option::of(1..9u32),
    ) {
        let reference = SecretRef {
            backend: BackendName::parse("vault").unwrap(),
            path: SecretPath::parse("kv/db").unwrap(),
            version: None,
            args: BTreeMap::new(),
        };
        let value = |bytes: &Vec<u8>| Value { bytes: SecretBytes::from(bytes.as_slice()), kind: ValueKind::Binary };
        let secret = Secret {
            values: values.iter().map(|(key, bytes)| (key.clone(), value(bytes))).collect(),
            version: None,
            lease: None,
            expires_at: None,
            rotates_in: None,
            request_id: None,
        };
        let file = |path: String, select| {
            let path = FilePath::parse(&path).unwrap();
            FileSpec { path, from: reference.clone(), select, mode: None, uid: None, gid: None }
        };
        let mut files: Vec<_> =
            keys.iter().enumerate().map(|(at, key)| file(format!("one-{at}"), Select::Key(key.clone()))).collect();
        files.extend(each.then(|| file("each".to_owned(), Select::EachKey)));
        let spec = VolumeSpec {
            refresh: Refresh::default(),
            keep_previous: VolumeSpec::DEFAULT_KEEP_PREVIOUS,
            overlap: VolumeSpec::DEFAULT_OVERLAP,
            lease_scope: Default::default(),
            max_stale: None,
            size: None,
            files,
        };
        let is_name = |key: &String| !key.contains('/') && !matches!(key.as_str(), "" | "." | "..");
        let possible = keys.iter().all(|key| values.contains_key(key)) && (!each || values.keys().all(is_name));
        let rendered = render(&spec, group, &BTreeMap::from([(reference.clone(), Arc::new(secret))]));
        prop_assert_eq!(rendered.is_ok(), possible);
        let Ok(rendered) = rendered else { return Ok(()) };
        let mut expected: BTreeMap<_, _> =
            keys.iter().enumerate().map(|(at, key)| (format!("one-{at}"), &values[key])).collect();
        expected.extend(values.iter().filter(|_| each).map(|(key, bytes)| (format!("each/{key}"), bytes)));
        prop_assert_eq!(rendered.len(), expected.len());
        for (path, file) in rendered.files() {
            prop_assert!(expected.get(path.as_str()).is_some_and(|bytes| bytes.as_slice() == file.bytes.expose()));
            let mode = if group.is_some() { Mode::GROUP_READS } else { Mode::OWNER_READS };
            prop_assert_eq!((file.mode, file.uid, file.gid), (mode, 0, group.unwrap_or(0)));
        }
    }
}
