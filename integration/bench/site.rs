// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Where it is measured: a real OpenBao over TLS with the secrets in it, and nodes with the real plugin on them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use evanesce_integration::kubelet::Kubelet;
use evanesce_integration::many;
use evanesce_integration::openbao::OpenBao;
use evanesce_integration::plugin::{Options, Plugin};
use evanesce_integration::scratch::Scratch;
use evanesce_integration::sight;
use evanesce_integration::token_review::{Claims, Token, TokenReview, WorkloadName};
use evanesce_integration::world::{self, AUDIENCE, Setup, World};
use evanesce_proto::csi::node_client::NodeClient;
use evanesce_proto::csi::{NodeGetInfoRequest, NodePublishVolumeRequest};
use evanesce_proto::kubelet::Publish;
use evanesce_proto::node::node_admin_client::NodeAdminClient;
use evanesce_proto::node::{Outcome, RefreshRequest, Refreshed};
use hyper_util::rt::TokioIo;
use rustix::mount::{MountFlags, mount};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// A class with one secret.
pub(crate) const ONE: Class = Class { name: "one", secrets: 1, refresh: "every: 1h" };
/// A class with ten.
pub(crate) const TEN: Class = Class { name: "ten", secrets: 10, refresh: "every: 1h" };
/// A class with one secret that is asked for every five minutes.
pub(crate) const OFTEN: Class = Class { name: "often", secrets: 1, refresh: "every: 5m" };
/// A tenth of that, for a tenth of the volumes.
pub(crate) const OFTEN_QUICK: Class = Class { name: "often-quick", secrets: 1, refresh: "every: 30s" };
/// A class with one secret that is asked for every second.
pub(crate) const LIVELY: Class = Class { name: "lively", secrets: 1, refresh: "every: 1s, jitter: 0%" };

/// All of them.
const CLASSES: [Class; 5] = [ONE, TEN, OFTEN, OFTEN_QUICK, LIVELY];

/// A `SecretVolume` with so many files, each from a secret of its own.
#[derive(Clone, Copy)]
pub(crate) struct Class {
    /// Its name.
    pub name: &'static str,
    /// How many.
    pub secrets: usize,
    /// When they are asked for, in YAML.
    refresh: &'static str,
}

impl Class {
    fn yaml(self) -> String {
        many::class(self.name, "vault", self.secrets).replace("every: 1h", self.refresh)
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
        let setup = Setup::default().log("info");
        let world = CLASSES.iter().fold(setup, |setup, class| setup.class(&class.yaml())).openbao().await?;
        let site = Self { world };
        site.write(TEN, "p").await?;
        Ok(site)
    }

    /// Writes a class's secrets anew, so that their values begin with this.
    pub(crate) async fn write(&self, class: Class, begin: &str) -> Result<()> {
        // A kilobyte, as a key or a certificate has.
        many::fill(&self.world.backend, class.secrets, |_| format!("{begin:p<1024}")).await
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

/// What hundreds of volumes may reserve is above what a namespace may hold by default.
pub(crate) fn roomy() -> Options {
    let arguments = ["--node-tmpfs-limit=2Gi", "--namespace-tmpfs-limit=2Gi"].map(String::from).to_vec();
    Options { arguments, ..Options::default() }
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

/// Has a volume refreshed as `evanesce refresh` does: one call on the plugin's own socket, with a dial, which waits until the
/// new files are there.
pub(crate) async fn refresh(node: &Node<'_>, volume: &Publish) -> Result<()> {
    let socket = node.plugin.admin_socket();
    let dial = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(dial).await?;
    let wait = Some(Duration::from_secs(20).try_into()?);
    let request = RefreshRequest { volumes: vec![volume.volume_id().to_owned()], wait };
    let answer = NodeAdminClient::new(channel).refresh(request).await?.into_inner();
    let outcomes: Vec<Outcome> = answer.volumes.iter().map(Refreshed::outcome).collect();
    ensure!(outcomes == [Outcome::Replaced], "the refresh came to {outcomes:?}");
    Ok(())
}

/// Whether every file of a pod's volume begins with this, as its pod reads them: all from one generation.
pub(crate) fn shows(volume: &Publish, class: Class, begin: &str) -> Result<bool> {
    let files = sight::generation(volume.target_path())?;
    Ok(files.len() == class.secrets && files.values().all(|value| value.starts_with(begin.as_bytes())))
}

/// A publish with a dial, as kubelet does it.
pub(crate) async fn dial_and_call(kubelet: &Kubelet, request: NodePublishVolumeRequest) -> Result<Duration> {
    let begun = Instant::now();
    kubelet.call_publish(request).await?;
    Ok(begun.elapsed())
}
