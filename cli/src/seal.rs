// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `evanesce seal`: a YAML map of keys to values, encrypted for the recipients. What is no such map is not sealed, and
//! nothing but what is sealed is ever written.

use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use evanesce_engine::backend::sealed::{self, Recipients};
use evanesce_engine::secret::SecretBytes;
use serde_json::json;
use tempfile::Builder;

use crate::args::{Output, Seal};
use crate::input;
use crate::output::{NOTE, remark, say_json};

/// Runs the command.
pub(crate) fn run(args: &Seal, output: Output) -> anyhow::Result<ExitCode> {
    if output == Output::Json && args.to.is_none() {
        bail!("--output json needs a file to write to: name it with --to");
    }
    let files = args.recipients_files.iter().map(|path| input::read(path)).collect::<Result<Vec<_>, _>>()?;
    let recipients =
        Recipients::parse(args.recipients.iter().map(String::as_str), files.iter().map(SecretBytes::expose))?;
    let text = input::read(&args.input)?;
    let sealed = sealed::seal(&text, &recipients).with_context(|| args.input.display().to_string())?;
    let Some(path) = &args.to else {
        io::stdout().write_all(&sealed)?;
        return Ok(ExitCode::SUCCESS);
    };
    write(path, &sealed, args.force)?;
    if !path.to_string_lossy().ends_with(sealed::SUFFIX) {
        remark(NOTE, "note", format_args!("a sealed backend looks for files that end in {}", sealed::SUFFIX));
    }
    if output == Output::Json {
        say_json(&json!({"ok": true, "file": path}))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whole or not at all, and over another only if that is wished. Everybody may read it, whatever the umask: it is sealed,
/// and the engine half of the node plugin, which opens it, is a user of its own.
fn write(path: &Path, sealed: &[u8], force: bool) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = || path.display().to_string();
    let mut file = Builder::new().prefix(".sealing-").tempfile_in(folder).with_context(place)?;
    file.write_all(sealed)
        .and_then(|()| file.as_file().set_permissions(Permissions::from_mode(0o644)))
        .and_then(|()| file.as_file().sync_all())
        .with_context(place)?;
    let persisted = if force { file.persist(path) } else { file.persist_noclobber(path) };
    match persisted {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            Err(anyhow!("{}: exists already; replace it with --force", path.display()))
        }
        Err(error) => Err(error.error).with_context(place),
    }
}
