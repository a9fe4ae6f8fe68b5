// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The configuration file changes while the program runs.

use std::fs;
use std::os::unix::fs::symlink;

use crate::ground::{Ground, Program, free_port, get, wait_for};

fn note(name: &str) -> String {
    format!("{{name: {name}, command: {{run: [sh, -c, 'echo {name} $EVANESCE_GENERATION >>@/heard']}}}}")
}

#[test]
fn what_changes_in_the_file_holds_and_tells_nobody_anything_by_itself() {
    let ground = Ground::new();
    ground.swap(1);
    let mut program = ground.start("", &[&note("one")]);
    ground.swap(2);
    program.wait_for_line("the application was told");
    ground.write_config(&ground.config("    onStart: true\n", &[&note("two")]));
    program.wait_for_line("has changed and is followed");
    ground.swap(3);
    program.wait_for_lines("the application was told", 2);
    assert_eq!(ground.lines("heard"), ["one ..g2", "two ..g3"]);
    program.end();
}

#[test]
fn nonsense_changes_nothing_and_is_said_in_one_line() {
    let ground = Ground::new();
    ground.swap(1);
    let port = free_port();
    ground.write_config(&ground.config("", &[&note("one")]));
    let mut command = ground.command();
    command.arg(format!("--http-address=127.0.0.1:{port}"));
    let mut program = Program::start(command);
    program.wait_for_line("\"watching\"");
    let refused = |number| {
        wait_for("the metric", || {
            get(port, "/metrics").1.contains(&format!("config_refused{{}} {number}")).then_some(())
        });
    };
    for (count, (wrong, says)) in [
        ("volumes: [", "not YAML"),
        (&*ground.config("    debonce: 1s\n", &[&note("one")]), "unknown key `debonce`: did you mean `debounce`?"),
        (&*ground.config("", &["{name: x, command: {run: [ngnix-of-nobody]}}"]), "hooks[0].command.run: no program"),
        ("", "there is nothing in it"),
    ]
    .into_iter()
    .enumerate()
    {
        ground.write_config(wrong);
        let said = program.wait_for_lines("is refused; what it said before holds on", count + 1);
        assert!(said.contains(says), "{said}");
        refused("1.0");
        ground.swap(2 + count as u64);
        program.wait_for_lines("the application was told", count + 1);
    }
    fs::remove_file(ground.path("config/sidecar.yaml")).unwrap();
    program.wait_for_lines("cannot be read", 1);
    ground.write_config(&ground.config("", &[&note("two")]));
    program.wait_for_line("is followed");
    refused("0.0");
    ground.swap(6);
    program.wait_for_lines("the application was told", 5);
    assert_eq!(program.count("is refused"), 5, "{:?}", program.said());
    assert_eq!(ground.lines("heard"), ["one ..g2", "one ..g3", "one ..g4", "one ..g5", "two ..g6"]);
    program.end();
}

#[test]
fn a_configmap_that_kubelet_swaps_is_followed_and_volumes_come_and_go() {
    let ground = Ground::new();
    ground.swap(1);
    let map = |number: u32, text: &str| {
        let folder = format!("..{number}");
        fs::create_dir(ground.path("config").join(&folder)).unwrap();
        fs::write(ground.path("config").join(&folder).join("sidecar.yaml"), text).unwrap();
        symlink(&folder, ground.path("config/..data_tmp")).unwrap();
        fs::rename(ground.path("config/..data_tmp"), ground.path("config/..data")).unwrap();
    };
    map(1, &ground.config("", &[&note("one")]));
    symlink("..data/sidecar.yaml", ground.path("config/sidecar.yaml")).unwrap();
    let mut program = Program::start(ground.command());
    program.wait_for_line("\"watching\"");
    // The same volume by another name is another volume: it begins with what is shown.
    map(2, &ground.config("", &[&note("two")]).replace("name: db", "name: other"));
    program.wait_for_line("no longer watched");
    program.wait_for_line("is followed");
    // Both looks happen in one thread, in this order; the first swap that it can miss is the next.
    ground.swap(2);
    wait_for("a swap is told", || {
        let heard = ground.lines("heard");
        (!heard.is_empty()).then_some(()).or_else(|| {
            ground.swap(ground.volume().shown().unwrap().unwrap() + 1);
            None
        })
    });
    assert!(ground.lines("heard").iter().all(|line| line.starts_with("two ")), "{:?}", ground.lines("heard"));
    program.end();
}

#[test]
fn a_volume_that_is_no_longer_watched_is_no_longer_waited_for() {
    let ground = Ground::new();
    ground.swap(1);
    let (port, one) = (free_port(), ground.config("", &[&note("one")]));
    let absent =
        format!("{one}  - {{name: absent, path: /nobody/secrets, hooks: [{{name: a, touch: {{path: /nobody/x}}}}]}}\n");
    ground.write_config(&absent);
    let mut command = ground.command();
    command.arg(format!("--http-address=127.0.0.1:{port}"));
    let mut program = Program::start(command);
    program.wait_for_line("\"watching\"");
    assert_eq!(get(port, "/readyz").0, 503);
    ground.write_config(&one);
    wait_for("it is ready", || (get(port, "/readyz").0 == 200).then_some(()));
    program.end();
}
