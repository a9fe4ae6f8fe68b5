// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A volume on disk: complete sets of files, one of them shown, swapped by one rename.
//!
//! The layout is kubelet's own for projected volumes, so that readers and watchers work unchanged:
//!
//! ```text
//! ..g7/db/password    generation 7, never changed once it is shown
//! ..g7/..stale        but for this mark, where it is older than its class allows
//! ..data -> ..g7      swapped by rename(2)
//! db -> ..data/db     what the application opens
//! ```
//!
//! Everything happens beneath a directory that is held open; no path of the outside is ever used, and each name is
//! created, never followed. This is the only code that writes a secret to a file system.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Mode as Bits, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::crash_point;
use crate::error::{Error, Kind};
use crate::projection::{FilePath, Projection};
use crate::spec::volume::OnStale;

/// The link that is swapped.
const DATA: &str = "..data";
/// The link before it is renamed over [`DATA`].
const DATA_NEW: &str = "..data_new";
/// The mark of a generation that is too old: empty, and of the time when it was set. No file of a class has such a name.
const STALE: &str = "..stale";
/// What generation folders begin with.
const PREFIX: &str = "..g";
/// Folders are entered by every uid of the pod; what they hold is guarded by the files' own modes.
const FOLDER: Bits = Bits::from_raw_mode(0o755);

/// The folder of one volume.
pub struct Generations {
    root: OwnedFd,
}

/// A generation that is written and not shown yet.
pub struct Written {
    /// Its number.
    pub number: u64,
    /// The files' paths from the root, with the owners they are to have; their permission bits are set.
    pub owners: Vec<(String, u32, u32)>,
}

impl Generations {
    /// Works beneath `root`.
    pub fn new(root: OwnedFd) -> Self {
        Self { root }
    }

    /// The root, for questions about the file system.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The generation that is shown.
    ///
    /// # Errors
    /// What the kernel says; a link that is not ours is `InvalidData`.
    pub fn shown(&self) -> io::Result<Option<u64>> {
        match fs::readlinkat(&self.root, DATA, Vec::new()) {
            Ok(link) => {
                let number = link.to_str().ok().and_then(number_of);
                number.map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "..data points elsewhere"))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Every generation there is, in order.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn numbers(&self) -> io::Result<BTreeSet<u64>> {
        Ok(names(self.root.as_fd())?.iter().filter_map(|name| number_of(name.to_str().ok()?)).collect())
    }

    /// Writes `projection` as generation `number`, not shown yet. What a failed write left is removed.
    ///
    /// # Errors
    /// [`Kind::Exhausted`] where the volume is full, [`Kind::Internal`] otherwise.
    pub fn write(&self, number: u64, projection: &Projection) -> Result<Written, Error> {
        let name = folder_name(number);
        // Outside the attempt: a folder that was there already is not ours to remove.
        fs::mkdirat(&self.root, &*name, FOLDER).map_err(|error| failed(number, &error.into(), None))?;
        crash_point!("write:folder-made");
        let attempt = || -> io::Result<Written> {
            // The process' umask is tight; folders are for everyone in the pod.
            let folder = open_folder(self.root.as_fd(), &name)?;
            fs::fchmod(&folder, FOLDER)?;
            let mut owners = Vec::with_capacity(projection.len());
            for (path, file) in projection.files() {
                let opened = create(&folder, path)?;
                crash_point!("write:file-made");
                write_all(&opened, file.bytes.expose())?;
                fs::fchmod(&opened, Bits::from_raw_mode(file.mode.bits().into()))?;
                crash_point!("write:file-written");
                owners.push((format!("{name}/{path}"), file.uid, file.gid));
            }
            crash_point!("write:written");
            Ok(Written { number, owners })
        };
        attempt().map_err(|error| failed(number, &error, self.remove(number).err().as_ref()))
    }

    /// Shows generation `number` in one step: a reader that opens `..data` sees the whole of one generation.
    ///
    /// # Errors
    /// What the kernel says; the generation shown before stays.
    pub fn show(&self, number: u64) -> io::Result<()> {
        let folder = folder_name(number);
        remove_if_there(&self.root, DATA_NEW, AtFlags::empty())?;
        fs::symlinkat(&*folder, &self.root, DATA_NEW)?;
        crash_point!("show:link-made");
        fs::renameat(&self.root, DATA_NEW, &self.root, DATA)?;
        crash_point!("show:swapped");
        self.link_names(&open_folder(self.root.as_fd(), &folder)?)
    }

    /// Makes the links at the root those of the generation in `folder`.
    fn link_names(&self, folder: &OwnedFd) -> io::Result<()> {
        let users = |folder: BorrowedFd<'_>| -> io::Result<BTreeSet<_>> {
            Ok(names(folder)?.into_iter().filter(|name| !name.to_bytes().starts_with(b"..")).collect())
        };
        let (wanted, present) = (users(folder.as_fd())?, users(self.root.as_fd())?);
        for name in wanted.difference(&present) {
            let mut link = b"..data/".to_vec();
            link.extend_from_slice(name.to_bytes());
            fs::symlinkat(&*link, &self.root, name.as_c_str())?;
            crash_point!("show:name-linked");
        }
        for name in present.difference(&wanted) {
            fs::unlinkat(&self.root, name.as_c_str(), AtFlags::empty())?;
            crash_point!("show:name-removed");
        }
        Ok(())
    }

    /// Marks generation `number` as too old, in one step; nothing where it is marked.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn mark(&self, number: u64) -> io::Result<()> {
        let folder = open_folder(self.root.as_fd(), &folder_name(number))?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::openat(&folder, STALE, flags, Bits::from_raw_mode(0o444)) {
            // The process' umask is tight, and everyone in the pod may look.
            Ok(mark) => Ok(fs::fchmod(&mark, Bits::from_raw_mode(0o444))?),
            Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the mark away, in one step.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn unmark(&self, number: u64) -> io::Result<()> {
        remove_if_there(&open_folder(self.root.as_fd(), &folder_name(number))?, STALE, AtFlags::empty())
    }

    /// Whether generation `number` is marked, and whether it still has its files.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn marked(&self, number: u64) -> io::Result<Option<OnStale>> {
        let names = names(open_folder(self.root.as_fd(), &folder_name(number))?.as_fd())?;
        let marked = names.iter().any(|name| name.to_bytes() == STALE.as_bytes());
        let then = if names.len() > 1 { OnStale::Mark } else { OnStale::Remove };
        Ok(marked.then_some(then))
    }

    /// Removes generation `number`; nothing where there is none.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove(&self, number: u64) -> io::Result<()> {
        let name = folder_name(number);
        match open_folder(self.root.as_fd(), &name) {
            Ok(folder) => {
                empty(&folder)?;
                crash_point!("remove:emptied");
                remove_if_there(&self.root, &name, AtFlags::REMOVEDIR)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn failed(number: u64, error: &io::Error, left: Option<&io::Error>) -> Error {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let (kind, text) = if full {
        (Kind::Exhausted, "the volume is too small for its files: raise spec.size of the SecretVolume")
    } else {
        (Kind::Internal, "the volume's files could not be written")
    };
    let left = left.map(|error| format!("; its remains could not be removed: {error}")).unwrap_or_default();
    Error::new(kind, text).with_detail(format!("generation {number}: {error}{left}"))
}

fn folder_name(number: u64) -> String {
    format!("{PREFIX}{number}")
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

fn open_folder(at: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::openat(at, name, flags, Bits::empty())?)
}

/// Creates the file and the folders above it; nothing that exists is opened for writing and no link is followed.
fn create(generation: &OwnedFd, path: &FilePath) -> io::Result<OwnedFd> {
    for (at, _) in path.as_str().match_indices('/') {
        let above = &path.as_str()[..at];
        match fs::mkdirat(generation, above, FOLDER) {
            Ok(()) => fs::chmodat(generation, above, FOLDER, AtFlags::empty())?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    Ok(fs::openat2(generation, path.as_str(), flags, Bits::RUSR | Bits::WUSR, resolve)?)
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The entries of a folder but `.` and `..`.
fn names(folder: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(folder)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Empties a folder of ours; links in it are removed, not followed.
fn empty(folder: &OwnedFd) -> io::Result<()> {
    for name in names(folder.as_fd())? {
        match remove_entry(folder, &name) {
            Err(Errno::ISDIR) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                empty(&fs::openat(folder, name.as_c_str(), flags, Bits::empty())?)?;
                fs::unlinkat(folder, name.as_c_str(), AtFlags::REMOVEDIR)?;
            }
            other => other?,
        }
    }
    Ok(())
}

fn remove_entry(folder: &OwnedFd, name: &CStr) -> Result<(), Errno> {
    match fs::unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

fn remove_if_there(at: &OwnedFd, name: &str, flags: AtFlags) -> io::Result<()> {
    match fs::unlinkat(at, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::projection::{File, Mode};
    use crate::secret::SecretBytes;
    use std::fs as std_fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn projection(files: &[(&str, &str)]) -> Projection {
        let mut projection = Projection::default();
        for (path, text) in files {
            let file = File { bytes: SecretBytes::from(text.as_bytes()), mode: Mode::GROUP_READS, uid: 0, gid: 0 };
            projection.add(FilePath::parse(path).unwrap(), file).unwrap();
        }
        projection
    }

    fn volume() -> (tempfile::TempDir, Generations) {
        let folder = tempfile::tempdir().unwrap();
        let root = std_fs::File::open(folder.path()).unwrap().into();
        (folder, Generations::new(root))
    }

    #[test]
    fn a_generation_is_seen_whole_once_it_is_shown_and_not_before() {
        let (folder, generations) = volume();
        let written = generations.write(1, &projection(&[("a", "1"), ("d/b", "2")])).unwrap();
        assert_eq!((written.number, written.owners.len(), generations.shown().unwrap()), (1, 2, None));
        assert!(!folder.path().join("a").exists());
        generations.show(1).unwrap();
        assert_eq!(std_fs::read_to_string(folder.path().join("a")).unwrap(), "1");
        assert_eq!(std_fs::read_to_string(folder.path().join("d/b")).unwrap(), "2");
        assert_eq!(std_fs::metadata(folder.path().join("a")).unwrap().permissions().mode() & 0o7777, 0o440);
        assert_eq!(std_fs::metadata(folder.path().join("d")).unwrap().permissions().mode() & 0o7777, 0o755);
    }

    #[test]
    fn the_previous_generation_stays_until_it_is_removed() {
        let (folder, generations) = volume();
        generations.write(1, &projection(&[("a", "old"), ("gone", "x")])).unwrap();
        generations.show(1).unwrap();
        let held = std_fs::File::open(folder.path().join("..data")).unwrap();
        generations.write(2, &projection(&[("a", "new"), ("more", "y")])).unwrap();
        generations.show(2).unwrap();
        assert_eq!(std_fs::read_to_string(folder.path().join("a")).unwrap(), "new");
        let mut names: Vec<_> =
            std_fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["..data", "..g1", "..g2", "a", "more"]);
        assert_eq!(std_fs::read_to_string(folder.path().join("..g1/a")).unwrap(), "old");
        generations.remove(1).unwrap();
        generations.remove(1).unwrap();
        assert_eq!(generations.numbers().unwrap().into_iter().collect::<Vec<_>>(), [2]);
        assert_eq!(held.metadata().unwrap().nlink(), 0);
    }

    #[test]
    fn a_file_that_is_there_already_is_never_written() {
        let (folder, generations) = volume();
        let outside = folder.path().join("outside");
        std_fs::write(&outside, "safe").unwrap();
        std_fs::create_dir(folder.path().join("..g1")).unwrap();
        std::os::unix::fs::symlink("../outside", folder.path().join("..g1/a")).unwrap();
        assert!(generations.write(1, &projection(&[("a", "1")])).is_err());
        assert_eq!(std_fs::read_to_string(&outside).unwrap(), "safe");
    }

    #[test]
    fn a_link_in_place_of_a_folder_is_not_followed() {
        let (folder, generations) = volume();
        std_fs::create_dir(folder.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", folder.path().join("..g1")).unwrap();
        assert!(generations.write(1, &projection(&[("a", "1")])).is_err());
        assert!(
            generations.show(1).is_err() || std_fs::read_dir(folder.path().join("elsewhere")).unwrap().count() == 0
        );
        assert_eq!(std_fs::read_dir(folder.path().join("elsewhere")).unwrap().count(), 0);
    }
}
