// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

use std::fs;

use super::{folder, mode, run};

const TEXT: &str = "# a comment stays\nuser: app\npassword: CANARY-value\npin: 007\n";

#[test]
fn what_is_sealed_for_a_new_identity_is_unsealed_with_it_to_the_letter() {
    let folder = folder();
    let path = folder.path();
    let recipient = run(path, &["keygen", "-o", "identity.txt"], "").ok();
    fs::write(path.join("db.yaml"), TEXT).unwrap();
    let sealing = run(path, &["seal", "-r", recipient.trim(), "db.yaml", "-o", "db.yaml.age"], "");
    assert_eq!((sealing.out.as_str(), sealing.err.as_str(), sealing.code), ("", "", 0));
    assert_eq!(run(path, &["unseal", "-i", "identity.txt", "db.yaml.age"], "").ok(), TEXT);

    // The same through pipes.
    let sealed = run(path, &["seal", "-r", recipient.trim()], TEXT).ok();
    assert!(sealed.starts_with("-----BEGIN AGE ENCRYPTED FILE-----"));
    assert_eq!(run(path, &["unseal", "-i", "identity.txt"], &sealed).ok(), TEXT);
}

#[test]
fn a_new_identity_is_its_owners_alone_and_never_overwrites_another() {
    let folder = folder();
    let identity = folder.path().join("identity.txt");
    let recipient = run(folder.path(), &["keygen", "-o", "identity.txt"], "").ok();
    assert!(recipient.starts_with("age1") && recipient.trim().len() == 62, "{recipient}");
    assert_eq!(mode(&identity), 0o600);
    let before = fs::read_to_string(&identity).unwrap();
    assert!(before.contains("AGE-SECRET-KEY-1") && before.contains(recipient.trim()));
    let error = run(folder.path(), &["keygen", "-o", "identity.txt"], "").failed();
    assert!(error.contains("never overwritten"), "{error}");
    assert_eq!(fs::read_to_string(&identity).unwrap(), before);
}

#[test]
fn a_new_identity_on_standard_output_is_a_file_of_identities() {
    let folder = folder();
    let made = run(folder.path(), &["keygen"], "");
    fs::write(folder.path().join("identity.txt"), &made.out).unwrap();
    let recipient = made.err.trim().strip_prefix("recipient: ").unwrap().to_owned();
    let sealed = run(folder.path(), &["seal", "-r", &recipient], TEXT).ok();
    assert_eq!(run(folder.path(), &["unseal", "-i", "identity.txt"], &sealed).ok(), TEXT);
}

#[test]
fn nothing_but_what_is_sealed_is_written() {
    let folder = folder();
    let recipient = run(folder.path(), &["keygen", "-o", "identity.txt"], "").ok();
    let seal = ["seal", "-r", recipient.trim(), "-o", "db.yaml.age"];
    assert_eq!(run(folder.path(), &seal, TEXT).ok(), "");
    let before = fs::read(folder.path().join("db.yaml.age")).unwrap();

    // Not over another without being told to, and not what is no secret.
    let error = run(folder.path(), &seal, TEXT).failed();
    assert!(error.contains("--force"), "{error}");
    let forced = [&seal[..], &["--force"]].concat();
    for (text, says) in [
        ("- CANARY\n", "one YAML map of keys to values"),
        ("a: CANARY\na: CANARY\n", "line 2, column 1: key `a` is written twice"),
        ("a: \"CANARY", "line"),
    ] {
        let error = run(folder.path(), &forced, text).failed();
        assert!(error.contains(says) && !error.contains("CANARY"), "{error}");
    }
    assert_eq!(fs::read(folder.path().join("db.yaml.age")).unwrap(), before);
    assert_eq!(run(folder.path(), &forced, TEXT).ok(), "");
    assert_ne!(fs::read(folder.path().join("db.yaml.age")).unwrap(), before);

    let mut names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["db.yaml.age", "identity.txt"]);
    for name in names {
        assert!(!fs::read_to_string(folder.path().join(name)).unwrap().contains("CANARY"));
    }
}

#[test]
fn several_recipients_each_open_with_their_own_identity() {
    let folder = folder();
    let one = run(folder.path(), &["keygen", "-o", "one.txt"], "").ok();
    let two = run(folder.path(), &["keygen", "-o", "two.txt"], "").ok();
    run(folder.path(), &["keygen", "-o", "three.txt"], "").ok();
    fs::write(folder.path().join("recipients"), format!("# the platform's\n{two}")).unwrap();
    let sealed = run(folder.path(), &["seal", "-r", one.trim(), "-R", "recipients"], TEXT).ok();
    for identity in ["one.txt", "two.txt"] {
        assert_eq!(run(folder.path(), &["unseal", "-i", identity], &sealed).ok(), TEXT);
    }
    let error = run(folder.path(), &["unseal", "-i", "three.txt"], &sealed).failed();
    assert!(error.contains("not sealed for this identity"), "{error}");
    assert_eq!(run(folder.path(), &["unseal", "-i", "three.txt", "-i", "one.txt"], &sealed).ok(), TEXT);
}

#[test]
fn what_is_missing_or_of_the_wrong_kind_is_named_with_its_cure() {
    let folder = folder();
    let path = folder.path();
    run(path, &["keygen", "-o", "identity.txt"], "").ok();
    let identity = fs::read_to_string(path.join("identity.txt")).unwrap();
    let secret = identity.lines().find(|line| line.starts_with("AGE-SECRET")).unwrap();
    for (args, says) in [
        (&["seal"][..], "no recipient"),
        (&["seal", "-r", "age1nothing"], "a --recipient is not an X25519 recipient"),
        (&["seal", "-r", secret], "a --recipient is not an X25519 recipient"),
        (&["seal", "-R", "missing"], "missing: No such file"),
        (&["unseal", "-i", "missing"], "missing: No such file"),
        (&["unseal", "-i", "identity.txt"], "is not a sealed file"),
        (&["keygen", "-o", "missing/identity.txt"], "missing/identity.txt"),
    ] {
        let error = run(path, args, TEXT).failed();
        assert!(error.contains(says), "{args:?}: {error}");
        assert!(!error.contains("SECRET-KEY") && !error.contains("CANARY"), "{error}");
    }
}

#[test]
fn an_identity_that_others_may_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = folder();
    let recipient = run(folder.path(), &["keygen", "-o", "identity.txt"], "").ok();
    let sealed = run(folder.path(), &["seal", "-r", recipient.trim()], TEXT).ok();
    let unseal = || run(folder.path(), &["unseal", "-i", "identity.txt"], &sealed);
    assert_eq!(unseal().err, "");
    fs::set_permissions(folder.path().join("identity.txt"), fs::Permissions::from_mode(0o640)).unwrap();
    let open = unseal();
    assert!(open.err.contains("chmod 600"), "{}", open.err);
    assert_eq!(open.ok(), TEXT);
}

#[test]
fn json_says_what_was_made_and_what_failed() {
    let folder = folder();
    let json = |args: &[&str]| {
        let ran = run(folder.path(), &[args, &["--output", "json"]].concat(), TEXT);
        (ran.code, serde_json::from_str::<serde_json::Value>(&ran.out).unwrap())
    };
    let (code, made) = json(&["keygen", "-o", "identity.txt"]);
    assert_eq!((code, &made["ok"], &made["identity_file"]), (0, &true.into(), &"identity.txt".into()));
    let recipient = made["recipient"].as_str().unwrap();
    let (code, sealed) = json(&["seal", "-r", recipient, "-o", "a.yaml.age"]);
    assert_eq!((code, &sealed["ok"], &sealed["file"]), (0, &true.into(), &"a.yaml.age".into()));
    let (code, failed) = json(&["keygen", "-o", "identity.txt"]);
    assert_eq!((code, &failed["ok"]), (1, &false.into()));
    assert!(failed["error"].as_str().unwrap().contains("never overwritten"));
    let (code, failed) = json(&["keygen"]);
    assert_eq!((code, &failed["ok"]), (1, &false.into()));
}

#[test]
fn the_sealed_file_can_be_read_by_the_engine_half() {
    let folder = folder();
    let recipient = run(folder.path(), &["keygen", "-o", "identity.txt"], "").ok();
    run(folder.path(), &["seal", "-r", recipient.trim(), "-o", "a.yaml.age"], TEXT).ok();
    assert_eq!(mode(&folder.path().join("a.yaml.age")), 0o644);
}
