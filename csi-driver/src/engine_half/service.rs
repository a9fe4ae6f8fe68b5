// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The gRPC services, each a thin translation: message → typed request → plugin → status.

pub mod admin;
pub mod health;
pub mod identity;
pub mod node;
pub mod registration;
