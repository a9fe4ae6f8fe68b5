// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What a node plugin cannot be faster than: a gRPC server that answers at once, or makes a volume's mounts and answers.
//!
//! It takes the same messages over the same kind of socket, on the same kind of runtime, in a process of its own. It asks
//! nobody, checks nothing and writes no files.

#![expect(unsafe_code, reason = "neither rustix nor libc wraps mount_setattr(2)")]

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use evanesce_integration::child::Child;
use evanesce_integration::kubelet::Kubelet;
use evanesce_integration::scratch::Scratch;
use evanesce_integration::wait;
use evanesce_proto::csi::node_server::{Node, NodeServer};
use evanesce_proto::csi::{
    NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse,
    NodeGetInfoRequest, NodeGetInfoResponse, NodeGetStorageHealthRequest, NodeGetStorageHealthResponse,
    NodeGetVolumeHealthRequest, NodeGetVolumeHealthResponse, NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse,
    NodePublishVolumeRequest, NodePublishVolumeResponse, NodeStageVolumeRequest, NodeStageVolumeResponse,
    NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse, NodeUnstageVolumeRequest, NodeUnstageVolumeResponse,
};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::site::pods_in_memory;

/// What it does before it answers.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Work {
    /// Nothing.
    Echo,
    /// The system calls that make a volume.
    Mount,
}

/// The server, running.
pub(crate) struct Limit {
    // Fields drop in this order: the process before its directory.
    _server: Child,
    /// Who calls it.
    pub kubelet: Kubelet,
    _scratch: Scratch,
}

impl Limit {
    /// Starts it in a process of its own.
    pub(crate) async fn start(work: Work) -> Result<Self> {
        let scratch = Scratch::new()?;
        let socket = scratch.path().join("csi.sock");
        let mut command = Command::new(std::env::current_exe()?);
        command.env_clear().arg("--serve").arg(if work == Work::Echo { "echo" } else { "mount" }).arg(&socket);
        let server = Child::spawn(command, &scratch.path().join("output"))?;
        let kubelet = Kubelet::new(&pods_in_memory(&scratch)?, &socket, &socket);
        wait::until_ready("the bare server answers", async || kubelet.node().await.ok()).await;
        Ok(Self { _server: server, kubelet, _scratch: scratch })
    }
}

/// The process itself; ends when it is killed.
pub(crate) fn serve(work: Work, socket: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = UnixListenerStream::new(UnixListener::bind(socket).context("cannot listen")?);
        let service = Bare { work, roots: Mutex::default() };
        Ok(Server::builder().add_service(NodeServer::new(service)).serve_with_incoming(listener).await?)
    })
}

struct Bare {
    work: Work,
    /// A volume's writable mount stays open, as long as the volume is there.
    roots: Mutex<std::collections::HashMap<String, OwnedFd>>,
}

impl Bare {
    fn roots(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<String, OwnedFd>> {
        self.roots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl Node for Bare {
    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        if self.work == Work::Mount {
            let root = make(Path::new(&request.target_path)).map_err(|error| Status::internal(error.to_string()))?;
            self.roots().insert(request.volume_id, root);
        }
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let NodeUnpublishVolumeRequest { volume_id, target_path } = request.into_inner();
        let target = PathBuf::from(target_path);
        unmount(&target, UnmountFlags::DETACH).map_err(std::io::Error::from)?;
        fs::remove_dir(&target)?;
        self.roots().remove(&volume_id);
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_info(&self, _: Request<NodeGetInfoRequest>) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse::default()))
    }

    async fn node_stage_volume(
        &self,
        _: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn node_unstage_volume(
        &self,
        _: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn node_get_volume_stats(
        &self,
        _: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn node_get_volume_health(
        &self,
        _: Request<NodeGetVolumeHealthRequest>,
    ) -> Result<Response<NodeGetVolumeHealthResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn node_get_storage_health(
        &self,
        _: Request<NodeGetStorageHealthRequest>,
    ) -> Result<Response<NodeGetStorageHealthResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn node_expand_volume(
        &self,
        _: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// The mount calls of a first publish: a detached tmpfs, and a read-only clone of it at the target.
fn make(target: &Path) -> std::io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [
        ("source", "bare"),
        ("size", "1048576"),
        ("nr_inodes", "1024"),
        ("mode", "0755"),
        ("uid", "60999"),
        ("gid", "60999"),
    ] {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_set_flag(&context, "noswap")?;
    fsconfig_create(&context)?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = open_tree(&root, "", clone)?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: the path is a NUL-terminated string and `attributes` is a `mount_attr` of the size that is passed; both
    // outlive the call, which only reads them.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            clone.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if set != 0 {
        return Err(std::io::Error::last_os_error());
    }
    fs::create_dir(target)?;
    let target = rustix::fs::openat(CWD, target, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&clone, "", &target, "", flags)?;
    Ok(root)
}
