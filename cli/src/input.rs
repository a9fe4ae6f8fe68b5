// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Files and standard input, read into memory that is wiped.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use evanesce_engine::secret::SecretBytes;

use crate::output::{NOTE, WARNING, remark};

/// Most bytes that are read: more than anything that is accepted.
const MOST: u64 = 4 * 1024 * 1024;

/// Everything in the file, or from standard input where the path is `-`.
pub(crate) fn read(path: &Path) -> anyhow::Result<SecretBytes> {
    if path == Path::new("-") {
        if io::stdin().is_terminal() {
            remark(NOTE, "note", "reading from the terminal; end with Ctrl-D");
        }
        return read_all(io::stdin().lock()).context("standard input");
    }
    File::open(path).map_err(anyhow::Error::from).and_then(read_all).with_context(|| path.display().to_string())
}

/// A file of identities; one that others may read is worth a warning.
pub(crate) fn read_identity(path: &Path) -> anyhow::Result<SecretBytes> {
    if let Ok(metadata) = path.metadata()
        && metadata.is_file()
        && metadata.permissions().mode() & 0o077 != 0
    {
        remark(WARNING, "warning", format_args!("{} can be read by others: chmod 600 it", path.display()));
    }
    read(path)
}

fn read_all(from: impl Read) -> anyhow::Result<SecretBytes> {
    let mut bytes = Vec::new();
    from.take(MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST {
        bail!("is larger than {} MiB", MOST >> 20);
    }
    Ok(SecretBytes::new(bytes))
}
