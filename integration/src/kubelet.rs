// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A kubelet stand-in: speaks to the plugin as kubelet does, over the real sockets.
//!
//! What it does faithfully, after `pkg/volume/csi` and `pkg/kubelet/pluginmanager` of Kubernetes: a dial for every
//! call, with `localhost` as the authority for CSI and the percent-encoded socket path for registration; two minutes
//! for every call; the directories around a target, which are kubelet's own; and what it does to them when a publish
//! fails for good, in the way of kubelets before 1.36, which take away even what a running pod uses
//! (kubernetes#121271).
//!
//! It keeps no state: the test says when to publish again, as kubelet's sync loop would.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use evanesce_proto::csi::identity_client::IdentityClient;
use evanesce_proto::csi::node_client::NodeClient;
use evanesce_proto::csi::{
    GetPluginInfoRequest, GetPluginInfoResponse, NodeGetInfoRequest, NodeGetInfoResponse, NodeGetVolumeStatsRequest,
    NodeGetVolumeStatsResponse, NodePublishVolumeRequest, NodeUnpublishVolumeRequest,
};
use evanesce_proto::kubelet::{CALL_TIMEOUT, PLUGIN_TYPE, PLUGIN_VERSION, Publish};
use evanesce_proto::raw::Raw;
use evanesce_proto::registration::registration_client::RegistrationClient;
use evanesce_proto::registration::{InfoRequest, RegistrationStatus};
use rustix::mount::UnmountFlags;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::mounts;

mod dial;

/// Kubelet's note about a volume, beside the target.
const VOLUME_DATA: &str = "vol_data.json";

/// Whether kubelet gives up on this code, and tidies; the others leave everything in place for the next try
/// (`isFinalError`).
#[must_use]
pub fn is_final(code: Code) -> bool {
    !matches!(
        code,
        Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable | Code::ResourceExhausted | Code::Aborted
    )
}

/// One node's kubelet.
#[derive(Clone)]
pub struct Kubelet {
    pods: PathBuf,
    csi_socket: PathBuf,
    registration_socket: PathBuf,
}

/// What a plugin says of itself when kubelet finds it.
#[derive(Debug, PartialEq)]
pub struct Registered {
    /// The answer over the CSI socket, after the one over the registration socket agreed with it.
    pub plugin: GetPluginInfoResponse,
    /// The node as the plugin sees it.
    pub node: NodeGetInfoResponse,
}

impl Kubelet {
    /// A kubelet that keeps its pods below `pods`.
    #[must_use]
    pub fn new(pods: &Path, csi_socket: &Path, registration_socket: &Path) -> Self {
        Self {
            pods: pods.to_owned(),
            csi_socket: csi_socket.to_owned(),
            registration_socket: registration_socket.to_owned(),
        }
    }

    /// The directory with a folder per pod.
    #[must_use]
    pub fn pods(&self) -> &Path {
        &self.pods
    }

    /// A client of the Node service, freshly dialled.
    ///
    /// # Errors
    /// `Unavailable` when nobody listens.
    pub async fn node(&self) -> Result<NodeClient<Channel>, Status> {
        Ok(NodeClient::new(self.dial().await?))
    }

    /// A client of the Identity service, freshly dialled.
    ///
    /// # Errors
    /// `Unavailable` when nobody listens.
    pub async fn identity(&self) -> Result<IdentityClient<Channel>, Status> {
        Ok(IdentityClient::new(self.dial().await?))
    }

    /// A client that sends whatever bytes it is given as a message.
    ///
    /// # Errors
    /// `Unavailable` when nobody listens.
    pub async fn raw(&self) -> Result<Raw, Status> {
        Ok(Raw::new(self.dial().await?))
    }

    async fn dial(&self) -> Result<Channel, Status> {
        dial::csi(&self.csi_socket).await
    }

    /// Publishes a volume, or publishes it again: kubelet does not tell the two apart.
    ///
    /// # Errors
    /// The plugin's answer. Where kubelet would give up, the directories are gone.
    pub async fn publish(&self, volume: &Publish) -> Result<(), Status> {
        self.prepare(volume).map_err(|error| Status::internal(error.to_string()))?;
        let result = self.call_publish(volume.request()).await;
        if let Err(status) = &result
            && is_final(status.code())
        {
            // Kubelet logs it and goes on.
            let _ = give_up(volume.target_path());
        }
        result
    }

    /// The call alone, without anything around it.
    ///
    /// # Errors
    /// The plugin's answer.
    pub async fn call_publish(&self, request: NodePublishVolumeRequest) -> Result<(), Status> {
        self.node().await?.node_publish_volume(patient(request)).await.map(drop).map_err(cut_off)
    }

    /// Takes a volume away, as kubelet does when its pod is gone.
    ///
    /// # Errors
    /// The plugin's answer.
    pub async fn unpublish(&self, volume: &Publish) -> Result<(), Status> {
        self.call_unpublish(volume.unpublish()).await?;
        // The target is the plugin's to remove. Kubelet would help, and so hide that it was left; this one does not.
        let _ = remove_note(volume.target_path());
        Ok(())
    }

    /// The call alone, without anything around it.
    ///
    /// # Errors
    /// The plugin's answer.
    pub async fn call_unpublish(&self, request: NodeUnpublishVolumeRequest) -> Result<(), Status> {
        self.node().await?.node_unpublish_volume(patient(request)).await.map(drop).map_err(cut_off)
    }

    /// Asks how full a volume is, as kubelet does once a minute.
    ///
    /// # Errors
    /// The plugin's answer.
    pub async fn stats(&self, volume: &Publish) -> Result<NodeGetVolumeStatsResponse, Status> {
        let request = NodeGetVolumeStatsRequest {
            volume_id: volume.volume_id().to_owned(),
            volume_path: volume.target_path().to_string_lossy().into_owned(),
            ..NodeGetVolumeStatsRequest::default()
        };
        self.node().await?.node_get_volume_stats(patient(request)).await.map(tonic::Response::into_inner)
    }

    /// What kubelet does when its watcher finds the registration socket: asks who is there, dials the CSI socket that
    /// it is told, compares, and says that the plugin is registered.
    ///
    /// # Errors
    /// When one of the steps fails, or the plugin is not one that kubelet would take.
    pub async fn register(&self) -> Result<Registered> {
        let mut registration = RegistrationClient::new(dial::registration(&self.registration_socket).await?);
        let info = registration.get_info(patient(InfoRequest {})).await.context("GetInfo")?.into_inner();
        ensure!(info.r#type == PLUGIN_TYPE, "kubelet knows no plugin of type {:?}", info.r#type);
        ensure!(
            info.supported_versions.iter().any(|version| version == PLUGIN_VERSION),
            "kubelet wants {PLUGIN_VERSION}, not {:?}",
            info.supported_versions
        );
        let channel = dial::csi(Path::new(&info.endpoint)).await?;
        let plugin = IdentityClient::new(channel.clone())
            .get_plugin_info(patient(GetPluginInfoRequest {}))
            .await
            .context("GetPluginInfo")?
            .into_inner();
        ensure!(plugin.name == info.name, "{:?} registers as {:?}", plugin.name, info.name);
        let node =
            NodeClient::new(channel).node_get_info(patient(NodeGetInfoRequest {})).await.context("NodeGetInfo")?;
        let status = RegistrationStatus { plugin_registered: true, error: String::new() };
        registration.notify_registration_status(patient(status)).await.context("NotifyRegistrationStatus")?;
        Ok(Registered { plugin, node: node.into_inner() })
    }

    /// What kubelet does before the call: the directory above the target, with its note in it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn prepare(&self, volume: &Publish) -> io::Result<()> {
        let parent = volume.target_path().parent().ok_or(io::ErrorKind::InvalidInput)?;
        fs::create_dir_all(parent)?;
        let note = serde_json::json!({"volumeHandle": volume.volume_id(), "volumeLifecycleMode": "Ephemeral"});
        fs::write(parent.join(VOLUME_DATA), note.to_string())
    }
}

/// A connection that ended in the middle of a call is `Unavailable` to grpc-go, and so to kubelet; tonic has other codes
/// for it, and says that there was no answer by naming a source.
fn cut_off(status: Status) -> Status {
    if std::error::Error::source(&status).is_some() { Status::unavailable(status.message()) } else { status }
}

fn patient<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

/// Before 1.36: the mount goes too, whoever is using it.
fn give_up(target: &Path) -> io::Result<()> {
    for _ in mounts::at(target) {
        rustix::mount::unmount(target, UnmountFlags::DETACH)?;
    }
    remove_directories(target)
}

/// The target, kubelet's note, and the directory of the volume; never what is in them.
fn remove_directories(target: &Path) -> io::Result<()> {
    match fs::remove_dir(target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => remove_note(target),
    }
}

/// What kubelet made itself: its note, and the directory of the volume if that is empty then.
fn remove_note(target: &Path) -> io::Result<()> {
    let Some(parent) = target.parent() else { return Ok(()) };
    let _ = fs::remove_file(parent.join(VOLUME_DATA));
    fs::remove_dir(parent)
}
