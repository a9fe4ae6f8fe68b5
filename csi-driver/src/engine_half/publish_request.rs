// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `NodePublishVolumeRequest` becomes a [`PublishRequest`]: tokens leave the message first, everything else is checked
//! here and nowhere later.

use std::collections::HashMap;

use evanesce_engine::audit::Subject;
use evanesce_engine::error::Error;
use evanesce_engine::keep::Keep;
use evanesce_engine::names::{Namespace, NodeName, PodName, PodUid, ServiceAccountName, VolumeClassName};
use evanesce_engine::secret::SecretBytes;
use evanesce_engine::token::Tokens;
use evanesce_engine::workload::Workload;
use evanesce_proto::csi::NodePublishVolumeRequest;
use evanesce_proto::csi::volume_capability::access_mode::Mode;
use evanesce_proto::csi::volume_capability::{AccessMode, AccessType, MountVolume};
use evanesce_proto::kubelet;

use crate::protocol::{TargetPath, VolumeId};

/// The one attribute a pod may give: the name of a `SecretVolume` in its own namespace.
const CLASS: &str = "secretVolume";

/// A publish request that is whole and well-formed.
pub struct PublishRequest {
    /// The volume.
    pub volume: VolumeId,
    /// Where it is to appear.
    pub target: TargetPath,
    /// Whose it is, and which class it asks for.
    pub subject: Subject,
    /// What the pod proves itself by; empty where the CSIDriver asks for no tokens.
    pub tokens: Tokens,
    /// The pod's fsGroup.
    pub group: Option<u32>,
}

impl PublishRequest {
    /// Checks `request`. The tokens are moved into `keep`; `node` is this node.
    ///
    /// # Errors
    /// [`Kind::Invalid`](evanesce_engine::error::Kind::Invalid), naming the field and the cure, never a value that could
    /// be a secret.
    pub fn parse(mut request: NodePublishVolumeRequest, node: &NodeName, keep: &dyn Keep) -> Result<Self, Error> {
        let tokens = take_tokens(&mut request, keep)?;
        let volume = field("volume_id", request.volume_id)?;
        let volume = VolumeId::try_from(volume).map_err(|error| Error::invalid(format!("volume_id: {error}")))?;
        let target = field("target_path", request.target_path)?;
        let target = TargetPath::try_from(target).map_err(|error| Error::invalid(format!("target_path: {error}")))?;
        if !request.staging_target_path.is_empty() || !request.publish_context.is_empty() {
            return Err(Error::invalid(
                "staging_target_path and publish_context must be empty: this driver neither stages nor attaches",
            ));
        }
        if let Some(name) = request.secrets.keys().next() {
            return Err(Error::invalid(format!(
                "secrets holds \"{}\": this driver takes only kubelet's service-account tokens; remove nodePublishSecretRef",
                shown(name)
            )));
        }
        let Some(capability) = request.volume_capability else {
            return Err(Error::invalid("volume_capability is missing"));
        };
        // Our mount is read-only, but what a container gets of it is mounted anew by its runtime, with flags of its own:
        // runc clears MS_RDONLY unless kubelet asks for a read-only mount, which it does for exactly these volumes.
        if !request.readonly {
            return Err(Error::invalid(
                "readonly is false: write readOnly: true beside driver under spec.volumes[].csi of the pod, or its containers could write into the volume",
            ));
        }
        let group = read_capability(capability.access_type, capability.access_mode)?;
        let mut context = Context(request.volume_context);
        let workload = Workload {
            namespace: Namespace::parse(&context.pod_info(kubelet::POD_NAMESPACE)?)?,
            pod: PodName::parse(&context.pod_info(kubelet::POD_NAME)?)?,
            pod_uid: PodUid::parse(&context.pod_info(kubelet::POD_UID)?)?,
            service_account: ServiceAccountName::parse(&context.pod_info(kubelet::SERVICE_ACCOUNT_NAME)?)?,
            node: node.clone(),
        };
        if context.pod_info(kubelet::EPHEMERAL)? != "true" {
            return Err(Error::invalid(
                "this driver serves inline volumes only: write the volume under spec.volumes[].csi of the pod, without a claim",
            ));
        }
        let class = context.class()?;
        context.finish()?;
        let subject = Subject { volume: volume.to_string(), workload, class };
        Ok(Self { volume, target, subject, tokens, group })
    }
}

/// Moves kubelet's tokens out of the message: from `secrets` (KEP-5538) or, from older kubelets, `volume_context`.
fn take_tokens(request: &mut NodePublishVolumeRequest, keep: &dyn Keep) -> Result<Tokens, Error> {
    let context = request.volume_context.remove(kubelet::SERVICE_ACCOUNT_TOKENS);
    let tokens = request.secrets.remove(kubelet::SERVICE_ACCOUNT_TOKENS).or(context);
    match tokens {
        Some(json) if !json.is_empty() => Tokens::parse(&SecretBytes::new(json.into_bytes()), keep),
        _ => Ok(Tokens::default()),
    }
}

fn field(name: &'static str, value: String) -> Result<String, Error> {
    if value.is_empty() { Err(Error::invalid(format!("{name} is missing"))) } else { Ok(value) }
}

/// Checks how the volume is to be used; the fsGroup, if there is one.
fn read_capability(access: Option<AccessType>, mode: Option<AccessMode>) -> Result<Option<u32>, Error> {
    let MountVolume { fs_type, mount_flags, volume_mount_group } = match access {
        Some(AccessType::Mount(mount)) => mount,
        Some(AccessType::Block(_)) => {
            return Err(Error::invalid("volume_capability asks for a block device: secrets are files, use a mount"));
        }
        None => return Err(Error::invalid("volume_capability has no access_type")),
    };
    match mode.and_then(|mode| Mode::try_from(mode.mode).ok()) {
        Some(
            Mode::SingleNodeWriter
            | Mode::SingleNodeReaderOnly
            | Mode::SingleNodeSingleWriter
            | Mode::SingleNodeMultiWriter,
        ) => {}
        Some(Mode::MultiNodeReaderOnly | Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter) => {
            return Err(Error::invalid(
                "volume_capability asks for access from several nodes: a volume belongs to one pod",
            ));
        }
        Some(Mode::Unknown) | None => return Err(Error::invalid("volume_capability has no access_mode")),
    }
    if !fs_type.is_empty() {
        return Err(Error::invalid("fsType must not be set: the volume is always a tmpfs"));
    }
    if !mount_flags.is_empty() {
        return Err(Error::invalid("mountOptions must not be set: the volume is always ro,nosuid,nodev,noexec,noswap"));
    }
    match volume_mount_group.as_str() {
        "" => Ok(None),
        group => match group.parse() {
            // (gid_t)-1 means "leave it" to chown(2).
            Ok(gid) if gid != u32::MAX => Ok(Some(gid)),
            _ => Err(Error::invalid("volume_mount_group is not a group id")),
        },
    }
}

/// `volume_context`, emptied key by key, so that what is left is unknown.
struct Context(HashMap<String, String>);

impl Context {
    fn pod_info(&mut self, key: &'static str) -> Result<String, Error> {
        self.0.remove(key).filter(|value| !value.is_empty()).ok_or_else(|| {
            Error::invalid(format!("volume_context has no {key}: set podInfoOnMount: true in the CSIDriver object"))
        })
    }

    fn class(&mut self) -> Result<VolumeClassName, Error> {
        let name = self.0.remove(CLASS).filter(|name| !name.is_empty()).ok_or_else(|| {
            Error::invalid(format!("volumeAttributes has no {CLASS}: name the SecretVolume that the pod is to see"))
        })?;
        VolumeClassName::parse(&name).map_err(|error| error.context(format!("volumeAttributes.{CLASS}")))
    }

    /// Refuses what is left. Kubelet may add pod info of its own; a pod may choose a class and nothing more.
    fn finish(self) -> Result<(), Error> {
        let unknown = self.0.keys().filter(|key| !key.starts_with(kubelet::RESERVED_PREFIX)).min();
        match unknown {
            Some(key) => Err(Error::invalid(format!(
                "volumeAttributes has an unknown key \"{}\": the only one is {CLASS}; a pod chooses a SecretVolume and never overrides it",
                shown(key)
            ))),
            None => Ok(()),
        }
    }
}

/// The beginning of a key that somebody wrote, for a message that becomes an event of the pod.
fn shown(key: &str) -> String {
    key.chars().take(80).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use evanesce_engine::error::Kind;
    use evanesce_engine::keep::HeapKeep;
    use evanesce_proto::csi::volume_capability::BlockVolume;
    use evanesce_proto::kubelet::{Pod, Publish, Token, TokensIn};
    use std::path::Path;
    use std::time::SystemTime;

    const CANARY: &str = "CANARY-token";

    fn publish() -> Publish {
        let pod = Pod {
            name: "web-0".into(),
            namespace: "payments".into(),
            uid: "pod-1".into(),
            service_account: "app".into(),
        };
        Publish::new(Path::new("/pods"), pod, "secrets").attribute(CLASS, "db")
    }

    fn tokens() -> [Token<'static>; 1] {
        [Token { audience: "vault", token: CANARY, expires: "2130-01-01T00:00:00Z" }]
    }

    fn parse(request: NodePublishVolumeRequest) -> Result<PublishRequest, Error> {
        PublishRequest::parse(request, &NodeName::parse("node-1").unwrap(), &HeapKeep)
    }

    #[test]
    fn what_kubelet_sends_is_read_whole() {
        for place in [TokensIn::Secrets, TokensIn::VolumeContext] {
            let request = parse(publish().mount_group(2000).tokens(&tokens(), place).request()).unwrap();
            assert_eq!(request.subject.workload.user(), "system:serviceaccount:payments:app");
            assert_eq!((request.group, request.subject.class.as_str()), (Some(2000), "db"));
            let audience = evanesce_engine::token::Audience::new("vault");
            assert_eq!(request.tokens.get(&audience, SystemTime::now()).unwrap().expose(), CANARY.as_bytes());
        }
        assert!(parse(publish().request()).unwrap().tokens.is_empty());
    }

    #[test]
    fn tokens_in_secrets_win_over_those_in_the_context() {
        let mut request = publish().tokens(&tokens(), TokensIn::Secrets).request();
        request.volume_context.insert(kubelet::SERVICE_ACCOUNT_TOKENS.into(), "{}".into());
        assert!(!parse(request).unwrap().tokens.is_empty());
    }

    #[test]
    fn kubelets_own_additions_to_the_context_are_let_be() {
        let mut request = publish().request();
        request.volume_context.insert("csi.storage.k8s.io/pod.something-new".into(), "x".into());
        assert!(parse(request).is_ok());
    }

    fn set(request: &mut NodePublishVolumeRequest, key: &str, value: &str) {
        request.volume_context.insert(key.into(), value.into());
    }

    fn mounted(request: &mut NodePublishVolumeRequest) -> &mut MountVolume {
        match request.volume_capability.as_mut().and_then(|capability| capability.access_type.as_mut()) {
            Some(AccessType::Mount(mount)) => mount,
            _ => panic!("a valid request has a mount"),
        }
    }

    fn mode(request: &mut NodePublishVolumeRequest, mode: i32) {
        request.volume_capability.as_mut().unwrap().access_mode = Some(AccessMode { mode });
    }

    /// A valid request, one thing broken, what the error names.
    #[test]
    fn each_thing_that_is_wrong_is_named() {
        type Break = fn(&mut NodePublishVolumeRequest);
        let table: &[(&str, Break)] = &[
            ("volume_id is missing", |r| r.volume_id.clear()),
            ("volume_id", |r| r.volume_id = "../x".into()),
            ("volume_id", |r| r.volume_id = "x".repeat(129)),
            ("volume_id", |r| r.volume_id = "a\0b".into()),
            ("target_path is missing", |r| r.target_path.clear()),
            ("target_path", |r| r.target_path = "relative".into()),
            ("target_path", |r| r.target_path = "/pods/../etc".into()),
            ("target_path", |r| r.target_path = "/pods//x".into()),
            ("target_path", |r| r.target_path = "/pods/\0".into()),
            ("target_path", |r| r.target_path = format!("/{}", "x".repeat(4096))),
            ("staging_target_path", |r| r.staging_target_path = "/x".into()),
            ("publish_context", |r| drop(r.publish_context.insert("a".into(), "b".into()))),
            ("nodePublishSecretRef", |r| drop(r.secrets.insert("password".into(), CANARY.into()))),
            ("tokens are malformed", |r| drop(r.secrets.insert(kubelet::SERVICE_ACCOUNT_TOKENS.into(), CANARY.into()))),
            ("tokens are malformed", |r| set(r, kubelet::SERVICE_ACCOUNT_TOKENS, "[]")),
            ("volume_capability is missing", |r| r.volume_capability = None),
            ("access_type", |r| r.volume_capability.as_mut().unwrap().access_type = None),
            ("block", |r| r.volume_capability.as_mut().unwrap().access_type = Some(AccessType::Block(BlockVolume {}))),
            ("access_mode", |r| r.volume_capability.as_mut().unwrap().access_mode = None),
            ("access_mode", |r| mode(r, 0)),
            ("access_mode", |r| mode(r, 99)),
            ("several nodes", |r| mode(r, Mode::MultiNodeReaderOnly.into())),
            ("several nodes", |r| mode(r, Mode::MultiNodeMultiWriter.into())),
            ("fsType", |r| mounted(r).fs_type = "ext4".into()),
            ("mountOptions", |r| mounted(r).mount_flags.push("exec".into())),
            ("volume_mount_group", |r| mounted(r).volume_mount_group = "staff".into()),
            ("volume_mount_group", |r| mounted(r).volume_mount_group = "-1".into()),
            ("volume_mount_group", |r| mounted(r).volume_mount_group = "4294967295".into()),
            ("podInfoOnMount", |r| drop(r.volume_context.remove(kubelet::POD_NAME))),
            ("podInfoOnMount", |r| drop(r.volume_context.remove(kubelet::POD_NAMESPACE))),
            ("podInfoOnMount", |r| drop(r.volume_context.remove(kubelet::POD_UID))),
            ("podInfoOnMount", |r| drop(r.volume_context.remove(kubelet::SERVICE_ACCOUNT_NAME))),
            ("podInfoOnMount", |r| drop(r.volume_context.remove(kubelet::EPHEMERAL))),
            ("pod name", |r| set(r, kubelet::POD_NAME, "../x")),
            ("namespace", |r| set(r, kubelet::POD_NAMESPACE, "a/b")),
            ("pod uid", |r| set(r, kubelet::POD_UID, "..")),
            ("service account name", |r| set(r, kubelet::SERVICE_ACCOUNT_NAME, "A")),
            ("inline volumes", |r| set(r, kubelet::EPHEMERAL, "false")),
            ("secretVolume", |r| drop(r.volume_context.remove(CLASS))),
            ("secretVolume", |r| set(r, CLASS, "")),
            ("secretVolume", |r| set(r, CLASS, "../x")),
            ("unknown key \"secretvolume\"", |r| set(r, "secretvolume", "db")),
            ("unknown key \"\\u{1}", |r| set(r, &"\u{1}".repeat(1 << 20), "db")),
        ];
        for (index, (named, wrong)) in table.iter().enumerate() {
            let mut request = publish().request();
            wrong(&mut request);
            let error = parse(request).err().unwrap_or_else(|| panic!("row {index} ({named}) was accepted"));
            assert_eq!(error.kind(), Kind::Invalid, "row {index}: {error}");
            assert!(error.message().contains(named), "row {index} should name {named}: {error}");
            assert!(!error.message().contains("CANARY"), "row {index} shows a secret: {error}");
            assert!(error.message().len() < 1024, "row {index} is no event: {} bytes", error.message().len());
        }
    }
}
