// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The plugin's own identity, with one capability more.

use evanesce_proto::csi::identity_client::IdentityClient;
use evanesce_proto::csi::plugin_capability::{self, Service, service};
use evanesce_proto::csi::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest, GetPluginInfoResponse,
    PluginCapability, ProbeRequest, ProbeResponse, identity_server,
};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

pub(crate) struct Identity {
    plugin: IdentityClient<Channel>,
}

impl Identity {
    pub(crate) fn new(plugin: Channel) -> Self {
        Self { plugin: IdentityClient::new(plugin) }
    }
}

#[tonic::async_trait]
impl identity_server::Identity for Identity {
    async fn get_plugin_info(
        &self,
        request: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        self.plugin.clone().get_plugin_info(request).await
    }

    async fn get_plugin_capabilities(
        &self,
        request: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let mut answer = self.plugin.clone().get_plugin_capabilities(request).await?;
        let controller = Service { r#type: service::Type::ControllerService.into() };
        answer
            .get_mut()
            .capabilities
            .push(PluginCapability { r#type: Some(plugin_capability::Type::Service(controller)) });
        Ok(answer)
    }

    async fn probe(&self, request: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        self.plugin.clone().probe(request).await
    }
}
