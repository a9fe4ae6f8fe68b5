// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Crash points: named steps at which a test ends the process, as `kill -9` would.
//!
//! `crash_point!("place:attached");` is one line in the code it is about, and nothing at all in a build without the feature
//! `crash-points`, which no release has. With it, the process that comes to the step named in the file
//! `EVANESCE_CRASH_FILE` marks the file, so that its successor passes, and is gone.

/// Every step, in the order in which a volume meets them. A step that is not here does not compile; one that is here and
/// never reached fails `integration/tests/crash_points.rs`.
pub const POINTS: &[&str] = &[
    // The warden's start.
    "start:key-written",
    "start:sockets-bound",
    "start:launcher-started",
    "launcher:engine-started",
    "hello:sent",
    "hello:received",
    "hello:answered",
    // A first publish: the engine half …
    "publish:parsed",
    "publish:claimed",
    "deliver:authorised",
    "deliver:logged-in",
    "lease:journalled",
    "lease:lent",
    "deliver:fetched",
    "deliver:rendered",
    "place:made",
    "write:folder-made",
    "write:file-made",
    "write:file-written",
    "write:written",
    "show:link-made",
    "show:swapped",
    "show:name-linked",
    "place:shown",
    "place:attached",
    "publish:delivered",
    "publish:live",
    // … and the warden for it.
    "make:tmpfs-made",
    "make:kept",
    "own:owned",
    "record:written",
    "record:renamed",
    "attach:directory-made",
    "attach:cloned",
    "attach:attached",
    // A refresh.
    "republish:renewed",
    "refresh:grown",
    "resize:resized",
    "refresh:written",
    "refresh:shown",
    "show:name-removed",
    "refresh:remembered",
    "sweep:begun",
    "remove:emptied",
    "sweep:swept",
    // Another engine half, another warden.
    "adopt:record-read",
    "adopt:cloned",
    "adopt:opened",
    "adopt:live",
    "adopt:done",
    // An unpublish: the engine half, and the warden for it.
    "unpublish:claimed",
    "detach:unmounted",
    "detach:directory-removed",
    "detach:forgotten",
    "unpublish:detached",
    "drop:removed",
    "unpublish:dropped",
    // A lease group: the warden, and what gives it back.
    "lease:written",
    "lease:renamed",
    "lease:removed",
    "lease:revoked",
    // The end.
    "drain:begun",
];

/// What becomes the file's first byte once the step was reached; the pid of who dies there stands after it, up to a blank.
pub const REACHED: char = '!';

/// Whether a step is in [`POINTS`].
#[must_use]
pub const fn is_listed(step: &str) -> bool {
    let mut index = 0;
    while index < POINTS.len() {
        if is_same(POINTS[index].as_bytes(), step.as_bytes()) {
            return true;
        }
        index += 1;
    }
    false
}

/// `==`, which is not yet for constants.
const fn is_same(a: &[u8], b: &[u8]) -> bool {
    let mut index = 0;
    while index < a.len() && index < b.len() && a[index] == b[index] {
        index += 1;
    }
    index == a.len() && index == b.len()
}

/// Ends the process here if a test wants it; nothing without the feature `crash-points`.
#[cfg(feature = "crash-points")]
#[macro_export]
macro_rules! crash_point {
    ($step:literal) => {{
        const _: () = assert!($crate::crash::is_listed($step), "list it in engine/src/crash.rs");
        $crate::crash::armed::here($step);
    }};
}

/// Ends the process here if a test wants it; nothing without the feature `crash-points`.
#[cfg(not(feature = "crash-points"))]
#[macro_export]
macro_rules! crash_point {
    ($step:literal) => {{
        const _: () = assert!($crate::crash::is_listed($step), "list it in engine/src/crash.rs");
    }};
}

/// The part that no release has.
#[cfg(feature = "crash-points")]
pub mod armed {
    use std::fs::{File, OpenOptions};
    use std::io::{self, Seek, SeekFrom, Write};
    use std::os::unix::fs::FileExt;
    use std::sync::OnceLock;

    use super::REACHED;

    /// The environment variable that names the file with the step in it.
    pub const FILE: &str = "EVANESCE_CRASH_FILE";
    /// Before a step at which every process dies that comes to it.
    const AGAIN: &[u8] = b"*";

    static OPENED: OnceLock<File> = OnceLock::new();

    /// Opens the file, while the process still may: call it first of all.
    pub fn arm() {
        let Some(path) = std::env::var_os(FILE) else { return };
        if let Ok(file) = OpenOptions::new().read(true).write(true).open(path) {
            let _ = OPENED.set(file);
        }
    }

    /// Dies here if this is the step.
    pub fn here(step: &str) {
        let Some(file) = OPENED.get() else { return };
        let mut wanted = [0; 64];
        let Ok(length) = file.read_at(&mut wanted, 0) else { return };
        let wanted = wanted.get(..length).unwrap_or_default();
        let once = wanted == step.as_bytes() && mark(file).is_ok();
        if once || wanted.strip_prefix(AGAIN) == Some(step.as_bytes()) {
            // The one way to die at once that every half's filter leaves it.
            std::process::abort();
        }
    }

    fn mark(mut file: &File) -> io::Result<()> {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(format!("{REACHED}{} ", std::process::id()).as_bytes())
    }
}
