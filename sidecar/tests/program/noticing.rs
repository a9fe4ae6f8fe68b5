// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! How changes are noticed, and what is not looked at.

use std::fs;
use std::process::Command;
use std::sync::mpsc;

use notify::event::{AccessKind, EventKind};
use notify::{RecursiveMode, Watcher as _};

use crate::ground::{Ground, PROGRAM, Program, free_port, get, wait_for};

const NOTE: &str = "{name: note, command: {run: [sh, -c, 'echo $EVANESCE_GENERATION >>@/heard']}}";

#[test]
fn a_volume_that_is_not_mounted_is_waited_for_and_that_is_said_once() {
    let ground = Ground::new();
    fs::remove_dir(ground.path("secrets")).unwrap();
    ground.write_config(&ground.config("", &[NOTE]));
    let port = free_port();
    let mut command = ground.command();
    command.arg(format!("--http-address=127.0.0.1:{port}"));
    let mut program = Program::start(command);
    program.wait_for_line("is no folder: mount the volume in this container too");
    assert_eq!(get(port, "/readyz"), (503, "waiting for volumes\n".to_owned()));
    fs::create_dir(ground.path("secrets")).unwrap();
    program.wait_for_line("there is no link");
    ground.swap(1);
    program.wait_for_line("the application was told");
    assert_eq!(get(port, "/readyz").0, 200);
    assert_eq!(program.count("waiting for the volume"), 2, "{:?}", program.said());
    assert_eq!(ground.lines("heard"), ["..g1"]);
    // Away, and another one in its place.
    fs::rename(ground.path("secrets"), ground.path("before")).unwrap();
    program.wait_for_lines("is no folder", 2);
    fs::create_dir(ground.path("secrets")).unwrap();
    ground.swap(7);
    wait_for("it is told", || (ground.lines("heard") == ["..g1", "..g7"]).then_some(()));
    ground.swap(8);
    wait_for("it is told", || (ground.lines("heard") == ["..g1", "..g7", "..g8"]).then_some(()));
    program.end();
}

#[test]
fn without_inotify_changes_are_noticed_by_looking() {
    let ground = Ground::new();
    ground.swap(1);
    ground.write_config(&ground.config("", &[NOTE]));
    let port = free_port();
    // The limits of a user namespace are its own: nobody else's watches are touched.
    let script = format!(
        "echo 0 >/proc/sys/user/max_inotify_instances && exec {PROGRAM} run --log-format=json \
         --http-address=127.0.0.1:{port} --config {}",
        ground.path("config/sidecar.yaml").display()
    );
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", &script]);
    let mut program = Program::start(command);
    program.wait_for_line("\"watching\"");
    assert_eq!(program.count("the kernel tells of no changes"), 1, "{:?}", program.said());
    wait_for("it has looked", || {
        get(port, "/metrics").1.contains("evanesce_sidecar_volumes_noticed{by=\"polling\"} 1").then_some(())
    });
    ground.swap(2);
    wait_for("it is told", || (ground.lines("heard") == ["..g2"]).then_some(()));
    program.end();
}

#[test]
fn no_file_of_a_secret_is_ever_opened() {
    let ground = Ground::new();
    ground.swap(1);
    let mut program = ground.start("", &["{name: mark, touch: {path: @/touched}}"]);
    let (opened, heard) = mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if let Ok(event) = event
            && matches!(event.kind, EventKind::Access(AccessKind::Open(_)))
        {
            let _ = opened.send(event.paths);
        }
    })
    .unwrap();
    ground.write(2);
    watcher.watch(&ground.path("secrets/..g2"), RecursiveMode::NonRecursive).unwrap();
    ground.volume().show(2).unwrap();
    program.wait_for_line("the application was told");
    // The watch works: this one is seen, and it is the first that opens a file.
    fs::read(ground.path("secrets/password")).unwrap();
    let files = || heard.recv().unwrap().into_iter().filter(|path| path.is_file()).collect::<Vec<_>>();
    let first = wait_for("an opened file", || Some(files()).filter(|files| !files.is_empty()));
    assert_eq!(first, [ground.path("secrets/..g2/password")]);
    assert!(heard.try_iter().flatten().all(|path| !path.is_file()), "it was opened twice");
    program.end();
}
