// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! SIGTERM: hooks that run have the grace, and the end is exit code 0.

use std::fs;

use rustix::process::{Pid, Signal, test_kill_process};

use crate::ground::{Ground, Program, wait_for};

#[test]
fn a_hook_that_runs_is_waited_for_and_no_other_begins() {
    let ground = Ground::new();
    ground.swap(1);
    // It goes on once it is let, which is after the signal.
    let slow = "{name: slow, timeout: 1m, command: {run: [sh, -c, 'echo began >>@/heard; read x <@/gate; echo done >>@/heard']}}";
    let made = std::process::Command::new("mkfifo").arg(ground.path("gate")).status().unwrap();
    assert!(made.success());
    let mut program = ground.start("", &[slow, "{name: next, touch: {path: @/next}}"]);
    ground.swap(2);
    wait_for("the hook runs", || (ground.lines("heard") == ["began"]).then_some(()));
    program.signal(Signal::TERM);
    program.wait_for_line("ending: hooks that run are waited for");
    fs::write(ground.path("gate"), "go\n").unwrap();
    assert_eq!(program.wait().code(), Some(0));
    assert_eq!(ground.lines("heard"), ["began", "done"]);
    assert!(!ground.path("next").exists());
}

#[test]
fn a_hook_that_takes_longer_than_the_grace_is_ended_and_the_exit_code_is_0() {
    let ground = Ground::new();
    ground.swap(1);
    ground.write_config(&ground.config(
        "",
        &["{name: slow, timeout: 10m, command: {run: [sh, -c, \"trap '' TERM; echo $$ >@/pid; sleep 600; echo done >@/done\"]}}"],
    ));
    let mut command = ground.command();
    command.arg("--grace=200ms");
    let mut program = Program::start(command);
    program.wait_for_line("\"watching\"");
    ground.swap(2);
    let pid = wait_for("the hook runs", || ground.lines("pid").first()?.parse().ok());
    program.end();
    program.wait_for_line("ending in the middle of a hook");
    let pid = Pid::from_raw(pid).unwrap();
    wait_for("the hook's program is gone", || test_kill_process(pid).is_err().then_some(()));
    assert!(!ground.path("done").exists());
}

#[test]
fn it_ends_at_once_while_it_waits_for_anything() {
    for (settings, hook) in
        [("", "{name: a, touch: {path: @/x}}"), ("    onStart: true\n", "{name: a, touch: {path: @/nowhere/x}}")]
    {
        let ground = Ground::new();
        ground.swap(1);
        let mut program = ground.start(settings, &[hook]);
        if !settings.is_empty() {
            program.wait_for_line("a hook failed");
        }
        program.signal(Signal::INT);
        assert_eq!(program.wait().code(), Some(0));
        assert_eq!(program.count("ending in the middle"), 0);
    }
}
