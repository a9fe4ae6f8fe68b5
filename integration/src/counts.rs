// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! How often the long loops go round: one table, with a column for every change and a column for
//! the nightly run (`EVANESCE_FULL=1`).

/// A number of rounds: for CI, and in full.
#[derive(Debug, Clone, Copy)]
pub struct Count {
    ci: u32,
    full: u32,
}

//                                                                        CI       full
/// First publishes that a polling reader watches.
pub const FIRST_PUBLISHES: Count = /*                         */ Count::new(100, 1_000);
/// Refreshes under the eyes of readers.
pub const REFRESHES: Count = /*                               */ Count::new(300, 10_000);
/// Swaps of a volume's files under the eyes of reading threads.
pub const SWAPS: Count = /*                                   */ Count::new(2_000, 10_000);
/// Rotations of a certificate and its key under the eyes of reading threads.
pub const PAIR_ROTATIONS: Count = /*                          */ Count::new(10_000, 10_000);
/// Rotations of the same while applications start.
pub const STARTS_IN_ROTATIONS: Count = /*                     */ Count::new(2_000, 10_000);
/// Publishes of one volume at the same time.
pub const CONCURRENT_PUBLISHES: Count = /*                    */ Count::new(20, 200);
/// Calls at the same time at few volumes, some of which are not waited for.
pub const CONCURRENT_CALLS: Count = /*                        */ Count::new(200, 1_000);
/// The same to the built plugin.
pub const CONCURRENT_CALLS_OF_THE_PLUGIN: Count = /*          */ Count::new(60, 300);
/// Callers that meet at two volumes in every order.
pub const CALLERS_AT_TWO_VOLUMES: Count = /*                  */ Count::new(2, 3);
/// Volumes of as many service accounts that start at once, with a backend that is far away.
pub const LOADED_VOLUMES: Count = /*                          */ Count::new(40, 250);
/// Deaths of the engine half while volumes are in use.
pub const ENGINE_KILLS: Count = /*                            */ Count::new(3, 20);
/// Rotations of a secret in five volumes, with memory scanned beside them, and of a credential that is lent: five refreshes each.
pub const ROTATIONS_SCANNED: Count = /*                       */ Count::new(20, 200);

/// Deaths of each victim under the storm …
pub const KILLS: Count = /*                                   */ Count::new(60, 1_000);
/// … spread over so many publishes, refreshes and unpublishes.
pub const STORM_OPERATIONS: Count = /*                        */ Count::new(1_000, 10_000);

/// Deaths of each victim while pods that come and go are lent credentials.
pub const LEASE_KILLS: Count = /*                             */ Count::new(20, 100);

impl Count {
    const fn new(ci: u32, full: u32) -> Self {
        Self { ci, full }
    }

    /// The number to use in this run.
    #[must_use]
    pub fn get(self) -> u32 {
        let full = std::env::var_os("EVANESCE_FULL").is_some_and(|value| value == "1");
        if full { self.full } else { self.ci }
    }
}
