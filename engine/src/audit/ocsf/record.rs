// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The OCSF 1.8.0 objects that our lines use, as types. Absent fields are left out, never written as null.
//!
//! Source of names, types and numbers: the schema's own files, of which `tests/ocsf-1.8.0` has a copy that every kind of
//! line is checked against.

use std::borrow::Cow;
use std::net::IpAddr;

use serde::Serialize;

/// Base Event with the class's own part. The attributes `actor` and `device` are the class's or the `host` profile's.
#[derive(Serialize)]
pub(super) struct Record<'a> {
    pub(super) time: u64,
    pub(super) class_uid: u32,
    pub(super) class_name: &'static str,
    pub(super) category_uid: u32,
    pub(super) activity_id: u32,
    pub(super) activity_name: &'static str,
    pub(super) type_uid: u32,
    pub(super) severity_id: u8,
    pub(super) severity: &'static str,
    pub(super) status_id: u8,
    pub(super) status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status_detail: Option<Cow<'a, str>>,
    pub(super) message: &'static str,
    pub(super) metadata: Metadata<'a>,
    pub(super) actor: Actor<'a>,
    pub(super) device: Device<'a>,
    #[serde(flatten)]
    pub(super) body: Body<'a>,
    #[serde(skip_serializing_if = "Unmapped::is_empty")]
    pub(super) unmapped: Unmapped<'a>,
}

/// What each class adds.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Body<'a> {
    /// 6003.
    ApiActivity(ApiActivity<'a>),
    /// 3002.
    Authentication(Authentication<'a>),
    /// 3004.
    EntityManagement(EntityManagement<'a>),
    /// 1008.
    EventLogActivity(EventLogActivity<'a>),
    /// 1001.
    FileSystemActivity(FileSystemActivity<'a>),
}

#[derive(Serialize)]
pub(super) struct ApiActivity<'a> {
    pub(super) api: Api<'a>,
    pub(super) src_endpoint: Endpoint<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dst_endpoint: Option<Endpoint<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) resources: Vec<Resource<'a>>,
    #[serde(flatten)]
    pub(super) control: Option<SecurityControl>,
}

/// The `security_control` profile, as far as we have something to say.
#[derive(Serialize)]
pub(super) struct SecurityControl {
    pub(super) action_id: u8,
    pub(super) action: &'static str,
    pub(super) disposition_id: u8,
    pub(super) disposition: &'static str,
}

#[derive(Serialize)]
pub(super) struct Authentication<'a> {
    pub(super) user: User<'a>,
    pub(super) auth_protocol_id: u8,
    pub(super) auth_protocol: &'a str,
    pub(super) service: Service<'a>,
    pub(super) is_remote: bool,
    pub(super) src_endpoint: Endpoint<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dst_endpoint: Option<Endpoint<'a>>,
}

#[derive(Serialize)]
pub(super) struct EntityManagement<'a> {
    pub(super) entity: Entity<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) entity_result: Option<Entity<'a>>,
}

#[derive(Serialize)]
pub(super) struct EventLogActivity<'a> {
    pub(super) log_name: &'a str,
    pub(super) log_type_id: u8,
    pub(super) log_type: &'static str,
}

#[derive(Serialize)]
pub(super) struct FileSystemActivity<'a> {
    pub(super) file: File<'a>,
}

#[derive(Serialize)]
pub(super) struct Metadata<'a> {
    pub(super) version: &'static str,
    pub(super) uid: String,
    pub(super) sequence: u64,
    pub(super) event_code: &'static str,
    pub(super) log_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) correlation_uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) profiles: Vec<&'static str>,
    pub(super) product: Product<'a>,
}

#[derive(Serialize)]
pub(super) struct Product<'a> {
    pub(super) name: &'static str,
    pub(super) vendor_name: &'static str,
    pub(super) version: &'a str,
    pub(super) feature: Feature<'a>,
}

#[derive(Serialize)]
pub(super) struct Feature<'a> {
    pub(super) name: &'a str,
}

/// Our process, and the user it acts for.
#[derive(Serialize)]
pub(super) struct Actor<'a> {
    pub(super) app_name: &'a str,
    pub(super) process: Process<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<User<'a>>,
}

#[derive(Serialize)]
pub(super) struct Process<'a> {
    pub(super) name: &'a str,
    pub(super) pid: u32,
}

#[derive(Serialize)]
pub(super) struct User<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) type_id: u8,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
}

#[derive(Serialize)]
pub(super) struct Device<'a> {
    pub(super) type_id: u8,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) hostname: &'a str,
}

#[derive(Serialize)]
pub(super) struct Api<'a> {
    pub(super) operation: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service: Option<Service<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request: Option<Request<'a>>,
}

#[derive(Serialize)]
pub(super) struct Service<'a> {
    pub(super) name: &'a str,
}

#[derive(Serialize)]
pub(super) struct Request<'a> {
    pub(super) uid: &'a str,
}

/// A network endpoint: a name or an address, and a port.
#[derive(Serialize)]
pub(super) struct Endpoint<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hostname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<u16>,
}

#[derive(Serialize)]
pub(super) struct Resource<'a> {
    pub(super) uid: String,
    pub(super) name: &'a str,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct File<'a> {
    pub(super) name: &'a str,
    pub(super) path: &'a str,
    pub(super) type_id: u8,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
}

#[derive(Serialize)]
pub(super) struct Entity<'a> {
    pub(super) name: &'a str,
    pub(super) uid: &'a str,
    pub(super) type_id: u8,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<EntityData<'a>>,
}

#[derive(Serialize)]
pub(super) struct EntityData<'a> {
    pub(super) secrets: Vec<Resource<'a>>,
}

/// What OCSF has no attribute for.
#[derive(Default, Serialize)]
pub(super) struct Unmapped<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) workload: Option<Pod<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) volume_class: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) purpose: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) identity: Option<Identity<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request_uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ttl_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lease_group: Option<LeaseGroup<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) files: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secrets: Option<Vec<Resource<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mount_options: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_stale: Option<MaxStale>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) age_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gap: Option<Gap>,
}

impl Unmapped<'_> {
    fn is_empty(&self) -> bool {
        let Self {
            workload,
            volume_class,
            purpose,
            identity,
            answer,
            request_uid,
            ttl_seconds,
            lease_group,
            files,
            secrets,
            mount_options,
            max_stale,
            age_seconds,
            gap,
        } = self;
        workload.is_none()
            && volume_class.is_none()
            && purpose.is_none()
            && identity.is_none()
            && answer.is_none()
            && request_uid.is_none()
            && ttl_seconds.is_none()
            && lease_group.is_none()
            && files.is_none()
            && secrets.is_none()
            && mount_options.is_none()
            && max_stale.is_none()
            && age_seconds.is_none()
            && gap.is_none()
    }
}

/// A login and what came with it.
#[derive(Serialize)]
pub(super) struct LeaseGroup<'a> {
    pub(super) uid: &'a str,
    pub(super) leases: usize,
    pub(super) cause: &'static str,
}

/// The pod. OCSF has no such object, and its `container` wants a container's name or uid, which nobody knows while the
/// pod waits for its volumes.
#[derive(Serialize)]
pub(super) struct Pod<'a> {
    pub(super) namespace: &'a str,
    pub(super) service_account: &'a str,
    pub(super) pod: &'a str,
    pub(super) pod_uid: &'a str,
}

/// Whom the backend took the workload for.
#[derive(Serialize)]
pub(super) struct Identity<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) mount: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) role: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) audience: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) caller: Option<String>,
}

/// What a class says of files that are too old.
#[derive(Serialize)]
pub(super) struct MaxStale {
    pub(super) seconds: u64,
    pub(super) then: &'static str,
}

#[derive(Serialize)]
pub(super) struct Gap {
    pub(super) lost: u64,
    pub(super) first_sequence: u64,
    pub(super) last_sequence: u64,
    pub(super) cause: &'static str,
}
