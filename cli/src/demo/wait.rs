// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Waiting for what a program of the demo is about to do.

use std::time::{Duration, Instant};

use anyhow::bail;

use super::PATIENCE;

/// Between two looks at something that takes milliseconds.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// What `look` finds, as soon as it finds something.
///
/// # Errors
/// Its own, or `in_vain` where it finds nothing for as long as one step may take.
pub(crate) async fn until<T>(
    in_vain: impl Fn() -> String,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
    bail!(in_vain())
}
