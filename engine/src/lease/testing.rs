// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A lender for tests of what is never lent.

use std::sync::Arc;

use super::Lender;
use crate::audit::Auditor;
use crate::clock::SystemClock;
use crate::error::Error;
use crate::fetch::{BackendHandle, Backends, Fetcher};
use crate::keep::HeapKeep;
use crate::names::BackendName;
use crate::projection::DigestKey;

struct None;

impl Backends for None {
    fn find(&self, name: &BackendName) -> Result<Arc<BackendHandle>, Error> {
        Err(Error::internal(format!("there is no backend {name} in this test")))
    }
}

/// One that writes nothing down and gives nothing back.
pub fn lender(fetcher: &Arc<Fetcher>, auditor: Arc<dyn Auditor>) -> Arc<Lender> {
    let (keep, clock, digests) = (Arc::new(HeapKeep), Arc::new(SystemClock), DigestKey::new(&[7; 32]));
    Lender::new(Arc::new(()), keep, Arc::new(None), Arc::clone(fetcher), auditor, clock, digests)
}
