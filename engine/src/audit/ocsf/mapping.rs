// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Which OCSF class an event becomes, and why.
//!
//! | event | class | activity | because |
//! | --- | --- | --- | --- |
//! | login | Authentication 3002 | 1 Logon | a service account proves itself to a backend |
//! | revoke | Authentication 3002 | 2 Logoff | a login ends, and every lease that came with it |
//! | fetch | API Activity 6003 | 2 Read | one call to a remote service, what CloudTrail's reads become too; or the answer to one that another volume made (`unmapped.answer`) |
//! | leases_lost | API Activity 6003 | 4 Delete | the calls that would have ended logins, which nobody can make any more |
//! | mount, unmount | File System Activity 1001 | 12, 13 | the activities carry these very names |
//! | refresh | Entity Management 3004 | 3 Update | a managed thing, the volume, with what it was and what it is |
//! | too_stale, fresh_again | Entity Management 3004 | 12 Suspend, 13 Resume | the volume is taken out of trust, and back into it |
//! | offline | API Activity 6003 | 2 Read | the reads that were not made: what is shown are remembered answers |
//! | refused, failed, cancelled | API Activity 6003 | 2 Read | the workload's wish to read secrets, which ended without them |
//! | audit_start, audit_stop | Event Log Activity 1008 | 6, 7 | the log's own life |
//! | audit_gap | Event Log Activity 1008 | 99 Other | no activity of the class says that lines are missing |
//!
//! A refused delivery is not a File System Activity: nothing was mounted and often no target is known yet, while that
//! class demands a file. It is not an Authentication either: most refusals are policy's, and the login has its own event.
//! It carries the `security_control` profile (Denied, Blocked), by which a SIEM finds what was denied.
//!
//! Severity: a success is Informational. A refusal is Medium, for somebody asked for what they may not have; a request
//! that is merely wrong is Low. A failed first delivery is Medium, for a pod waits; a failed refresh is Low, for the pod
//! keeps what it has; a gap in the log is High.

use std::net::IpAddr;
use std::time::Duration;

use super::record::{
    Actor, Api, ApiActivity, Authentication, Body, Device, Endpoint, Entity, EntityData, EntityManagement,
    EventLogActivity, Feature, File, FileSystemActivity, Gap, Identity, LeaseGroup, MaxStale, Metadata, Pod, Process,
    Product, Record, Request, Resource, SecurityControl, Service, Unmapped, User,
};
use super::{Context, Entry, GapCause, LogEvent, SCHEMA_VERSION, Stamp, cut, epoch_millis, name_of_backend};
use crate::audit::{Event, Outcome, Purpose, Shown, Subject};
use crate::backend;
use crate::error::Kind;
use crate::spec::volume::OnStale;

/// `severity_id` with its caption.
type Severity = (u8, &'static str);
const INFORMATIONAL: Severity = (1, "Informational");
const LOW: Severity = (2, "Low");
const MEDIUM: Severity = (3, "Medium");
const HIGH: Severity = (4, "High");

/// `status_id` with its caption.
type Status = (u8, &'static str);
const SUCCESS: Status = (1, "Success");
const FAILURE: Status = (2, "Failure");

/// Class and activity: uid, class name, activity id, activity name.
type Type = (u32, &'static str, u32, &'static str);
const FILE_MOUNT: Type = (1001, "File System Activity", 12, "Mount");
const FILE_UNMOUNT: Type = (1001, "File System Activity", 13, "Unmount");
const LOG_START: Type = (1008, "Event Log Activity", 6, "Start");
const LOG_STOP: Type = (1008, "Event Log Activity", 7, "Stop");
const LOG_OTHER: Type = (1008, "Event Log Activity", 99, "Gap");
const AUTHENTICATION_LOGON: Type = (3002, "Authentication", 1, "Logon");
const AUTHENTICATION_LOGOFF: Type = (3002, "Authentication", 2, "Logoff");
const ENTITY_UPDATE: Type = (3004, "Entity Management", 3, "Update");
const ENTITY_SUSPEND: Type = (3004, "Entity Management", 12, "Suspend");
const ENTITY_RESUME: Type = (3004, "Entity Management", 13, "Resume");
const API_DELETE: Type = (6003, "API Activity", 4, "Delete");
const API_READ: Type = (6003, "API Activity", 2, "Read");

/// What a volume event's line says.
pub(super) fn event<'a>(context: &'a Context, stamp: &Stamp, event: &'a Event) -> Record<'a> {
    let line = Line { context, stamp, code: event.code() };
    match event {
        Event::Cancelled { subject, purpose } => {
            let body = line.deliver(None);
            let mut record = line.record(API_READ, LOW, "delivery dropped before its end", Some(subject), body);
            (record.status_id, record.status) = FAILURE;
            record.status_code = Some(Kind::Cancelled.as_str());
            record.unmapped.purpose = Some(purpose.as_str());
            record
        }
        Event::Failed { subject, purpose, kind, message } => {
            let severity = if *purpose == Purpose::First { MEDIUM } else { LOW };
            let mut record = line.record(API_READ, severity, "delivery failed", Some(subject), line.deliver(None));
            (record.status_id, record.status) = FAILURE;
            record.status_code = Some(kind.as_str());
            record.status_detail = Some(cut(message).into());
            record.unmapped.purpose = Some(purpose.as_str());
            record
        }
        Event::Fetched { subject, identity, secret, source, request_id, ttl, endpoint, outcome } => {
            let body = Body::ApiActivity(ApiActivity {
                api: Api {
                    operation: "fetch",
                    service: Some(Service { name: identity.backend.as_str() }),
                    request: request_id.as_deref().and_then(name_of_backend).map(|uid| Request { uid }),
                },
                src_endpoint: line.node(),
                dst_endpoint: endpoint.as_ref().map(remote),
                resources: vec![resource(secret)],
                control: None,
            });
            let message = said(outcome, "secret read", "secret not read");
            let mut record = line.record(API_READ, INFORMATIONAL, message, Some(subject), body);
            record.close(outcome);
            record.unmapped.identity = Some(taken_for(identity));
            record.unmapped.answer = Some(source.as_str());
            record.unmapped.ttl_seconds = ttl.as_ref().map(Duration::as_secs);
            record
        }
        Event::FreshAgain { subject, generation } => {
            let body = whole(subject, *generation);
            line.record(ENTITY_RESUME, INFORMATIONAL, "files are not too old any more", Some(subject), body)
        }
        Event::LeasesLost { groups } => {
            let body = line.call("revoke", None);
            let mut record =
                line.record(API_DELETE, LOW, "leases of before the last boot end by themselves", None, body);
            (record.status_id, record.status) = FAILURE;
            record.status_code = Some(Kind::Internal.as_str());
            let detail =
                format!("{groups} logins were written down before the node's last boot and cannot be ended any more");
            record.status_detail = Some(detail.into());
            record
        }
        Event::LoggedIn { subject, identity, login, outcome } => {
            let body = Body::Authentication(Authentication {
                user: user(subject),
                // 99 Other: the numbered protocols name none of the methods that a machine logs in by.
                auth_protocol_id: if login.method.is_empty() { 0 } else { 99 },
                auth_protocol: if login.method.is_empty() { "Unknown" } else { login.method },
                service: Service { name: identity.backend.as_str() },
                is_remote: login.endpoint.is_some(),
                src_endpoint: line.node(),
                dst_endpoint: login.endpoint.as_ref().map(remote),
            });
            let message = said(outcome, "logged in at the backend", "not logged in at the backend");
            let mut record = line.record(AUTHENTICATION_LOGON, INFORMATIONAL, message, Some(subject), body);
            record.close(outcome);
            record.unmapped.identity = Some(taken_for(identity));
            record.unmapped.request_uid = login.request_id.as_deref().and_then(name_of_backend);
            record.unmapped.ttl_seconds = login.ttl.as_ref().map(Duration::as_secs);
            record
        }
        Event::Mounted { subject, target, files, secrets, options } => {
            let mut record =
                line.record(FILE_MOUNT, INFORMATIONAL, "volume visible in its pod", Some(subject), folder(target));
            record.unmapped.files = Some(files);
            record.unmapped.secrets = Some(secrets.iter().map(resource).collect());
            record.unmapped.mount_options = Some(options);
            record
        }
        Event::Offline { subject, age, message } => {
            let what = "volume filled with remembered answers";
            let mut record = line.record(API_READ, INFORMATIONAL, what, Some(subject), line.deliver(None));
            record.status_detail = Some(cut(message).into());
            record.unmapped.age_seconds = Some(age.as_secs());
            record
        }
        Event::Refreshed { subject, generation, before, after } => {
            let body = Body::EntityManagement(EntityManagement {
                entity: entity(subject, None, before),
                entity_result: Some(entity(subject, Some(*generation), after)),
            });
            line.record(ENTITY_UPDATE, INFORMATIONAL, "new generation in place", Some(subject), body)
        }
        Event::Refused { subject, purpose: _, volume, kind, message } => {
            let severity = if *kind == Kind::Invalid { LOW } else { MEDIUM };
            // Action 2 Denied, disposition 2 Blocked.
            let denied = SecurityControl { action_id: 2, action: "Denied", disposition_id: 2, disposition: "Blocked" };
            let body = line.deliver(Some(denied));
            let mut record = line.record(API_READ, severity, "delivery refused", subject.as_ref(), body);
            record.metadata.profiles.push("security_control");
            record.metadata.correlation_uid = record.metadata.correlation_uid.or(volume.as_deref());
            (record.status_id, record.status) = FAILURE;
            record.status_code = Some(kind.as_str());
            record.status_detail = Some(cut(message).into());
            record
        }
        Event::Revoked { subject, identity, group, leases, cause, outcome } => {
            let body = Body::Authentication(Authentication {
                user: user(subject),
                auth_protocol_id: 0,
                auth_protocol: "Unknown",
                service: Service { name: identity.backend.as_str() },
                is_remote: true,
                src_endpoint: line.node(),
                dst_endpoint: None,
            });
            let message = said(outcome, "login and its leases ended", "login and its leases not ended");
            let mut record = line.record(AUTHENTICATION_LOGOFF, INFORMATIONAL, message, Some(subject), body);
            record.close(outcome);
            record.unmapped.identity = Some(taken_for(identity));
            record.unmapped.lease_group = Some(LeaseGroup { uid: group, leases: *leases, cause: cause.as_str() });
            record
        }
        Event::TooStale { subject, limit, generation, kind, message } => {
            let what = match limit.then {
                OnStale::Mark => "files too old, and marked",
                OnStale::Remove => "files too old, and removed",
            };
            let mut record = line.record(ENTITY_SUSPEND, MEDIUM, what, Some(subject), whole(subject, *generation));
            (record.status_id, record.status) = FAILURE;
            record.status_code = Some(kind.as_str());
            record.status_detail = Some(cut(message).into());
            record.unmapped.max_stale = Some(MaxStale { seconds: limit.after.as_secs(), then: limit.then.as_str() });
            record
        }
        Event::Unmounted { subject, volume, target } => {
            let mut record =
                line.record(FILE_UNMOUNT, INFORMATIONAL, "volume gone from its pod", subject.as_ref(), folder(target));
            record.metadata.correlation_uid = Some(volume);
            record
        }
    }
}

/// What a line about the log itself says.
pub(super) fn log_event<'a>(context: &'a Context, stamp: &Stamp, event: LogEvent) -> Record<'a> {
    let line = Line { context, stamp, code: Entry::Log(event).code() };
    let log = || {
        Body::EventLogActivity(EventLogActivity { log_name: context.log_name, log_type_id: 2, log_type: "Application" })
    };
    match event {
        LogEvent::Gap { first, last, cause } => {
            let mut record = line.record(LOG_OTHER, HIGH, "events are missing here", None, log());
            let lost = last.saturating_sub(first).saturating_add(1);
            let (cause, why) = match cause {
                GapCause::QueueFull => ("queue_full", "they came faster than the log could be written"),
                GapCause::SinkFailed => ("sink_failed", "the log could not be written"),
            };
            (record.status_id, record.status) = FAILURE;
            record.status_code = Some(cause);
            record.status_detail = Some(format!("{lost} events were lost, numbers {first} to {last}: {why}").into());
            record.unmapped.gap = Some(Gap { lost, first_sequence: first, last_sequence: last, cause });
            record
        }
        LogEvent::Started => line.record(LOG_START, INFORMATIONAL, "audit log started", None, log()),
        LogEvent::Stopped => line.record(LOG_STOP, INFORMATIONAL, "audit log stopped", None, log()),
    }
}

/// What is the same in every line of one stamp.
struct Line<'a, 'b> {
    context: &'a Context,
    stamp: &'b Stamp,
    code: &'static str,
}

impl<'a> Line<'a, '_> {
    fn record(
        &self,
        (class_uid, class_name, activity_id, activity_name): Type,
        (severity_id, severity): Severity,
        message: &'static str,
        subject: Option<&'a Subject>,
        body: Body<'a>,
    ) -> Record<'a> {
        let Context { node, program, version, log_name, pid } = self.context;
        Record {
            time: epoch_millis(self.stamp.time),
            class_uid,
            class_name,
            category_uid: class_uid / 1000,
            activity_id,
            activity_name,
            type_uid: class_uid * 100 + activity_id,
            severity_id,
            severity,
            status_id: SUCCESS.0,
            status: SUCCESS.1,
            status_code: None,
            status_detail: None,
            message,
            metadata: Metadata {
                version: SCHEMA_VERSION,
                uid: self.stamp.uid.to_string(),
                sequence: self.stamp.sequence,
                event_code: self.code,
                log_name,
                correlation_uid: subject.map(|subject| subject.volume.as_str()),
                profiles: vec!["host"],
                product: Product {
                    name: "Evanesce",
                    vendor_name: "Evanesce",
                    version,
                    feature: Feature { name: program },
                },
            },
            actor: Actor { app_name: program, process: Process { name: program, pid: *pid }, user: subject.map(user) },
            // 1 Server: a node, of metal or not.
            device: Device { type_id: 1, kind: "Server", hostname: node.as_str() },
            body,
            unmapped: Unmapped {
                workload: subject.map(pod),
                volume_class: subject.map(|subject| subject.class.as_str()),
                ..Unmapped::default()
            },
        }
    }

    /// The wish to have a volume's secrets, whose end is not a mount.
    fn deliver(&self, control: Option<SecurityControl>) -> Body<'a> {
        self.call("deliver", control)
    }

    fn call(&self, operation: &'static str, control: Option<SecurityControl>) -> Body<'a> {
        Body::ApiActivity(ApiActivity {
            api: Api { operation, service: None, request: None },
            src_endpoint: self.node(),
            dst_endpoint: None,
            resources: Vec::new(),
            control,
        })
    }

    fn node(&self) -> Endpoint<'a> {
        Endpoint { hostname: Some(self.context.node.as_str()), ip: None, port: None }
    }
}

impl Record<'_> {
    /// Says how a step ended; a denial weighs more than a backend that is away.
    fn close(&mut self, outcome: &Outcome) {
        let Outcome::Failure(kind) = outcome else { return };
        (self.status_id, self.status) = FAILURE;
        self.status_code = Some(kind.as_str());
        (self.severity_id, self.severity) = match kind {
            Kind::Refused | Kind::Unauthenticated => MEDIUM,
            _ => LOW,
        };
    }
}

fn said(outcome: &Outcome, success: &'static str, failure: &'static str) -> &'static str {
    if *outcome == Outcome::Success { success } else { failure }
}

fn user(subject: &Subject) -> User<'_> {
    // 4 Service: a service account.
    User { name: subject.workload.user().into(), type_id: 4, kind: "Service" }
}

fn pod(subject: &Subject) -> Pod<'_> {
    let workload = &subject.workload;
    Pod {
        namespace: workload.namespace.as_str(),
        service_account: workload.service_account.as_str(),
        pod: workload.pod.as_str(),
        pod_uid: workload.pod_uid.as_str(),
    }
}

fn taken_for(identity: &backend::Identity) -> Identity<'_> {
    let backend::Identity { backend: _, mount, role, audience, caller } = identity;
    Identity { mount, role, audience, caller: caller.as_ref().map(ToString::to_string) }
}

fn resource(shown: &Shown) -> Resource<'_> {
    Resource {
        uid: format!("{}/{}", shown.backend, shown.path),
        name: &shown.path,
        kind: "secret",
        version: shown.version.as_ref().and_then(|version| name_of_backend(version.as_str())),
    }
}

fn entity<'a>(subject: &'a Subject, generation: Option<u64>, secrets: &'a [Shown]) -> Entity<'a> {
    Entity {
        name: subject.class.as_str(),
        uid: &subject.volume,
        // 99 Other: the numbered types are devices, users, groups, organizations, policies, mail and networks.
        type_id: 99,
        kind: "Secret Volume",
        version: generation.map(|generation| generation.to_string()),
        data: Some(EntityData { secrets: secrets.iter().map(resource).collect() }),
    }
}

/// A volume of which no secret is said to be anew.
fn whole(subject: &Subject, generation: u64) -> Body<'_> {
    let mut it = entity(subject, Some(generation), &[]);
    it.data = None;
    Body::EntityManagement(EntityManagement { entity: it, entity_result: None })
}

fn folder(target: &str) -> Body<'_> {
    let name = target.rsplit('/').find(|part| !part.is_empty()).unwrap_or(target);
    Body::FileSystemActivity(FileSystemActivity { file: File { name, path: target, type_id: 2, kind: "Folder" } })
}

fn remote((host, port): &(String, u16)) -> Endpoint<'_> {
    match host.parse::<IpAddr>() {
        Ok(ip) => Endpoint { hostname: None, ip: Some(ip), port: Some(*port) },
        Err(_) => Endpoint { hostname: Some(host), ip: None, port: Some(*port) },
    }
}
