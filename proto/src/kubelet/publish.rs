// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Makes publish and unpublish requests as kubelet makes them for an inline ephemeral volume.
//!
//! It speaks to nobody: the demo and the tests send what it makes.

use std::collections::HashMap;
use std::fmt;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use serde_json::{Map, json};

use super::{EPHEMERAL, POD_NAME, POD_NAMESPACE, POD_UID, SERVICE_ACCOUNT_NAME, SERVICE_ACCOUNT_TOKENS};
use crate::csi::volume_capability::access_mode::Mode;
use crate::csi::volume_capability::{AccessMode, AccessType, MountVolume};
use crate::csi::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest, VolumeCapability};

/// The pod a volume is for.
#[derive(Clone, Debug)]
pub struct Pod {
    /// `metadata.name`
    pub name: String,
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.uid`
    pub uid: String,
    /// `spec.serviceAccountName`
    pub service_account: String,
}

/// One service account token, as `TokenRequest` answers.
#[derive(Clone, Copy)]
pub struct Token<'a> {
    /// The audience it was asked for; empty for the API server's own.
    pub audience: &'a str,
    /// The token itself.
    pub token: &'a str,
    /// When it ends, RFC 3339.
    pub expires: &'a str,
}

/// Where kubelet puts the tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokensIn {
    /// `serviceAccountTokenInSecrets: true`, Kubernetes 1.35 and later.
    Secrets,
    /// Everything else.
    VolumeContext,
}

/// The requests for one inline ephemeral volume of one pod.
pub struct Publish {
    pod: Pod,
    volume_id: String,
    target_path: PathBuf,
    attributes: HashMap<String, String>,
    mount_group: Option<String>,
    read_only: bool,
    tokens: Option<(String, TokensIn)>,
}

impl Publish {
    /// A read-only volume, called `volume` in the spec of `pod`, on a kubelet that keeps its pods in `pods_dir`.
    ///
    /// The id and the path are the ones kubelet computes, so the same pod and volume always give the same.
    #[must_use]
    pub fn new(pods_dir: &Path, pod: Pod, volume: &str) -> Self {
        let target_path = pods_dir.join(&pod.uid).join("volumes/kubernetes.io~csi").join(volume).join("mount");
        Self {
            volume_id: volume_id(&pod.uid, volume),
            target_path,
            pod,
            attributes: HashMap::new(),
            mount_group: None,
            read_only: true,
            tokens: None,
        }
    }

    /// Adds one of the pod's `volumeAttributes`.
    #[must_use]
    pub fn attribute(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.insert(key.into(), value.into());
        self
    }

    /// The pod's `fsGroup`, which kubelet passes to a driver with the capability `VOLUME_MOUNT_GROUP`.
    #[must_use]
    pub fn mount_group(mut self, gid: u32) -> Self {
        self.mount_group = Some(gid.to_string());
        self
    }

    /// The volume's `readOnly`.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// The pod's tokens. A later call replaces them, as kubelet does on a republish.
    #[must_use]
    pub fn tokens(self, tokens: &[Token<'_>], place: TokensIn) -> Self {
        let by_audience: Map<_, _> = tokens
            .iter()
            .map(|each| (each.audience.to_owned(), json!({"token": each.token, "expirationTimestamp": each.expires})))
            .collect();
        self.raw_tokens(serde_json::Value::from(by_audience).to_string(), place)
    }

    /// What stands where kubelet puts the tokens, well-formed or not.
    #[must_use]
    pub fn raw_tokens(mut self, value: impl Into<String>, place: TokensIn) -> Self {
        self.tokens = Some((value.into(), place));
        self
    }

    /// `csi-` and the SHA-256 of pod uid and volume name, in hex.
    #[must_use]
    pub fn volume_id(&self) -> &str {
        &self.volume_id
    }

    /// `<pods dir>/<uid>/volumes/kubernetes.io~csi/<volume>/mount`; kubelet has made all but the last part.
    #[must_use]
    pub fn target_path(&self) -> &Path {
        &self.target_path
    }

    /// The request to publish, and to publish again.
    #[must_use]
    pub fn request(&self) -> NodePublishVolumeRequest {
        let mut volume_context = self.attributes.clone();
        // After the attributes: a pod's author cannot claim to be another pod.
        volume_context.extend(
            [
                (POD_NAME, self.pod.name.as_str()),
                (POD_NAMESPACE, &self.pod.namespace),
                (POD_UID, &self.pod.uid),
                (SERVICE_ACCOUNT_NAME, &self.pod.service_account),
                (EPHEMERAL, "true"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        let mut secrets = HashMap::new();
        if let Some((value, place)) = &self.tokens {
            let map = match place {
                TokensIn::Secrets => &mut secrets,
                TokensIn::VolumeContext => &mut volume_context,
            };
            map.insert(SERVICE_ACCOUNT_TOKENS.to_owned(), value.clone());
        }
        NodePublishVolumeRequest {
            volume_id: self.volume_id.clone(),
            target_path: self.target_string(),
            volume_capability: Some(VolumeCapability {
                access_type: Some(AccessType::Mount(MountVolume {
                    volume_mount_group: self.mount_group.clone().unwrap_or_default(),
                    ..MountVolume::default()
                })),
                // An inline volume has no access modes: kubelet takes ReadWriteOnce, which CSI calls this.
                access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
            }),
            readonly: self.read_only,
            secrets,
            volume_context,
            ..NodePublishVolumeRequest::default()
        }
    }

    /// The request to unpublish: id and path, nothing else.
    #[must_use]
    pub fn unpublish(&self) -> NodeUnpublishVolumeRequest {
        NodeUnpublishVolumeRequest { volume_id: self.volume_id.clone(), target_path: self.target_string() }
    }

    fn target_string(&self) -> String {
        self.target_path.to_string_lossy().into_owned()
    }
}

/// By way of the request, which knows what may be shown.
impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Publish").field(&self.request()).finish()
    }
}

/// `makeVolumeHandle` of `pkg/volume/csi`.
fn volume_id(pod_uid: &str, volume: &str) -> String {
    let hash = digest(&SHA256, format!("{pod_uid}{volume}").as_bytes());
    hash.as_ref().iter().fold(String::from("csi-"), |mut id, byte| {
        write!(id, "{byte:02x}").expect("a String takes every write");
        id
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "canary-token";

    fn publish() -> Publish {
        let pod = Pod {
            name: "web-0".into(),
            namespace: "payments".into(),
            uid: "0c1d2e3f-0000-4000-8000-000000000001".into(),
            service_account: "app".into(),
        };
        Publish::new(Path::new("/var/lib/kubelet/pods"), pod, "secrets")
    }

    fn token() -> [Token<'static>; 1] {
        [Token { audience: "vault", token: CANARY, expires: "2030-01-01T00:00:00Z" }]
    }

    #[test]
    fn the_id_and_the_path_are_the_ones_kubelet_computes() {
        let publish = publish();
        // printf %s 0c1d2e3f-0000-4000-8000-000000000001secrets | sha256sum
        assert_eq!(publish.volume_id(), "csi-dbd3cd86791781f95c402bbcd7c50273c9757f50cd5dea9a3e505c27b7ffab8d");
        assert_eq!(
            publish.request().target_path,
            "/var/lib/kubelet/pods/0c1d2e3f-0000-4000-8000-000000000001/volumes/kubernetes.io~csi/secrets/mount"
        );
        assert_eq!(publish.unpublish().target_path, publish.request().target_path);
    }

    #[test]
    fn a_pods_author_cannot_overwrite_what_kubelet_says_about_the_pod() {
        let request = publish().attribute(POD_NAMESPACE, "kube-system").attribute("secretVolume", "db").request();
        assert_eq!(request.volume_context[POD_NAMESPACE], "payments");
        assert_eq!(request.volume_context["secretVolume"], "db");
    }

    #[test]
    fn tokens_stand_in_one_place_only() {
        let in_secrets = publish().tokens(&token(), TokensIn::Secrets).request();
        let expected = json!({"vault": {"token": CANARY, "expirationTimestamp": "2030-01-01T00:00:00Z"}}).to_string();
        assert_eq!(in_secrets.secrets[SERVICE_ACCOUNT_TOKENS], expected);
        assert!(!in_secrets.volume_context.contains_key(SERVICE_ACCOUNT_TOKENS));

        let in_context = publish().tokens(&token(), TokensIn::VolumeContext).request();
        assert_eq!(in_context.volume_context[SERVICE_ACCOUNT_TOKENS], expected);
        assert!(in_context.secrets.is_empty());
    }

    #[test]
    fn neither_the_builder_nor_its_request_prints_a_token() {
        for place in [TokensIn::Secrets, TokensIn::VolumeContext] {
            let publish = publish().tokens(&token(), place);
            for text in [format!("{publish:?}"), format!("{publish:#?}"), format!("{:?}", publish.request())] {
                assert!(text.contains(publish.volume_id()), "{text}");
                assert!(!text.contains(CANARY), "{text}");
            }
        }
    }
}
