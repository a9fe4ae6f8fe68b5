// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Questions whose answers may come with leases: asked with a login of the delivery's own, which is written down before
//! the first of them. The login's end is the end of all it lent, so it serves nobody else.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::fetcher::{Answer, Fetcher, Order};
use crate::error::Error;
use crate::lease::{Cause, LeaseGroup, Lender};
use crate::policy::Grant;

/// What came of it.
pub(super) struct Borrowed {
    /// In the order of the questions.
    pub(super) answers: Vec<Answer>,
    /// What has to be given back; absent where nothing was lent.
    pub(super) group: Option<LeaseGroup>,
    /// How long the login is good for, where it has an end.
    pub(super) login: Option<Duration>,
}

/// Asks, with `shared` one question whose answer other volumes of the identity may show. Whoever stops waiting does not stop it: a lease that is being made when its login is ended might outlive it, so
/// every answer is waited for, and then given back.
pub(super) async fn borrow(
    fetcher: &Arc<Fetcher>,
    lender: &Arc<Lender>,
    order: &Arc<Order>,
    grants: &[Grant],
    shared: bool,
) -> Result<Borrowed, Error> {
    let work = ask(Arc::clone(fetcher), Arc::clone(lender), Arc::clone(order), grants.to_vec(), shared);
    let asked = tokio::spawn(work).await;
    asked.unwrap_or_else(|error| Err(Error::internal("a question was lost").with_detail(error.to_string())))
}

async fn ask(
    fetcher: Arc<Fetcher>,
    lender: Arc<Lender>,
    order: Arc<Order>,
    grants: Vec<Grant>,
    shared: bool,
) -> Result<Borrowed, Error> {
    let (handle, identity) = (&order.handle, &order.asker.identity);
    let failed = |error: crate::backend::BackendError| error.into_error(handle.backend.name(), "a login");
    let session = Arc::clone(&fetcher).open(Arc::clone(&order)).await.map_err(failed)?;
    let shared = grants.first().filter(|_| shared).map(|grant| grant.path().as_str());
    let mut group = lender.begin((&order.subject, identity), handle, session.as_ref(), shared).await?;
    let batches = grants.chunks(handle.backend.batch_size().max(1));
    let asked: Vec<_> = batches
        .map(|batch| async { fetcher.ask_with(&order, session.as_ref(), batch).await.map(|(_, answers)| answers) })
        .collect();
    let answers: Vec<Vec<Answer>> =
        stream::iter(asked).buffered(handle.limits.parallel.max(1)).try_collect().await.map_err(failed)?;
    let answers: Vec<Answer> = answers.into_iter().flatten().collect();
    crate::crash_point!("lease:lent");
    if let Some(group) = &mut group {
        for (grant, answer) in grants.iter().zip(&answers) {
            if let Ok(secret) = &answer.result {
                lender.lent(group, grant.path().as_str(), secret)?;
            }
        }
    }
    let login = session.login().ttl;
    let group = group.and_then(|group| {
        if group.lent().is_empty() && answers.iter().all(|answer| answer.result.is_ok()) {
            group.give_back(Cause::Empty);
            return None;
        }
        Some(group)
    });
    Ok(Borrowed { answers, group, login })
}
