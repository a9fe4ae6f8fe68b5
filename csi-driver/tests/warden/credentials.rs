// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Credentials files: links as a mounted Secret has them, and links that lead out.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;

use evanesce_csi::protocol::{CredentialName, ErrorKind};
use evanesce_csi::warden::CredentialsDir;
use rustix::fs::Mode;

fn name(text: &str) -> CredentialName {
    text.parse().unwrap()
}

#[test]
fn a_file_of_a_mounted_secret_is_opened_and_opened_again_only_when_it_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("..2026_1")).unwrap();
    fs::write(path("..2026_1/token"), "one").unwrap();
    symlink("..2026_1", path("..data")).unwrap();
    symlink("..data/token", path("token")).unwrap();
    let credentials = CredentialsDir::open(Some(directory.path())).unwrap();

    let (identity, file) = credentials.open_file(&name("token"), None).unwrap().unwrap();
    let mut content = String::new();
    File::from(file).read_to_string(&mut content).unwrap();
    assert_eq!(content, "one");
    assert!(credentials.open_file(&name("token"), Some(identity)).unwrap().is_none());

    // Kubelet's swap.
    fs::create_dir(path("..2026_2")).unwrap();
    fs::write(path("..2026_2/token"), "two").unwrap();
    symlink("..2026_2", path("..data_tmp")).unwrap();
    fs::rename(path("..data_tmp"), path("..data")).unwrap();
    let (second, file) = credentials.open_file(&name("token"), Some(identity)).unwrap().unwrap();
    content.clear();
    File::from(file).read_to_string(&mut content).unwrap();
    assert_eq!(content, "two");
    // Written in place.
    fs::write(path("..2026_2/token"), "three").unwrap();
    assert!(credentials.open_file(&name("token"), Some(second)).unwrap().is_some());
}

#[test]
fn nothing_but_a_regular_file_in_the_directory_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join("credentials").join(name);
    fs::create_dir(directory.path().join("credentials")).unwrap();
    fs::write(directory.path().join("outside"), "x").unwrap();
    symlink(directory.path().join("outside"), path("absolute")).unwrap();
    symlink("../outside", path("relative")).unwrap();
    symlink("/proc/self/environ", path("magic")).unwrap();
    symlink("/proc/self/fd/0", path("descriptor")).unwrap();
    symlink("loop", path("loop")).unwrap();
    fs::create_dir(path("directory")).unwrap();
    fs::hard_link(directory.path().join("outside"), path("hard")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    File::create(path("large")).unwrap().set_len((1 << 20) + 1).unwrap();

    let credentials = CredentialsDir::open(Some(&directory.path().join("credentials"))).unwrap();
    for escape in ["absolute", "relative", "magic", "descriptor", "loop", "directory", "pipe", "socket", "large"] {
        let error = credentials.open_file(&name(escape), None).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{escape}: {error}");
    }
    assert_eq!(credentials.open_file(&name("absent"), None).unwrap_err().kind, ErrorKind::NotFound);
    // A hard link was put there by somebody who may write to the directory.
    assert!(credentials.open_file(&name("hard"), None).unwrap().is_some());
    let none = CredentialsDir::open(None).unwrap();
    assert!(none.open_file(&name("hard"), None).unwrap_err().message.contains("--credentials-dir"));
}
