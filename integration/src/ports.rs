// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Ports for servers that cannot be given a listener: chosen before the server binds them, so somebody else may be faster.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result};

/// How often a server is started where its ports turn out to be taken.
const STARTS: u32 = 5;

/// Ports of loopback that were free a moment ago, all different.
pub(crate) fn free<const N: usize>() -> Result<[u16; N]> {
    let mut listeners = Vec::new();
    for _ in 0..N {
        listeners.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?);
    }
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

/// Starts a server, and once more where one of its ports was taken meanwhile.
pub(crate) async fn start<T>(start: impl AsyncFn() -> Result<T>) -> Result<T> {
    let mut attempt = 1;
    loop {
        match start().await {
            Err(error) if attempt < STARTS && is_clash(&error) => attempt += 1,
            result => return result,
        }
    }
}

fn is_clash(error: &anyhow::Error) -> bool {
    format!("{error:#}").to_lowercase().contains("address already in use")
}
