// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A controller whose volumes are inline volumes of one pod.
//!
//! Id and context of a volume follow from its name as kubelet would compute them, so creating one again gives the same
//! without anything being kept, and deleting one has nothing to do.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use evanesce_proto::csi::controller_service_capability::{self, Rpc, rpc};
use evanesce_proto::csi::validate_volume_capabilities_response::Confirmed;
use evanesce_proto::csi::{
    self, ControllerGetCapabilitiesRequest, ControllerGetCapabilitiesResponse, ControllerServiceCapability,
    CreateVolumeRequest, CreateVolumeResponse, DeleteVolumeRequest, DeleteVolumeResponse,
    ValidateVolumeCapabilitiesRequest, ValidateVolumeCapabilitiesResponse, Volume, controller_server,
};
use evanesce_proto::kubelet::{Pod, Publish};
use tonic::{Request, Response, Status};

pub(crate) struct Controller {
    pods_dir: PathBuf,
    pod_uid: String,
    secret_volume: String,
}

impl Controller {
    /// Volumes of the pod with that uid, which show the `SecretVolume` of that name.
    pub(crate) fn new(pods_dir: PathBuf, pod_uid: String, secret_volume: String) -> Self {
        Self { pods_dir, pod_uid, secret_volume }
    }

    fn volume(&self, name: &str) -> Volume {
        let pod = Pod {
            name: "sanity".into(),
            namespace: "sanity".into(),
            uid: self.pod_uid.clone(),
            service_account: "sanity".into(),
        };
        let publish = Publish::new(&self.pods_dir, pod, name).attribute("secretVolume", &self.secret_volume);
        let request = publish.request();
        Volume { volume_id: request.volume_id, volume_context: request.volume_context, ..Volume::default() }
    }
}

/// Methods that a controller need not have: csi-sanity asks for the capabilities first.
macro_rules! absent {
    ($($method:ident($request:ident) -> $response:ident,)+) => {$(
        // An async method as `async_trait` writes it, which does not look into macros.
        fn $method<'a, 'call>(
            &'a self,
            _: Request<csi::$request>,
        ) -> Pin<Box<dyn Future<Output = Result<Response<csi::$response>, Status>> + Send + 'call>>
        where
            'a: 'call,
            Self: 'call,
        {
            Box::pin(async { Err(Status::unimplemented(stringify!($method))) })
        }
    )+};
}

#[tonic::async_trait]
impl controller_server::Controller for Controller {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let request = request.into_inner();
        if request.name.is_empty() || request.volume_capabilities.is_empty() {
            return Err(Status::invalid_argument("a volume needs a name and a capability"));
        }
        Ok(Response::new(CreateVolumeResponse { volume: Some(self.volume(&request.name)) }))
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        if request.get_ref().volume_id.is_empty() {
            return Err(Status::invalid_argument("which volume?"));
        }
        Ok(Response::new(DeleteVolumeResponse {}))
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        let request = request.into_inner();
        let confirmed = Confirmed { volume_capabilities: request.volume_capabilities, ..Confirmed::default() };
        Ok(Response::new(ValidateVolumeCapabilitiesResponse { confirmed: Some(confirmed), message: String::new() }))
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        let create = Rpc { r#type: rpc::Type::CreateDeleteVolume.into() };
        let create = ControllerServiceCapability { r#type: Some(controller_service_capability::Type::Rpc(create)) };
        Ok(Response::new(ControllerGetCapabilitiesResponse { capabilities: vec![create] }))
    }

    absent! {
        controller_expand_volume(ControllerExpandVolumeRequest) -> ControllerExpandVolumeResponse,
        controller_get_volume_health(ControllerGetVolumeHealthRequest) -> ControllerGetVolumeHealthResponse,
        controller_list_volume_health(ControllerListVolumeHealthRequest) -> ControllerListVolumeHealthResponse,
        controller_get_volume(ControllerGetVolumeRequest) -> ControllerGetVolumeResponse,
        controller_modify_volume(ControllerModifyVolumeRequest) -> ControllerModifyVolumeResponse,
        controller_publish_volume(ControllerPublishVolumeRequest) -> ControllerPublishVolumeResponse,
        controller_unpublish_volume(ControllerUnpublishVolumeRequest) -> ControllerUnpublishVolumeResponse,
        create_snapshot(CreateSnapshotRequest) -> CreateSnapshotResponse,
        delete_snapshot(DeleteSnapshotRequest) -> DeleteSnapshotResponse,
        get_capacity(GetCapacityRequest) -> GetCapacityResponse,
        get_snapshot(GetSnapshotRequest) -> GetSnapshotResponse,
        list_snapshots(ListSnapshotsRequest) -> ListSnapshotsResponse,
        list_volumes(ListVolumesRequest) -> ListVolumesResponse,
    }
}
