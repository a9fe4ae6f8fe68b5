// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Credentials that all volumes of a service account show: borrowed for the first of them, held by each, gone with the last.
//!
//! Each question has a login of its own here, so that a class may share one credential and another class two. Values lie in the
//! group, in the program's [`Keep`](crate::keep::Keep), until another group takes its place.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::alive::Alive;
use super::borrow::{Borrowed, borrow};
use super::fetcher::{Answer, Fetcher, Order};
use super::question::Question;
use super::told;
use crate::audit::Source;
use crate::error::{Error, Kind};
use crate::lease::{GroupId, Lender, Whole};
use crate::policy::Grant;

/// What is shared on a node.
#[derive(Default)]
pub(super) struct Shares(Mutex<State>);

#[derive(Default)]
struct State {
    turns: Alive<Question, Turn>,
    groups: Alive<Question, Whole>,
}

/// One asks, and who comes meanwhile waits: for the group, or for how it failed, and when.
type Turn = tokio::sync::Mutex<Option<(Instant, Error)>>;

/// The group that the identity's volumes show, or, where there is none that is good for long or this volume shows it already, another
/// one in its place.
pub(super) async fn share(
    fetcher: &Arc<Fetcher>,
    lender: &Arc<Lender>,
    order: &Arc<Order>,
    grant: &Grant,
    shows: &[GroupId],
) -> Result<Borrowed, Error> {
    let (question, came) = (Question::new(&order.asker, grant), fetcher.now());
    let turn = fetcher.shares.turn(&question);
    let mut failed = turn.lock().await;
    // What another pod could not prove says nothing about this one.
    if let Some((at, error)) = &*failed
        && *at >= came
        && error.kind() != Kind::Unauthenticated
    {
        return Err(error.clone());
    }
    if let Some(held) = fetcher.shares.find(&question, fetcher, order, grant, shows) {
        return Ok(held);
    }
    let borrowed = borrow(fetcher, lender, order, std::slice::from_ref(grant), true).await;
    let error = match &borrowed {
        Ok(Borrowed { answers, .. }) => answers.first().cloned().and_then(|answer| told(grant, answer).err()),
        Err(error) => Some(error.clone()),
    };
    *failed = error.map(|error| (fetcher.now(), error));
    if let Ok(Borrowed { group: Some(group), .. }) = &borrowed {
        fetcher.shares.keep(question, group.whole());
    }
    borrowed
}

impl Shares {
    fn turn(&self, question: &Question) -> Arc<Turn> {
        let mut state = self.state();
        state.turns.get(question).unwrap_or_else(|| {
            let turn = Arc::default();
            state.turns.insert(question.clone(), &turn);
            turn
        })
    }

    fn find(
        &self,
        question: &Question,
        fetcher: &Fetcher,
        order: &Order,
        grant: &Grant,
        shows: &[GroupId],
    ) -> Option<Borrowed> {
        let group = self.state().groups.get(question)?.hold();
        let (secret, login) = group.whole().answer(fetcher.clock()).filter(|_| !shows.contains(group.id()))?;
        let answer = Answer { result: Ok(Arc::new(secret)), endpoint: None };
        fetcher.answered(order, grant, &answer, Source::Reused);
        Some(Borrowed { answers: vec![answer], group: Some(group), login })
    }

    fn keep(&self, question: Question, group: &Arc<Whole>) {
        let mut state = self.state();
        if let Some(before) = state.groups.get(&question) {
            before.forget_answer();
        }
        state.groups.insert(question, group);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
