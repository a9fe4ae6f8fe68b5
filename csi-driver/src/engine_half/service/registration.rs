// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `pluginregistration.Registration`: how kubelet learns of the plugin, without a registrar beside it.

use std::path::PathBuf;

use evanesce_proto::kubelet::{PLUGIN_TYPE, PLUGIN_VERSION};
use evanesce_proto::registration::registration_server::Registration;
use evanesce_proto::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use tokio::sync::{mpsc, watch};
use tonic::{Request, Response, Status};
use tracing::{error, info};

/// Answers kubelet's plugin watcher.
pub struct RegistrationService {
    /// The CSI driver name.
    pub driver_name: String,
    /// The CSI socket as kubelet sees it.
    pub endpoint: PathBuf,
    /// Hears that kubelet knows the driver.
    pub registered: watch::Sender<bool>,
    /// Hears that kubelet refused; the process then ends with an error and its back-off spaces the tries.
    pub refused: mpsc::Sender<String>,
}

#[tonic::async_trait]
impl Registration for RegistrationService {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: PLUGIN_TYPE.to_owned(),
            name: self.driver_name.clone(),
            endpoint: self.endpoint.to_string_lossy().into_owned(),
            supported_versions: vec![PLUGIN_VERSION.to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let RegistrationStatus { plugin_registered, error } = request.into_inner();
        if plugin_registered {
            info!(driver = self.driver_name, "kubelet registered the driver");
            self.registered.send_replace(true);
        } else {
            error!(driver = self.driver_name, error, "kubelet refused the driver");
            // The receiver only goes when the process does.
            let _ = self.refused.try_send(error);
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
