// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `csi.v1.Node` (CSI 1.13, "Node Service RPC"): what kubelet calls for each volume.

use std::sync::Arc;
use std::time::Instant;

use evanesce_engine::audit::Event;
use evanesce_engine::crash_point;
use evanesce_engine::error::Error;
use evanesce_engine::keep::Keep;
use evanesce_engine::names::NodeName;
use evanesce_proto::csi::node_server::Node;
use evanesce_proto::csi::node_service_capability::{self, Rpc, rpc};
use evanesce_proto::csi::{
    NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse,
    NodeGetInfoRequest, NodeGetInfoResponse, NodeGetStorageHealthRequest, NodeGetStorageHealthResponse,
    NodeGetVolumeHealthRequest, NodeGetVolumeHealthResponse, NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse,
    NodePublishVolumeRequest, NodePublishVolumeResponse, NodeServiceCapability, NodeStageVolumeRequest,
    NodeStageVolumeResponse, NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse, NodeUnstageVolumeRequest,
    NodeUnstageVolumeResponse,
};
use evanesce_proto::kubelet;
use tonic::{Request, Response, Status};
use tracing::warn;

use crate::engine_half::plugin::Plugin;
use crate::engine_half::publish_request::PublishRequest;
use crate::engine_half::server::BroughtNoSecret;
use crate::engine_half::service::health;
use crate::engine_half::status::status;
use crate::engine_half::volume::Volume;
use crate::protocol::{TargetPath, VolumeId};

/// Answers kubelet.
pub struct NodeService {
    /// Does the work.
    pub plugin: Arc<Plugin>,
    /// This node.
    pub node: NodeName,
    /// Where tokens live between calls.
    pub keep: Arc<dyn Keep>,
}

#[tonic::async_trait]
impl Node for NodeService {
    /// "This operation MUST be idempotent"; the response is OK only when the volume is whole.
    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let begun = Instant::now();
        let request = request.into_inner();
        // Only the id: the rest of the message may hold tokens.
        let volume = request.volume_id.clone();
        let bare = request.secrets.is_empty() && !request.volume_context.contains_key(kubelet::SERVICE_ACCOUNT_TOKENS);
        let result = match PublishRequest::parse(request, &self.node, self.keep.as_ref()) {
            Ok(request) => {
                crash_point!("publish:parsed");
                self.plugin.publish(request).await
            }
            Err(error) => Err(self.refused(&volume, error)),
        };
        self.plugin.metrics.called("publish", &result, begun.elapsed());
        let mut response =
            self.answer("publish", &volume, result).map(|()| Response::new(NodePublishVolumeResponse {}))?;
        if bare {
            response.extensions_mut().insert(BroughtNoSecret);
        }
        Ok(response)
    }

    /// "If the volume is not published, the plugin MUST reply OK"; the target directory is removed.
    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let begun = Instant::now();
        let NodeUnpublishVolumeRequest { volume_id, target_path } = request.into_inner();
        let result = match (parse_volume(&volume_id), parse_target("target_path", &target_path)) {
            (Ok(volume), Ok(target)) => self.plugin.unpublish(volume, target).await,
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        self.plugin.metrics.called("unpublish", &result, begun.elapsed());
        self.answer("unpublish", &volume_id, result).map(|()| Response::new(NodeUnpublishVolumeResponse {}))
    }

    /// Bytes, inodes and the condition of CSI 1.12.
    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let NodeGetVolumeStatsRequest { volume_id, volume_path, staging_target_path: _ } = request.into_inner();
        let result = self.stats(&volume_id, &volume_path);
        self.answer("stats", &volume_id, result).map(Response::new)
    }

    /// "MAY be called for a volume that is not currently staged or published": such a one is not known here.
    async fn node_get_volume_health(
        &self,
        request: Request<NodeGetVolumeHealthRequest>,
    ) -> Result<Response<NodeGetVolumeHealthResponse>, Status> {
        let NodeGetVolumeHealthRequest { volume_id, volume_publish_path, staging_target_path: _ } =
            request.into_inner();
        let result = self.health(&volume_id, &volume_publish_path);
        self.answer("health", &volume_id, result).map(Response::new)
    }

    /// Exactly what is implemented.
    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let capability = |kind: rpc::Type| NodeServiceCapability {
            r#type: Some(node_service_capability::Type::Rpc(Rpc { r#type: kind.into() })),
        };
        // The third for kubelet, to 1.36; the fourth for whoever speaks CSI 1.13. Neither minds the other's number.
        let offered = [
            rpc::Type::VolumeMountGroup,
            rpc::Type::GetVolumeStats,
            rpc::Type::VolumeCondition,
            rpc::Type::GetVolumeHealth,
        ];
        let capabilities = offered.map(capability).into();
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
    }

    /// The node's name; volumes are made anywhere, so there is no topology.
    async fn node_get_info(&self, _: Request<NodeGetInfoRequest>) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse { node_id: self.node.to_string(), ..Default::default() }))
    }

    async fn node_stage_volume(
        &self,
        _: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        Err(not_offered("NodeStageVolume"))
    }

    async fn node_unstage_volume(
        &self,
        _: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        Err(not_offered("NodeUnstageVolume"))
    }

    async fn node_get_storage_health(
        &self,
        _: Request<NodeGetStorageHealthRequest>,
    ) -> Result<Response<NodeGetStorageHealthResponse>, Status> {
        Err(not_offered("NodeGetStorageHealth"))
    }

    async fn node_expand_volume(
        &self,
        _: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        Err(not_offered("NodeExpandVolume"))
    }
}

impl NodeService {
    /// Audits a request that is none.
    fn refused(&self, volume: &str, error: Error) -> Error {
        // An id that is not one is somebody's text: it does not go into the log.
        let volume = VolumeId::try_from(volume.to_owned()).ok().map(|volume| volume.to_string());
        let (kind, message) = (error.kind(), error.message().to_owned());
        self.plugin.auditor().record(Event::Refused { subject: None, purpose: None, volume, kind, message });
        error
    }

    fn stats(&self, volume: &str, path: &str) -> Result<NodeGetVolumeStatsResponse, Error> {
        let id = parse_volume(volume)?;
        if path.is_empty() {
            return Err(Error::invalid("volume_path is missing"));
        }
        health::stats(&*self.published(&id, path)?)
    }

    fn health(&self, volume: &str, path: &str) -> Result<NodeGetVolumeHealthResponse, Error> {
        let id = parse_volume(volume)?;
        let health = health::health(&*self.published(&id, path)?);
        Ok(NodeGetVolumeHealthResponse { volume_health: Some(health) })
    }

    /// The live volume of this id, at `path` where one is given. A path is compared and never opened, so it needs no check:
    /// where no target can be, nothing is published.
    fn published(&self, id: &VolumeId, path: &str) -> Result<Arc<Volume>, Error> {
        let here = |volume: &Arc<Volume>| path.is_empty() || volume.target.as_str() == path;
        self.plugin.volumes.get(id).filter(here).ok_or_else(|| {
            let place = if path.is_empty() { "" } else { " at this path" };
            Error::missing(format!("volume {id} is not published{place}"))
        })
    }

    /// Kubelet's answer, and the operator's line for what it does not say.
    fn answer<T>(&self, call: &'static str, volume: &str, result: Result<T, Error>) -> Result<T, Status> {
        result.map_err(|error| {
            let volume = VolumeId::try_from(volume.to_owned()).map(|volume| volume.to_string()).unwrap_or_default();
            warn!(call, volume_id = volume, kind = error.kind().as_str(), %error, detail = error.detail(), "call failed");
            status(&error)
        })
    }
}

fn parse_volume(text: &str) -> Result<VolumeId, Error> {
    if text.is_empty() {
        return Err(Error::invalid("volume_id is missing"));
    }
    VolumeId::try_from(text.to_owned()).map_err(|error| Error::invalid(format!("volume_id: {error}")))
}

fn parse_target(field: &'static str, text: &str) -> Result<TargetPath, Error> {
    if text.is_empty() {
        return Err(Error::invalid(format!("{field} is missing")));
    }
    TargetPath::try_from(text.to_owned()).map_err(|error| Error::invalid(format!("{field}: {error}")))
}

fn not_offered(call: &str) -> Status {
    Status::unimplemented(format!("{call} is not among this driver's capabilities"))
}
