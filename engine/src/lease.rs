// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What backends lend: credentials that are made for whoever asks, and end.
//!
//! A [`LeaseGroup`] is one login and every lease that was asked for with it. Whoever holds it holds the leases; dropping it
//! gives them back, at once or when the backend can be reached again. So a delivery that fails or is cut short leaves no
//! credential behind, without a line of its own about it. Volumes of one service account may hold one group together: the last
//! of them gives it back.
//!
//! A group's login is written to the [`Journal`] before the first lease is asked for, because a lease's id comes with its
//! secret: a process that is killed between the two leaves a login that the next one finds, and ends with all it lent.
//!
//! - [`group`]: what is held, and what is written down of it.
//! - [`ledger`]: which of them there are.
//! - [`lender`]: begins groups, prolongs them, and finds those of an earlier process.
//! - [`returns`]: gives back what was dropped.

mod entry;
mod group;
pub mod ledger;
mod lender;
mod returns;
#[cfg(feature = "testing")]
pub mod testing;

pub(crate) use group::Whole;
pub use group::{Cause, GroupId, GroupIdError, LeaseGroup, Lent};
pub use ledger::Ledger;
pub use lender::{Lender, Prolonged};
pub use returns::Returns;

use async_trait::async_trait;

use crate::error::Error;
use crate::secret::SecretBytes;

/// Where logins are written down, so that the next process of this node finds what this one has borrowed. A program brings
/// the place, and seals what it is given.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Keeps an entry until it is removed, also over the end of this process. It is there once this returns.
    ///
    /// # Errors
    /// [`Kind::Exhausted`](crate::error::Kind::Exhausted) or [`Kind::Internal`](crate::error::Kind::Internal): then nothing
    /// may be borrowed.
    async fn put(&self, group: &GroupId, entry: SecretBytes) -> Result<(), Error>;

    /// Forgets an entry. Done twice, it is done.
    ///
    /// # Errors
    /// As [`Journal::put`].
    async fn remove(&self, group: &GroupId) -> Result<(), Error>;
}

/// Keeps nothing: for programs that are gone with what they borrow.
#[async_trait]
impl Journal for () {
    async fn put(&self, _: &GroupId, _: SecretBytes) -> Result<(), Error> {
        Ok(())
    }

    async fn remove(&self, _: &GroupId) -> Result<(), Error> {
        Ok(())
    }
}
