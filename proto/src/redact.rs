// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `Debug` for every message that may carry a secret.
//!
//! These messages are generated without one. Each is taken apart here without `..`, so a field that a later version of
//! the specification adds does not compile until somebody has said how it prints:
//!
//! - `shown`: as it is;
//! - `keys`: the keys of a map, sorted; the values may be tokens (older kubelets put them into `volume_context`);
//! - `counted`: only how many entries there are.
//!
//! Messages that hold one of these print through it and derive theirs.

use std::collections::HashMap;
use std::fmt;

use crate::csi;

/// A map whose values may be secret.
struct Keys<'a>(&'a HashMap<String, String>);

impl fmt::Debug for Keys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut keys: Vec<_> = self.0.keys().collect();
        keys.sort_unstable();
        f.debug_set().entries(keys).finish()
    }
}

/// A collection of which nothing but the size is shown.
struct Count(usize);

impl fmt::Debug for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} redacted>", self.0)
    }
}

macro_rules! redacted {
    ($($message:path {
        $(shown: [$($shown:ident),+ $(,)?],)?
        $(keys: [$($keys:ident),+ $(,)?],)?
        $(counted: [$($counted:ident),+ $(,)?],)?
    })+) => {$(
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self { $($($shown,)+)? $($($keys,)+)? $($($counted,)+)? } = self;
                // The path's last segment, as a derived Debug prints it.
                let name = stringify!($message).rsplit("::").next().unwrap_or_default().trim();
                f.debug_struct(name)
                    $($(.field(stringify!($shown), $shown))+)?
                    $($(.field(stringify!($keys), &Keys($keys)))+)?
                    $($(.field(stringify!($counted), &Count($counted.len())))+)?
                    .finish()
            }
        }
    )+};
}

// Node service.
redacted! {
    csi::NodePublishVolumeRequest {
        shown: [volume_id, staging_target_path, target_path, volume_capability, readonly],
        keys: [publish_context, volume_context],
        counted: [secrets],
    }
    csi::NodeStageVolumeRequest {
        shown: [volume_id, staging_target_path, volume_capability],
        keys: [publish_context, volume_context],
        counted: [secrets],
    }
    csi::NodeExpandVolumeRequest {
        shown: [volume_id, volume_path, capacity_range, staging_target_path, volume_capability],
        counted: [secrets],
    }
    csi::NodeGetStorageHealthRequest {
        counted: [secrets],
    }
    csi::volume_capability::MountVolume {
        shown: [fs_type, volume_mount_group],
        counted: [mount_flags],
    }
}

// Controller service.
redacted! {
    csi::CreateVolumeRequest {
        shown: [name, capacity_range, volume_capabilities, volume_content_source, accessibility_requirements],
        keys: [parameters, mutable_parameters],
        counted: [secrets],
    }
    csi::Volume {
        shown: [capacity_bytes, volume_id, content_source, accessible_topology],
        keys: [volume_context],
    }
    csi::DeleteVolumeRequest {
        shown: [volume_id],
        counted: [secrets],
    }
    csi::ControllerPublishVolumeRequest {
        shown: [volume_id, node_id, volume_capability, readonly],
        keys: [volume_context],
        counted: [secrets],
    }
    csi::ControllerPublishVolumeResponse {
        keys: [publish_context],
    }
    csi::ControllerUnpublishVolumeRequest {
        shown: [volume_id, node_id],
        counted: [secrets],
    }
    csi::ValidateVolumeCapabilitiesRequest {
        shown: [volume_id, volume_capabilities],
        keys: [volume_context, parameters, mutable_parameters],
        counted: [secrets],
    }
    csi::validate_volume_capabilities_response::Confirmed {
        shown: [volume_capabilities],
        keys: [volume_context, parameters, mutable_parameters],
    }
    csi::ControllerModifyVolumeRequest {
        shown: [volume_id],
        keys: [mutable_parameters],
        counted: [secrets],
    }
    csi::GetCapacityRequest {
        shown: [volume_capabilities, accessible_topology],
        keys: [parameters],
    }
    csi::ControllerExpandVolumeRequest {
        shown: [volume_id, capacity_range, volume_capability],
        counted: [secrets],
    }
    csi::ControllerGetVolumeHealthRequest {
        shown: [volume_id],
        counted: [secrets],
    }
    csi::ControllerListVolumeHealthRequest {
        shown: [max_entries, starting_token],
        counted: [secrets],
    }
}

// Snapshots.
redacted! {
    csi::CreateSnapshotRequest {
        shown: [source_volume_id, name, accessibility_requirements],
        keys: [parameters],
        counted: [secrets],
    }
    csi::DeleteSnapshotRequest {
        shown: [snapshot_id],
        counted: [secrets],
    }
    csi::ListSnapshotsRequest {
        shown: [max_entries, starting_token, source_volume_id, snapshot_id],
        counted: [secrets],
    }
    csi::GetSnapshotRequest {
        shown: [snapshot_id],
        counted: [secrets],
    }
    csi::CreateVolumeGroupSnapshotRequest {
        shown: [name, source_volume_ids],
        keys: [parameters],
        counted: [secrets],
    }
    csi::DeleteVolumeGroupSnapshotRequest {
        shown: [group_snapshot_id, snapshot_ids],
        counted: [secrets],
    }
    csi::GetVolumeGroupSnapshotRequest {
        shown: [group_snapshot_id, snapshot_ids],
        counted: [secrets],
    }
    csi::GetMetadataAllocatedRequest {
        shown: [snapshot_id, starting_offset, max_results],
        counted: [secrets],
    }
    csi::GetMetadataDeltaRequest {
        shown: [base_snapshot_id, target_snapshot_id, starting_offset, max_results],
        counted: [secrets],
    }
}
