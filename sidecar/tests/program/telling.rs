// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A change reaches the application, whichever way it wants to hear of it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use crate::ground::{Application, Ground, free_port, get, wait_for};

/// Writes a line for each SIGHUP. What it starts has its name too.
const LISTENS: &str = "\
trap 'echo worker >>@/heard' HUP\n\
(while :; do sleep 100 & wait $!; done) &\n\
trap 'echo master >>@/heard' HUP\n\
echo $$ >@/app.pid\n\
while :; do sleep 100 & wait $!; done";

#[test]
fn a_swap_reaches_the_application_by_signal_program_request_and_file_in_order() {
    let ground = Ground::new();
    ground.swap(1);
    let script = ground.script("listens-a", LISTENS);
    let _application = Application::start(&script, &ground.path("app.pid"));
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free_port();
    let url = format!("http://{}/-/reload?x=1", server.local_addr().unwrap());
    ground.write_config(&ground.config(
        "",
        &[
            "{name: signal, signal: {pidFile: @/app.pid, process: listens-a}}",
            "{name: program, command: {run: [sh, -c, 'echo program $EVANESCE_GENERATION >>@/heard']}}",
            &format!("{{name: request, http: {{url: \"{url}\", headers: {{x-token: abc}}, status: [202]}}}}"),
            "{name: file, touch: {path: @/touched}}",
        ],
    ));
    let mut command = ground.command();
    command.arg(format!("--http-address=127.0.0.1:{port}"));
    let mut program = crate::ground::Program::start(command);
    program.wait_for_line("\"watching\"");
    wait_for("it is ready", || (get(port, "/readyz").0 == 200).then_some(()));
    assert_eq!(get(port, "/livez").0, 200);

    ground.swap(2);
    let (mut client, _) = server.accept().unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    // What comes after it was not done yet, what comes before it was.
    assert!(!ground.path("touched").exists());
    client.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").unwrap();
    let said = program.wait_for_line("the application was told");
    assert!(said.contains("\"generation\":\"..g2\"") && said.contains("\"volume\":\"db\""), "{said}");
    assert!(ground.path("touched").exists());
    // A signal is sent before the program runs, and acted upon whenever its process likes.
    wait_for("both were heard", || (ground.lines("heard").len() == 2).then_some(()));
    let mut heard = ground.lines("heard");
    heard.sort();
    assert_eq!(heard, ["master", "program ..g2"]);
    assert!(head.starts_with("post /-/reload?x=1 http/1.1\r\n"), "{head}");
    for line in
        ["x-token: abc", "evanesce-generation: ..g2", "evanesce-on: changed", "content-length: 0", "host: 127.0.0.1:"]
    {
        assert!(head.contains(&format!("\r\n{line}")), "{line}: {head}");
    }

    let (_, metrics) = get(port, "/metrics");
    for line in [
        "evanesce_sidecar_tellings_total{on=\"changed\",outcome=\"told\"} 1",
        "evanesce_sidecar_hook_attempts_total{kind=\"http\",outcome=\"ok\"} 1",
        "evanesce_sidecar_volumes{state=\"current\"} 1",
        "evanesce_sidecar_behind_seconds 0",
        "evanesce_sidecar_volumes_noticed{by=\"inotify\"} 1",
    ] {
        assert!(metrics.lines().any(|it| it.replace("{}", "").starts_with(line)), "{line}\n{metrics}");
    }
    program.end();
}

#[test]
fn of_processes_of_one_name_those_hear_the_signal_whose_parent_has_another() {
    let ground = Ground::new();
    ground.swap(1);
    let script = ground.script("listens-b-of-long-name", LISTENS);
    let _application = Application::start(&script, &ground.path("app.pid"));
    let mut program = ground.start("", &["{name: hup, signal: {process: listens-b-of-long-name}}"]);
    for number in 2..5 {
        ground.swap(number);
        program.wait_for_line(&format!("\"..g{number}\""));
        wait_for("the application heard", || (ground.lines("heard").len() as u64 == number - 1).then_some(()));
    }
    assert_eq!(ground.lines("heard"), ["master"; 3]);
    program.end();
}

#[test]
fn after_swaps_without_a_pause_the_last_one_is_told() {
    let ground = Ground::new();
    ground.swap(1);
    let mut program =
        ground.start("", &["{name: note, command: {run: [sh, -c, 'echo $EVANESCE_GENERATION >>@/heard']}}"]);
    for number in 2..=300 {
        ground.swap(number);
    }
    wait_for("the last one is told", || {
        ground.lines("heard").last().is_some_and(|last| last == "..g300").then_some(())
    });
    let heard = ground.lines("heard");
    assert!(heard.len() < 299, "each was told: nothing was made one");
    let numbers: Vec<u64> = heard.iter().map(|name| name["..g".len()..].parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    program.end();
}

#[test]
fn a_restart_tells_nothing_unless_it_is_asked_for() {
    let ground = Ground::new();
    ground.swap(1);
    let hook = "{name: note, command: {run: [sh, -c, 'echo $EVANESCE_GENERATION >>@/heard']}}";
    let mut program = ground.start("", &[hook]);
    ground.swap(2);
    program.wait_for_line("the application was told");
    program.end();
    // A change that comes later shows that the start has passed.
    let mut program = ground.start("", &[hook]);
    wait_for("it has looked", || program.said().iter().any(|line| line.contains("watching")).then_some(()));
    program.end();
    assert_eq!(ground.lines("heard"), ["..g2"]);
    let mut program = ground.start("    onStart: true\n", &[hook]);
    program.wait_for_line("the application was told");
    program.end();
    assert_eq!(ground.lines("heard"), ["..g2", "..g2"]);
}

#[test]
fn the_mark_of_old_files_is_told_by_its_own_hooks() {
    let ground = Ground::new();
    ground.swap(1);
    let note = |on: &str| {
        format!(
            "{{name: {on}, on: {on}, command: {{run: [sh, -c, 'echo $EVANESCE_ON $EVANESCE_GENERATION >>@/heard']}}}}"
        )
    };
    let mut program = ground.start("", &[&note("changed"), &note("stale"), &note("fresh")]);
    ground.volume().mark(1).unwrap();
    wait_for("the mark is told", || (ground.lines("heard").len() == 1).then_some(()));
    ground.swap(2);
    wait_for("new files are told", || (ground.lines("heard").len() == 3).then_some(()));
    assert_eq!(ground.lines("heard"), ["stale ..g1", "changed ..g2", "fresh ..g2"]);
    program.end();
}

#[test]
fn a_pid_file_that_is_wrong_is_said_with_its_cure_and_tried_again() {
    let ground = Ground::new();
    ground.swap(1);
    let script = ground.script("listens-c", LISTENS);
    let mut program = ground.start("", &["{name: hup, signal: {pidFile: @/given.pid, process: listens-c}}"]);
    ground.swap(2);
    program.wait_for_line("its folder has to be mounted in this container too");
    fs::write(ground.path("given.pid"), "nonsense\n").unwrap();
    program.wait_for_line("does not begin with the number of a process");
    fs::write(ground.path("given.pid"), format!("{}\n", std::process::id())).unwrap();
    program.wait_for_line("which is not called \\\"listens-c\\\": it was left by one that ended");
    let application = Application::start(&script, &ground.path("app.pid"));
    fs::write(ground.path("given.pid"), format!("{}\n", application.0.id())).unwrap();
    program.wait_for_line("the application was told");
    wait_for("the application heard", || (ground.lines("heard") == ["master"]).then_some(()));
    program.end();
}
