// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `csi.v1.Identity` (CSI 1.13, "Identity Service RPC").

use evanesce_proto::csi::identity_server::Identity;
use evanesce_proto::csi::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest, GetPluginInfoResponse,
    ProbeRequest, ProbeResponse,
};
use evanesce_runtime::ready::Readiness;
use tonic::{Request, Response, Status};

/// Who this plugin is.
pub struct IdentityService {
    /// The CSI driver name.
    pub driver_name: String,
    /// What it still waits for.
    pub readiness: Readiness,
}

#[tonic::async_trait]
impl Identity for IdentityService {
    /// Name and version.
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: self.driver_name.clone(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            manifest: Default::default(),
        }))
    }

    /// None: the plugin has no controller, and an empty list is what the specification has for that.
    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        Ok(Response::new(GetPluginCapabilitiesResponse::default()))
    }

    /// An answer at all is what liveness asks for; `ready` is false while the plugin starts.
    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        Ok(Response::new(ProbeResponse { ready: Some(self.readiness.is_ready()) }))
    }
}
