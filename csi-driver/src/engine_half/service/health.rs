// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! How a volume is, in the two languages that are spoken: the condition beside a volume's statistics (CSI to 1.12, kubelet
//! to 1.36) and the health of a volume (CSI from 1.13). Both are read off what is known already: no backend is asked.

use evanesce_engine::error::Error;
use evanesce_engine::spec::volume::OnStale;
use evanesce_proto::csi::volume_health::VolumeHealthEntry;
use evanesce_proto::csi::volume_usage::Unit;
use evanesce_proto::csi::{
    NodeGetVolumeStatsResponse, VolumeCondition, VolumeHealth, VolumeHealthErrorType, VolumeUsage,
};

use crate::engine_half::volume::Volume;

/// What is wrong, for programs; the specification wants CamelCase.
const STALE: &str = "Stale";

/// Bytes and inodes as the volume's own file system counts them, and its condition.
///
/// # Errors
/// [`Kind::Internal`](evanesce_engine::error::Kind::Internal), with what the kernel said.
pub fn stats(volume: &Volume) -> Result<NodeGetVolumeStatsResponse, Error> {
    let stat = rustix::fs::fstatvfs(volume.generations.root())
        .map_err(|error| Error::internal("the volume's file system does not answer").with_detail(error.to_string()))?;
    let usage = |unit: Unit, total: u64, free: u64| VolumeUsage {
        unit: unit.into(),
        total: total.cast_signed(),
        available: free.cast_signed(),
        used: total.saturating_sub(free).cast_signed(),
    };
    let stale = stale(volume);
    Ok(NodeGetVolumeStatsResponse {
        usage: vec![
            usage(Unit::Bytes, stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize),
            usage(Unit::Inodes, stat.f_files, stat.f_favail),
        ],
        volume_condition: Some(VolumeCondition {
            abnormal: stale.is_some(),
            message: stale.unwrap_or_else(|| "the files are those of the last refresh".to_owned()),
        }),
    })
}

/// The volume's health: nothing, or that it is stale, which is usable and not as it should be.
pub fn health(volume: &Volume) -> VolumeHealth {
    let entry = |message| VolumeHealthEntry {
        status: VolumeHealthErrorType::Degraded.into(),
        reason: STALE.to_owned(),
        message,
    };
    VolumeHealth { volume_id: volume.id.to_string(), health_statuses: stale(volume).map(entry).into_iter().collect() }
}

/// In the words of the refresh's error, which are for whoever has the pod.
fn stale(volume: &Volume) -> Option<String> {
    let stale = volume.freshness.stale()?;
    let files = match volume.freshness.too_old() {
        None => "the last good files stay",
        Some(OnStale::Mark) => "the files are too old, and marked",
        Some(OnStale::Remove) => "the files were too old, and are gone",
    };
    Some(format!("the last refresh failed, and {files}: {}", stale.message))
}
