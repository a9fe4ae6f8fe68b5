// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Every key of the file: what is accepted and what it means. The reader takes the keys from here, and so does the
//! reference page.

use std::time::Duration;

use evanesce_engine::spec::form::Form;
use evanesce_engine::spec::keys::{Key, Table};

/// Signals that a program may take for "read your files again", or for "end".
pub(super) const SIGNALS: &[&str] = &["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "WINCH"];

const fn key(name: &'static str, form: Form, default: &'static str, meaning: &'static str) -> Key {
    Key { name, form, default, meaning }
}

const fn list(of: &'static Form, most: usize, empty: &'static str) -> Form {
    Form::List { of, most, empty: Some(empty) }
}

const fn between(least: Duration, most: Duration) -> Form {
    Form::Duration { least, most }
}

const fn table(path: &'static str, about: &'static str, keys: &'static [Key]) -> Table {
    Table { path, about, keys, later: &[], rules: &[] }
}

const TEXT: Form = Form::Text { longest: 4096 };

/// The top of the file.
pub static CONFIG: Table = table(
    "",
    "The file as a whole.",
    &[key(
        "volumes",
        list(&Form::Map(&VOLUME), 32, "without a volume there is nothing to do"),
        "required",
        "The volumes that are watched, up to 32.",
    )],
);

/// `volumes[]`.
pub static VOLUME: Table = table(
    "volumes[]",
    "A volume that is mounted in this container too.",
    &[
        key(
            "name",
            Form::Name("name"),
            "required",
            "What logs call it: letters, digits and `-`. No two have one name.",
        ),
        key("path", Form::Folder, "required", "Where it is mounted. A `subPath` of it never changes."),
        key(
            "hooks",
            list(&Form::Map(&HOOK), 32, "without a hook nobody is told"),
            "required",
            "Who is told, one after the other in this order, up to 32.",
        ),
        key(
            "onStart",
            Form::Boolean,
            "`false`",
            "Whether the application is told what the volume shows when the sidecar starts. What was told last is \
             remembered in memory alone, so with `true` every restart of the sidecar tells it again.",
        ),
        key(
            "debounce",
            between(Duration::ZERO, Duration::from_secs(60)),
            "`200ms`",
            "How long nothing more may change before anybody is told; put off at most ten times.",
        ),
        key(
            "minInterval",
            between(Duration::ZERO, Duration::from_secs(3600)),
            "`1s`",
            "The shortest time from one telling to the next. What changes meanwhile is one change.",
        ),
        key("retry", Form::Map(&RETRY), "see below", "When hooks that failed are tried again."),
    ],
);

/// `volumes[].retry`.
pub static RETRY: Table = table(
    "volumes[].retry",
    "When hooks that failed are tried again: after waits that double, each shortened by up to a half by chance. A hook that \
     succeeded is not run again for the same change; a newer change ends the wait and is told to all.",
    &[
        key("first", between(Duration::from_millis(100), Duration::from_secs(60)), "`1s`", "The first wait."),
        key("most", between(Duration::from_millis(100), Duration::from_secs(3600)), "`1m`", "The longest wait."),
        key(
            "attempts",
            Form::Number { least: 1, most: 10_000 },
            "no end",
            "After so many attempts the change is given up: an error in the log, and the volume counts as behind until the \
             next change is told.",
        ),
    ],
);

/// `volumes[].hooks[]`.
pub static HOOK: Table = table(
    "volumes[].hooks[]",
    "One way to tell the application. Exactly one of `command`, `http`, `signal` and `touch`.",
    &[
        key(
            "name",
            Form::Name("name"),
            "required",
            "What logs call it: letters, digits and `-`. No two of a volume have one name.",
        ),
        key(
            "on",
            Form::OneOf(&["changed", "stale", "fresh"]),
            "`changed`",
            "About what: `changed`, there is a new set of files; `stale`, the mark `..stale` says that they are too old; \
             `fresh`, it says so no more. A set that comes with the mark (`onStale: remove`) is no new one.",
        ),
        key(
            "timeout",
            between(Duration::from_millis(100), Duration::from_secs(600)),
            "`10s`",
            "How long one attempt may take.",
        ),
        key(
            "onFailure",
            Form::OneOf(&["stop", "continue"]),
            "`stop`",
            "Whether the hooks after it wait until this one succeeds (`stop`) or do not.",
        ),
        key("command", Form::Map(&COMMAND), "none", "Runs a program."),
        key("http", Form::Map(&HTTP), "none", "Sends a request."),
        key("signal", Form::Map(&SIGNAL), "none", "Sends a signal."),
        key("touch", Form::Map(&TOUCH), "none", "Touches a file."),
    ],
);

/// `volumes[].hooks[].command`.
pub static COMMAND: Table = table(
    "volumes[].hooks[].command",
    "Runs a program of the sidecar's own image, without a shell, in a process group of its own, and waits for it: exit code 0 \
     is success. At `timeout` the group gets SIGTERM, and SIGKILL two seconds later. It has the sidecar's environment and \
     `EVANESCE_VOLUME` (name), `EVANESCE_PATH`, `EVANESCE_ON`, `EVANESCE_GENERATION`; its umask is 0077, and no setuid \
     program gives it privileges.",
    &[
        key(
            "run",
            list(&TEXT, 64, "the first item is the program"),
            "required",
            "The program, as a whole path or a name to look for in `PATH`, and its arguments.",
        ),
        key(
            "output",
            Form::OneOf(&["log", "discard"]),
            "`log`",
            "Whether what it prints goes to the sidecar's standard error, as it is.",
        ),
    ],
);

/// `volumes[].hooks[].http`.
pub static HTTP: Table = table(
    "volumes[].hooks[].http",
    "Sends a request without a body over a connection of its own, HTTP/1.1. No redirect is followed. It carries \
     `evanesce-volume`, `evanesce-on` and `evanesce-generation`.",
    &[
        key("url", Form::Text { longest: 2048 }, "required", "`http://host:port/path` or `https://…`."),
        key("method", Form::OneOf(&["POST", "GET", "PUT", "PATCH", "DELETE"]), "`POST`", "The method."),
        key("headers", Form::Arguments, "none", "Headers, by name. Values are in no log."),
        key(
            "status",
            list(&Form::Number { least: 100, most: 599 }, 16, "without a status no answer would do"),
            "200 to 299",
            "The statuses that mean success.",
        ),
        key(
            "caFile",
            Form::Folder,
            "the system's",
            "PEM certificates to trust in place of the system's; read each time.",
        ),
        key(
            "unixSocket",
            Form::Folder,
            "none",
            "A socket to connect to in place of the URL's host, which is then the `host` header alone. Not with `https://`.",
        ),
    ],
);

/// `volumes[].hooks[].signal`.
pub static SIGNAL: Table = table(
    "volumes[].hooks[].signal",
    "Sends a signal to a process of another container: the pod needs `shareProcessNamespace: true`, and the sidecar the \
     application's uid or `CAP_KILL`. `pidFile`, `process` or both.",
    &[
        key("name", Form::OneOf(SIGNALS), "`HUP`", "The signal."),
        key(
            "pidFile",
            Form::Folder,
            "none",
            "A file with the process's number, in a folder that both containers mount.",
        ),
        key(
            "process",
            Form::Text { longest: 255 },
            "none",
            "The process's name, as in `/proc/PID/comm` (the first 15 bytes). Of processes of that name those get the signal \
             whose parent has another one: nginx's master and no worker. With `pidFile`, the name that process has to have.",
        ),
    ],
);

/// `volumes[].hooks[].touch`.
pub static TOUCH: Table = table(
    "volumes[].hooks[].touch",
    "Gives a file the time of now; makes it, empty and readable for all, if it is not there.",
    &[key("path", Form::Folder, "required", "The file.")],
);

/// All tables, from the top downwards.
pub static TABLES: &[&Table] = &[&CONFIG, &VOLUME, &RETRY, &HOOK, &COMMAND, &HTTP, &SIGNAL, &TOUCH];
