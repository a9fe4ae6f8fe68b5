// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Classes, events and the taint at an API server that does what a test tells it to.

mod classes;
mod fake_api;
mod pod_events;
