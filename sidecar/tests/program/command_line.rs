// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Exit codes, and what is said with them.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Output};

use crate::ground::{Ground, PROGRAM};

fn ended(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn check_says_what_is_wrong_and_notes_what_is_not_here() {
    let ground = Ground::new();
    let file = ground.path("config/sidecar.yaml");
    let check = || ended(Command::new(PROGRAM).arg("check").arg(&file));
    ground.write_config(&ground.config("", &["{name: a, command: {run: [ngnix-of-nobody]}}"]));
    let (code, said, _) = check();
    assert_eq!(code, Some(0));
    assert!(said.contains("note: volumes[0].hooks[0].command.run: no program \"ngnix-of-nobody\" in PATH"), "{said}");
    assert!(said.ends_with("nothing is wrong: volumes 1, hooks 1\n"), "{said}");
    ground.write_config(&ground.config("", &["{name: a, touch: {pth: /x}}"]));
    let (code, _, said) = check();
    assert_eq!(code, Some(1));
    assert!(
        said.contains("line 8, column 27: volumes[0].hooks[0].touch: unknown key `pth`: did you mean `path`?"),
        "{said}"
    );
    fs::remove_file(&file).unwrap();
    let (code, _, said) = check();
    assert_eq!((code, said.contains("cannot be read")), (Some(1), true), "{said}");
}

#[test]
fn what_it_cannot_do_without_is_named_before_it_ends() {
    let ground = Ground::new();
    ground.swap(1);
    ground.write_config(&ground.config("", &["{name: a, command: {run: [/nobody/reload]}}"]));
    let (code, _, said) = ended(&mut ground.command());
    assert_eq!(code, Some(1));
    assert!(said.contains("volumes[0].hooks[0].command.run: /nobody/reload is not in this image"), "{said}");

    ground.write_config(&ground.config("", &["{name: a, touch: {path: @/x}}"]));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("--http-address={}", taken.local_addr().unwrap());
    let (code, _, said) = ended(ground.command().arg(&address));
    assert_eq!(code, Some(1));
    assert!(said.contains("--http-address 127.0.0.1:") && said.contains("choose another port, or `none`"), "{said}");

    let (code, _, said) = ended(ground.command().arg("--log=evanesce=loud"));
    assert_eq!(code, Some(1));
    assert!(said.contains("log filter"), "{said}");
}

#[test]
fn a_command_line_that_is_wrong_is_exit_code_2() {
    for (arguments, says) in [
        (&["run", "--grace=soon"][..], "such as 20s"),
        (&["run", "--http-address=9812"], "127.0.0.1:9812"),
        (&["run", "--log-format=xml"], "json"),
        (&["watch"], "unrecognized subcommand"),
        (&[], "Usage"),
    ] {
        let (code, _, said) = ended(Command::new(PROGRAM).args(arguments));
        assert_eq!(code, Some(2), "{arguments:?}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
}
