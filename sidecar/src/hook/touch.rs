// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Gives a file the time of now.

use std::io;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, fchmod, futimens, openat};
use rustix::io::Errno;

use super::Failure;

/// Touches `path`; makes it if it is not there.
pub fn touch(path: &Path) -> Result<(), Failure> {
    touch_or_make(path).map_err(|errno| {
        let cure = match errno {
            Errno::NOENT => ": its folder has to be there, mounted in this container",
            Errno::ACCESS | Errno::PERM | Errno::ROFS => ": this uid has to be allowed to write there",
            Errno::LOOP => ": a link is not followed",
            _ => "",
        };
        Failure::failed(format!("{} cannot be touched: {}{cure}", path.display(), io::Error::from(errno)))
    })
}

fn touch_or_make(path: &Path) -> Result<(), Errno> {
    // Not `O_TRUNC`: what is in it is somebody's. Not blocking: it may be a pipe.
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat(CWD, path, flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            let file = openat(CWD, path, flags | OFlags::CREATE, Mode::from_raw_mode(0o644))?;
            // Whoever watches it has another uid, and our umask is tight.
            fchmod(&file, Mode::from_raw_mode(0o644))?;
            file
        }
        other => other?,
    };
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    futimens(&file, &Timestamps { last_access: now, last_modification: now })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_file_is_made_for_all_to_read_and_later_only_its_time_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reload");
        touch(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        fs::write(&path, "theirs").unwrap();
        let past = SystemTime::now() - Duration::from_secs(3600);
        fs::File::options().write(true).open(&path).unwrap().set_modified(past).unwrap();
        touch(&path).unwrap();
        assert!(fs::metadata(&path).unwrap().modified().unwrap().elapsed().unwrap() < Duration::from_secs(60));
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
    }

    #[test]
    fn what_cannot_be_touched_is_said_with_its_cure() {
        let folder = tempfile::tempdir().unwrap();
        let heard = |path: &Path| touch(path).unwrap_err().to_string();
        assert!(heard(&folder.path().join("nowhere/reload")).contains("its folder has to be there"));
        symlink("/etc/hostname", folder.path().join("link")).unwrap();
        assert!(heard(&folder.path().join("link")).contains("a link is not followed"));
    }
}
