// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Time without service: from a kill to the next answer, as kubelet sees it.
//!
//! The sockets outlive an engine half, so whoever calls meanwhile waits and is answered; with the warden they are gone.

use std::time::{Duration, Instant};

use anyhow::Result;
use evanesce_proto::csi::GetPluginInfoRequest;
use tonic::Status;

use crate::kubelet::Kubelet;
use crate::plugin::Plugin;
use crate::wait;

/// Kills the engine half and calls at once: the time from the kill to the answer. The first death of a plugin, and one
/// after a minute of health, is followed by a restart without a wait.
///
/// # Errors
/// When that one call is not answered.
pub async fn of_engine(plugin: &Plugin, kubelet: &Kubelet) -> Result<Duration, Status> {
    let engine = wait::until_some("the engine half runs", || plugin.engine()).await;
    let begun = Instant::now();
    engine.kill();
    while engine.is_running() {
        // It may have accepted a connection of ours that it will not answer.
        tokio::task::yield_now().await;
    }
    call(kubelet).await?;
    Ok(begun.elapsed())
}

/// Kills the warden and starts it again once all of the plugin is gone: the time from the kill to the first answer.
///
/// # Errors
/// When it does not start again.
pub async fn of_warden(plugin: &mut Plugin, kubelet: &Kubelet) -> Result<Duration> {
    let begun = Instant::now();
    plugin.kill_and_restart().await?;
    call(kubelet).await?;
    Ok(begun.elapsed())
}

async fn call(kubelet: &Kubelet) -> Result<(), Status> {
    kubelet.identity().await?.get_plugin_info(GetPluginInfoRequest {}).await.map(drop)
}
