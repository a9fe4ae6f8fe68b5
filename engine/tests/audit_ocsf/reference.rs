// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `docs/reference/audit-events.md` is what this file makes of the samples. `EVANESCE_UPDATE=1` writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::samples;

const HEAD: &str = "\
# Audit events

Generated from the code by `cargo test -p evanesce-engine --test audit_ocsf`; do not edit. With
`EVANESCE_UPDATE=1` in the environment that test writes this page anew.

Every event is one JSON object on one line, valid against [OCSF 1.8.0](https://schema.ocsf.io/1.8.0/).
`metadata.event_code` says which of the events below it is; `metadata.correlation_uid` joins the events
of one volume. `metadata.sequence` begins at 1 with each process and goes up by one: where it does not,
an `audit_gap` says what is missing.

A line never holds a value, a digest of one, a token, a lease id, or text that a backend wrote. Names
that a backend gives (a version, the name of a request) are left out unless they are printable, without
spaces and at most 256 bytes long.

With `--audit file:PATH` the file is held open and appended to. Rotate it by copying and truncating
(`copytruncate` of logrotate); a file that was renamed is written on.
";

/// What each event means.
fn meaning(code: &str) -> &'static str {
    match code {
        "login" => "A backend was asked to log a workload in. A failure says of which kind in `status_code`.",
        "fetch" => {
            "A backend was asked for one secret, by the path that policy allowed. The answer is not in the event."
        }
        "mount" => "A volume became visible in its pod: its first delivery is complete.",
        "offline" => {
            "A new volume was filled with answers that the node remembered, because a backend could not be reached and its class has `limits.offlineGrace`. The `mount` beside it is the volume's; each secret's `fetch` has `remembered` as its answer."
        }
        "refresh" => {
            "A new generation took the place of the one before, in one step. `entity` is what was shown, `entity_result` what is shown now."
        }
        "too_stale" => {
            "The backends could not confirm a volume's files for longer than `maxStale` of its class: they were marked or removed, as `onStale` says. Once, and again after a restart of the plugin; the attempts before and after it are `failed` or `refused`."
        }
        "fresh_again" => "What was too old was confirmed or replaced: the mark is gone, the files are there.",
        "unmount" => "A volume is gone from its pod, and its memory is free.",
        "revoke" => {
            "A login of a volume's own was ended at its backend, and with it every lease that came with it; or it could not be, and they end at their own time."
        }
        "leases_lost" => {
            "Logins were found that this node wrote down before its last boot. What they were sealed with is gone, so nobody can end them: they and their leases end at their own time."
        }
        "refused" => {
            "Policy, the backend or the request's own form said no. Nothing was mounted, or what was mounted stays as it was."
        }
        "failed" => {
            "A delivery failed for a reason that is nobody's permission. A first one is tried again by kubelet; a refresh keeps what the pod has."
        }
        "cancelled" => "A delivery was dropped before its end: the process drains, or its task was lost.",
        "audit_start" => {
            "A process began to write this log. Without an `audit_stop` before it, the last one crashed and may have taken unwritten events with it."
        }
        "audit_stop" => "The process stopped writing on purpose; everything before is written.",
        "audit_gap" => {
            "Events are missing here: they came faster than they could be written, or a sink refused them. The line has the number of the last of them."
        }
        _ => panic!("{code} has no meaning yet: write it here"),
    }
}

/// What each field means.
fn field(path: &str) -> &'static str {
    match path {
        "action" | "action_id" => "what was done about the request: denied",
        "activity_id" | "activity_name" => "the class's activity",
        "actor.app_name" | "actor.process.name" => "the program that acted",
        "actor.process.pid" => "its process id on the node",
        "actor.user.name" => "the service account that it acted for",
        "actor.user.type" | "actor.user.type_id" => "always a service account",
        "api.operation" => {
            "`fetch`: one secret of a backend; `deliver`: all that a volume shows; `revoke`: the end of a login"
        }
        "api.request.uid" => "the backend's name for the request: joins its log with this one",
        "api.service.name" => "the `SecretBackend`",
        "auth_protocol" => "the method of the login",
        "auth_protocol_id" => "99, other; 0 where the method is not known",
        "category_uid" | "class_name" | "class_uid" | "type_uid" => "the OCSF class",
        "device.hostname" => "the node",
        "device.type" | "device.type_id" => "always a server",
        "disposition" | "disposition_id" => "what became of the request: blocked",
        "dst_endpoint.hostname" | "dst_endpoint.ip" | "dst_endpoint.port" => "the backend's address",
        "entity.data.secrets" => "the secrets that were shown",
        "entity_result.data.secrets" => "the secrets that are shown now",
        "entity.name" | "entity_result.name" => "the `SecretVolume`",
        "entity.type" | "entity.type_id" | "entity_result.type" | "entity_result.type_id" => "always a secret volume",
        "entity.uid" | "entity_result.uid" => "the volume's id",
        "entity.version" => "the generation that is shown",
        "entity_result.version" => "the new generation's number",
        "file.name" | "file.path" => "where the volume is mounted, as the node sees it",
        "file.type" | "file.type_id" => "always a folder",
        "is_remote" => "whether the login went over a network",
        "log_name" | "metadata.log_name" => "the log's name",
        "log_type" | "log_type_id" => "always an application's log",
        "message" => "what happened, in a fixed sentence",
        "metadata.correlation_uid" => "the volume's id",
        "metadata.event_code" => "the event's name on this page",
        "metadata.product.feature.name" => "the program",
        "metadata.product.name" | "metadata.product.vendor_name" | "metadata.product.version" => "the product",
        "metadata.profiles" => "the OCSF profiles that the event uses",
        "metadata.sequence" => "the event's number in its process",
        "metadata.uid" => "the event's own name: a UUIDv7",
        "metadata.version" => "the version of OCSF",
        "resources" => "the secret: backend and path, and its version where it has one",
        "service.name" => "the `SecretBackend`",
        "severity" | "severity_id" => "how much it matters",
        "src_endpoint.hostname" => "the node",
        "status" | "status_id" => "success or failure",
        "status_code" => "the kind of failure",
        "status_detail" => "the message that the tenant gets; at most 1,024 characters",
        "time" => "milliseconds since 1970, UTC",
        "unmapped.answer" => {
            "`remembered`: the backend is away, this is the last answer that the same identity had on this node; `asked`: this volume's own question; `shared`, `reused`: the answer to another volume's, by the same identity, \
             which `api.request.uid` names; waited for, or kept for a moment"
        }
        "unmapped.lease_group.uid" => "the name of the login and its leases, as the driver's log has it",
        "unmapped.lease_group.leases" => "how many leases are known to have come with the login",
        "unmapped.lease_group.cause" => {
            "`replaced`: another took its place and its overlap is over; `unmounted`: its volume is gone; `undelivered`: its \
             delivery failed; `orphaned`: an earlier process left it; `empty`: nothing was lent"
        }
        "unmapped.files" => "the files, by their path in the volume",
        "unmapped.gap.cause" => "`queue_full` or `sink_failed`",
        "unmapped.gap.first_sequence" | "unmapped.gap.last_sequence" => "the numbers that are missing, both included",
        "unmapped.gap.lost" => "how many",
        "unmapped.identity.audience" => "the audience of the token",
        "unmapped.identity.caller" => "namespace, service account and its uid, where the backend tells callers apart",
        "unmapped.identity.mount" => "where the login is sent",
        "unmapped.identity.role" => "the role that was asked for",
        "unmapped.age_seconds" => "how old the oldest of the answers is",
        "unmapped.max_stale.seconds" => "how old files may be by their class",
        "unmapped.max_stale.then" => "what became of them: `mark` or `remove`",
        "unmapped.mount_options" => "the mount's options",
        "unmapped.purpose" => "`first`: the pod waits; `refresh`: it runs",
        "unmapped.request_uid" => "the backend's name for the request",
        "unmapped.secrets" => "the secrets that the volume shows",
        "unmapped.ttl_seconds" => "how long the answer or the login lasts",
        "unmapped.volume_class" => "the `SecretVolume`",
        "unmapped.workload.namespace" | "unmapped.workload.pod" | "unmapped.workload.pod_uid" => "the pod",
        "unmapped.workload.service_account" => "the pod's service account",
        "user.name" | "user.type" | "user.type_id" => "the service account that logs in",
        _ => panic!("{path} has no meaning yet: write it here"),
    }
}

#[test]
fn the_reference_page_says_what_the_code_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/audit-events.md");
    let page = page();
    if std::env::var_os("EVANESCE_UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "{} is old: run this test with EVANESCE_UPDATE=1", path.display());
}

fn page() -> String {
    let lines: Vec<(&str, Value)> = samples::all().iter().map(|entry| (entry.code(), samples::json(entry))).collect();
    let of = |code: &str| lines.iter().filter(|(other, _)| *other == code).map(|(_, line)| line).collect::<Vec<_>>();
    let everywhere = fields(&lines.iter().map(|(_, line)| line).collect::<Vec<_>>());
    let everywhere: BTreeMap<_, _> = everywhere.into_iter().filter(|(_, always)| *always).collect();

    let mut page = HEAD.to_owned();
    page.push_str("\n## Fields of every event\n\n| field | what it says |\n| --- | --- |\n");
    for path in everywhere.keys() {
        writeln!(page, "| `{path}` | {} |", field(path)).unwrap();
    }
    for code in samples::CODES {
        let example = samples::json(&samples::example(code));
        let text = |name: &str| example[name].as_str().unwrap().to_owned();
        writeln!(
            page,
            "\n## `{code}`\n\n{}\n\n{} ({}), activity {} ({}).\n\n| field | when | what it says |\n| --- | --- | --- |",
            meaning(code),
            text("class_name"),
            example["class_uid"],
            text("activity_name"),
            example["activity_id"],
        )
        .unwrap();
        for (path, always) in fields(&of(code)) {
            if !everywhere.contains_key(&path) {
                let when = if always { "always" } else { "if there is one" };
                writeln!(page, "| `{path}` | {when} | {} |", field(&path)).unwrap();
            }
        }
        writeln!(page, "\n```json\n{}```", String::from_utf8(samples::line(&samples::example(code))).unwrap()).unwrap();
    }
    page
}

/// The fields of the lines, and whether each of the lines has it. A list is one field.
fn fields(lines: &[&Value]) -> BTreeMap<String, bool> {
    let mut counts = BTreeMap::<String, usize>::new();
    for line in lines {
        let mut paths = Vec::new();
        walk("", line, &mut paths);
        for path in paths {
            *counts.entry(path).or_default() += 1;
        }
    }
    counts.into_iter().map(|(path, count)| (path, count == lines.len())).collect()
}

fn walk(at: &str, value: &Value, paths: &mut Vec<String>) {
    let Some(object) = value.as_object() else {
        paths.push(at.to_owned());
        return;
    };
    for (name, value) in object {
        walk(&if at.is_empty() { name.clone() } else { format!("{at}.{name}") }, value, paths);
    }
}
