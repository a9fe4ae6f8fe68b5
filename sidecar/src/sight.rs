// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What a volume shows, as anybody sees it who may look: the link `..data` and the mark `..stale`. No file of a secret is
//! ever opened.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{AtFlags, CWD, Stat, readlinkat, statat};
use rustix::io::Errno;

/// A complete set of files, by the name of its folder. Kubelet's own volumes have other names than ours and are as good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation(Box<str>);

impl Generation {
    /// The folder's name, if it can be one: of a single part that begins with two dots.
    pub fn parse(name: &str) -> Option<Self> {
        let fits = name.starts_with("..") && name.len() > 2 && !name.contains(['/', '\0']) && name.len() <= 255;
        let plain = name.bytes().all(|byte| byte.is_ascii_graphic());
        (fits && plain).then(|| Self(name.into()))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a look at a volume found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// No volume; why, and what to do.
    Nothing(String),
    /// A set of files.
    Shown(Shown),
}

/// A set of files that is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Which one.
    pub generation: Generation,
    /// Whether it is marked as older than its class allows.
    pub stale: bool,
    /// Since when, where the file system says.
    pub since: Option<SystemTime>,
}

/// Looks at the volume that is mounted at `path`.
pub fn look(path: &Path) -> Sight {
    let data = path.join("..data");
    let link = match readlinkat(CWD, &data, Vec::new()) {
        Ok(link) => link,
        Err(errno) => return Sight::Nothing(why_not(path, errno)),
    };
    let Some(generation) = link.to_str().ok().and_then(Generation::parse) else {
        return Sight::Nothing(format!("{} points elsewhere: it is no volume of secrets", data.display()));
    };
    // Beneath the name that was read, not beneath `..data`, which may be another one by now.
    let mark = path.join(&*generation.0).join("..stale");
    let stale = statat(CWD, &mark, AtFlags::SYMLINK_NOFOLLOW).is_ok();
    let since = statat(CWD, &data, AtFlags::SYMLINK_NOFOLLOW).ok().and_then(|stat| made(&stat));
    Sight::Shown(Shown { generation, stale, since })
}

/// What tells one folder from another that is mounted in its place.
pub fn identity(path: &Path) -> Option<(u64, u64)> {
    statat(CWD, path, AtFlags::empty()).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

/// When a link was made: it is never written again.
fn made(stat: &Stat) -> Option<SystemTime> {
    let seconds = u64::try_from(stat.st_mtime).ok()?;
    Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
}

fn why_not(path: &Path, errno: Errno) -> String {
    let (is_folder, path) = (path.is_dir(), path.display());
    match errno {
        Errno::NOENT | Errno::NOTDIR if !is_folder => {
            format!("{path} is no folder: mount the volume in this container too")
        }
        Errno::NOENT | Errno::INVAL => format!(
            "there is no link {path}/..data: mount the whole volume there, without subPath, or correct the path"
        ),
        Errno::ACCESS => format!("{path} may not be looked at by this uid: its folders have to be open to it"),
        errno => format!("{path} cannot be looked at: {}", io::Error::from(errno)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn nothing(path: &Path) -> String {
        match look(path) {
            Sight::Nothing(why) => why,
            Sight::Shown(shown) => panic!("{shown:?}"),
        }
    }

    #[test]
    fn a_look_says_which_set_is_shown_and_whether_it_is_marked() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("..g7")).unwrap();
        symlink("..g7", folder.path().join("..data")).unwrap();
        let Sight::Shown(shown) = look(folder.path()) else { panic!("nothing") };
        assert_eq!((shown.generation.to_string().as_str(), shown.stale), ("..g7", false));
        assert!(shown.since.unwrap().elapsed().unwrap().as_secs() < 60);
        fs::write(folder.path().join("..g7/..stale"), "").unwrap();
        assert!(matches!(look(folder.path()), Sight::Shown(Shown { stale: true, .. })));
    }

    #[test]
    fn what_is_no_volume_is_said_with_its_cure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert!(nothing(&path.join("nowhere")).contains("mount the volume in this container too"));
        assert!(nothing(path).contains("without subPath"));
        fs::write(path.join("..data"), "").unwrap();
        assert!(nothing(path).contains("without subPath"));
        fs::remove_file(path.join("..data")).unwrap();
        for elsewhere in ["../etc", "/etc", "..", "..g1/x", "g1", "..\u{1b}[31m"] {
            symlink(elsewhere, path.join("..data")).unwrap();
            assert!(nothing(path).contains("points elsewhere"), "{elsewhere}");
            fs::remove_file(path.join("..data")).unwrap();
        }
    }
}
