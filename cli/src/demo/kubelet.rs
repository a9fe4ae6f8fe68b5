// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Kubelet, as far as the plugin can see: the same messages over the same sockets.

use std::path::Path;

use anyhow::Context as _;
use evanesce_proto::csi::node_client::NodeClient;
use evanesce_proto::kubelet::{CALL_TIMEOUT, Pod, Publish};
use evanesce_proto::registration::registration_client::RegistrationClient;
use evanesce_proto::registration::{InfoRequest, RegistrationStatus};
use tonic::Request;

use super::backend;
use super::plugin::Plugin;

/// One pod with one volume.
pub(crate) struct Kubelet {
    publish: Publish,
}

impl Kubelet {
    /// The pod's folders are below `folder`; its files belong to `group` if there is one.
    pub(crate) fn new(folder: &Path, group: Option<u32>) -> Self {
        let pod = Pod {
            name: "web-0".into(),
            namespace: backend::NAMESPACE.into(),
            uid: "7f3e1c5a-8a4e-4c7b-9d7e-5b0a6f1e2d3c".into(),
            service_account: "app".into(),
        };
        let publish = Publish::new(&folder.join("pods"), pod, "secrets").attribute("secretVolume", backend::CLASS);
        Self {
            publish: match group {
                Some(group) => publish.mount_group(group),
                None => publish,
            },
        }
    }

    /// Where the volume is.
    pub(crate) fn target(&self) -> &Path {
        self.publish.target_path()
    }

    /// What kubelet's plugin watcher does when it sees the registration socket.
    pub(crate) async fn register(&self, plugin: &Plugin) -> anyhow::Result<()> {
        let mut client = RegistrationClient::new(plugin.connect(&plugin.registration_socket()).await?);
        let info = client.get_info(InfoRequest {}).await?.into_inner();
        anyhow::ensure!(
            plugin.csi_socket() == Path::new(&info.endpoint),
            "the plugin registers another socket: {}",
            info.endpoint
        );
        client.notify_registration_status(RegistrationStatus { plugin_registered: true, error: String::new() }).await?;
        Ok(())
    }

    /// Publishes the volume, for the first time or again; a connection for each call, as kubelet has it.
    pub(crate) async fn publish(&self, plugin: &Plugin) -> anyhow::Result<()> {
        // All but the last folder is kubelet's to make.
        let parent = self.target().parent().context("a target has a parent")?;
        std::fs::create_dir_all(parent).with_context(|| format!("{}", parent.display()))?;
        let mut client = NodeClient::new(plugin.connect(&plugin.csi_socket()).await?);
        let mut request = Request::new(self.publish.request());
        request.set_timeout(CALL_TIMEOUT);
        client.node_publish_volume(request).await.map_err(told)?;
        Ok(())
    }

    /// Takes the volume from its pod.
    pub(crate) async fn unpublish(&self, plugin: &Plugin) -> anyhow::Result<()> {
        let mut client = NodeClient::new(plugin.connect(&plugin.csi_socket()).await?);
        client.node_unpublish_volume(self.publish.unpublish()).await.map_err(told)?;
        Ok(())
    }
}

/// What kubelet would write into the pod's event.
fn told(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{:?}: {}", status.code(), status.message())
}
