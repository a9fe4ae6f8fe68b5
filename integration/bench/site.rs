// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Where it is measured: a real OpenBao over TLS with the secrets in it, and nodes with the real plugin on them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use evanesce_integration::kubelet::Kubelet;
use evanesce_integration::many;
use evanesce_integration::openbao::OpenBao;
use evanesce_integration::plugin::{Options, Plugin};
use evanesce_integration::scratch::Scratch;
use evanesce_integration::token_review::{Claims, Token, TokenReview, WorkloadName};
use evanesce_integration::world::{self, AUDIENCE, Setup, World};
use evanesce_proto::csi::node_client::NodeClient;
use evanesce_proto::csi::{NodeGetInfoRequest, NodePublishVolumeRequest};
use evanesce_proto::kubelet::Publish;
use rustix::mount::{MountFlags, mount};
use tonic::transport::Channel;

/// A class with one secret.
pub(crate) const ONE: Class = Class { name: "one", secrets: 1 };
/// A class with ten.
pub(crate) const TEN: Class = Class { name: "ten", secrets: 10 };

/// A `SecretVolume` with so many files, each from a secret of its own.
#[derive(Clone, Copy)]
pub(crate) struct Class {
    /// Its name.
    pub name: &'static str,
    /// How many.
    pub secrets: usize,
}

impl Class {
    fn yaml(self) -> String {
        many::class(self.name, "vault", self.secrets)
    }
}

/// The paths of so many secrets, below their mount.
pub(crate) fn paths(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(many::path)
}

/// The backend, the cluster, and what a node's classes say.
pub(crate) struct Site {
    // Fields drop in this order.
    world: World<OpenBao>,
}

impl Site {
    /// Starts it.
    pub(crate) async fn start() -> Result<Self> {
        let world = Setup::default().log("info").class(&ONE.yaml()).class(&TEN.yaml()).openbao().await?;
        // A kilobyte, as a key or a certificate has.
        many::fill(&world.backend, TEN.secrets, |_| "p".repeat(1024)).await?;
        Ok(Self { world })
    }

    /// The backend.
    pub(crate) fn backend(&self) -> &OpenBao {
        &self.world.backend
    }

    /// A new node of this site; ready when this returns.
    pub(crate) async fn node(&self, options: Options) -> Result<Node<'_>> {
        let mut node = self.spawn(options)?;
        node.plugin.ready().await?;
        Ok(node)
    }

    /// A new node that may not be ready yet.
    pub(crate) fn spawn(&self, options: Options) -> Result<Node<'_>> {
        let scratch = Scratch::new()?;
        let classes = scratch.directory("classes")?;
        for file in std::fs::read_dir(self.world.plugin.classes())? {
            let file = file?;
            std::fs::copy(file.path(), classes.join(file.file_name()))?;
        }
        pods_in_memory(&scratch)?;
        let options = Options { log: "info".into(), ..options };
        let plugin = Plugin::spawn(&scratch, options)?;
        let kubelet = Kubelet::new(plugin.pods(), plugin.csi_socket(), &plugin.registration_socket());
        Ok(Node { plugin, kubelet, cluster: &self.world.cluster, _scratch: scratch })
    }

    /// A pod of a service account that nobody has seen yet.
    pub(crate) fn stranger(&self) -> WorkloadName {
        self.world.pod("payments", "app")
    }

    /// A token of a pod.
    pub(crate) fn token(&self, pod: &WorkloadName) -> Result<Token> {
        self.world.cluster.tokens().mint(&Claims::new(pod, AUDIENCE))
    }
}

/// Kubelet's directory of pods, in memory: ext4 passes over every inode number that was freed within five seconds, and a
/// bench frees one for each publish. That search, of half a millisecond, is no node's.
pub(crate) fn pods_in_memory(scratch: &Scratch) -> Result<PathBuf> {
    let pods = scratch.directory("pods")?;
    mount("bench", &pods, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, c"mode=0755")?;
    Ok(pods)
}

/// Another pod of the same service account.
pub(crate) fn sibling(pod: &WorkloadName) -> WorkloadName {
    let new = WorkloadName::new(&pod.namespace, &pod.service_account, &pod.pod);
    WorkloadName { service_account_uid: pod.service_account_uid.clone(), ..new }
}

/// A node with the plugin.
pub(crate) struct Node<'a> {
    // Fields drop in this order: the plugin before its directory.
    /// The plugin.
    pub plugin: Plugin,
    /// Who calls it.
    pub kubelet: Kubelet,
    cluster: &'a TokenReview,
    _scratch: Scratch,
}

impl Node<'_> {
    /// A pod's volume that shows a class, with a fresh token and kubelet's directories made.
    pub(crate) fn volume(&self, pod: &WorkloadName, class: Class) -> Result<Publish> {
        let volume = world::volume(&self.kubelet, self.cluster, pod, class.name, &Claims::new(pod, AUDIENCE));
        self.kubelet.prepare(&volume)?;
        Ok(volume)
    }

    /// Takes volumes away.
    pub(crate) async fn clear(&self, volumes: &[Publish]) -> Result<()> {
        for volume in volumes {
            self.kubelet.unpublish(volume).await.context("unpublish")?;
        }
        Ok(())
    }
}

/// A connection that has been used for something else: all that HTTP/2 says at first has been said.
pub(crate) async fn open(kubelet: &Kubelet) -> Result<NodeClient<Channel>> {
    let mut client = kubelet.node().await?;
    client.node_get_info(NodeGetInfoRequest {}).await?;
    Ok(client)
}

/// A publish on an open connection.
pub(crate) async fn call(mut client: NodeClient<Channel>, request: NodePublishVolumeRequest) -> Result<Duration> {
    let begun = Instant::now();
    client.node_publish_volume(request).await?;
    Ok(begun.elapsed())
}

/// A publish with a dial, as kubelet does it.
pub(crate) async fn dial_and_call(kubelet: &Kubelet, request: NodePublishVolumeRequest) -> Result<Duration> {
    let begun = Instant::now();
    kubelet.call_publish(request).await?;
    Ok(begun.elapsed())
}
